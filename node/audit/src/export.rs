//! Writes an audit bundle. All but the content of files and the source commit comes from the clone itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use instar_attest::json;
use instar_attest::release::{Release, Source};
use instar_chain::ops::BuildOp;
use instar_chain::query;
use instar_chunks::Blocks;
use instar_ledger::sshsig;

use crate::bundle::{
    ABOUT_FORMAT, AUDIT_FILE, About, COMMIT_FILE, GENESIS_FILE, RELEASE_FILE, SBOM_FILE,
    SIGNERS_FILE, attestation_member, file_member,
};
use crate::report::Report;
use crate::verify::{Verified, verify_chain};

/// Where an export gets what no ledger holds.
pub trait Supplier {
    /// The content of a file, by its CID.
    fn file(&mut self, cid: &str) -> io::Result<Box<dyn Read + '_>>;

    /// The raw git commit object, without git's prefix; nothing if it can't be had.
    fn source_commit(&mut self, source: &Source) -> io::Result<Option<Vec<u8>>>;
}

/// The largest file that [`FromBlocks`] reads: it is put together in memory.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// A supplier over blocks, wherever they come from: each is checked against its CID.
pub struct FromBlocks<'a> {
    /// The blocks.
    pub blocks: &'a dyn Blocks,
    /// The raw source commit, if it is at hand.
    pub source_commit: Option<Vec<u8>>,
}

impl Supplier for FromBlocks<'_> {
    fn file(&mut self, cid: &str) -> io::Result<Box<dyn Read + '_>> {
        let cid: instar_chunks::Cid = cid.parse().map_err(io::Error::other)?;
        let bytes = instar_chunks::read_file(self.blocks, &cid, MAX_FILE_BYTES)
            .map_err(io::Error::other)?;
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn source_commit(&mut self, _: &Source) -> io::Result<Option<Vec<u8>>> {
        Ok(self.source_commit.clone())
    }
}

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The clone is not a chain that holds.
    #[error("the clone does not verify: {0}")]
    Clone(String),
    /// The ledger knows no such release.
    #[error("the ledger knows no release {0} that builders agreed on")]
    Unknown(String),
    /// The ledger's own description of the release can't be read.
    #[error(transparent)]
    Release(#[from] instar_attest::release::ReleaseError),
    /// Something could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> ExportError {
    let what = what.into();
    move |source| ExportError::Io { what, source }
}

/// Verifies the clone and writes the bundle of release `cid` to the folder `out`, which must not exist yet.
pub fn export(
    clone: &Path,
    cid: &str,
    supplier: &mut dyn Supplier,
    out: &Path,
) -> Result<(), ExportError> {
    let (report, verified) = verify_chain(clone);
    let Some(verified) = verified else {
        return Err(ExportError::Clone(why(&report)));
    };
    export_verified(&verified, cid, supplier, out)
}

/// As [`export`], from a chain that [`verify_chain`] has verified.
pub fn export_verified(
    verified: &Verified,
    cid: &str,
    supplier: &mut dyn Supplier,
    out: &Path,
) -> Result<(), ExportError> {
    // Written beside its place and renamed, so that a bundle is whole or not there.
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(io_error(partial.display().to_string()))?;
    }
    write_members(verified, cid, supplier, &partial)?;
    fs::create_dir(out)
        .and_then(|()| fs::rename(&partial, out))
        .map_err(io_error(out.display().to_string()))
}

fn why(report: &Report) -> String {
    report
        .refused_by()
        .map(|s| format!("{}: {}", s.name, s.detail))
        .unwrap_or_default()
}

fn write_members(
    verified: &Verified,
    cid: &str,
    supplier: &mut dyn Supplier,
    dir: &Path,
) -> Result<(), ExportError> {
    let text = query::release_json(&verified.state, cid)
        .ok()
        .flatten()
        .ok_or_else(|| ExportError::Unknown(cid.to_owned()))?;
    let release = Release::parse(text.as_bytes())?;
    let put = |member: &str, bytes: &[u8]| -> Result<(), ExportError> {
        create(dir, member)?
            .write_all(bytes)
            .map_err(io_error(member))
    };
    let about = About {
        chain: verified.history.chain,
        format: ABOUT_FORMAT,
        release: cid.to_owned(),
    };
    let about = json::to_vec(&about).expect("a chain id, a CID and a constant are plain text");
    put(AUDIT_FILE, &about)?;
    put(GENESIS_FILE, &verified.history.genesis_bytes)?;
    put(SIGNERS_FILE, allowed_signers(verified).as_bytes())?;
    put(RELEASE_FILE, text.as_bytes())?;
    for (member, bytes) in attestations(verified, &release, cid) {
        put(&member, &bytes)?;
    }
    let commit = supplier
        .source_commit(&release.source)
        .map_err(io_error("the source commit"))?;
    if let Some(commit) = commit {
        put(COMMIT_FILE, &commit)?;
    }
    let sbom = (SBOM_FILE.to_owned(), release.sbom.cid.as_str());
    let files = release
        .files
        .iter()
        .map(|f| (file_member(f.path.as_str()), f.cid.as_str()));
    for (member, cid) in files.chain([sbom]) {
        let what = format!("{member} ({cid})");
        let mut from = supplier.file(cid).map_err(io_error(&what))?;
        let mut to = create(dir, &member)?;
        io::copy(&mut from, &mut to).map_err(io_error(&what))?;
    }
    Ok(())
}

fn create(dir: &Path, member: &str) -> Result<File, ExportError> {
    let path = dir.join(member);
    let what = || io_error(path.display().to_string());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(what())?;
    }
    File::create_new(&path).map_err(what())
}

/// The allowed-signers file of all devices that the chain registers.
pub(crate) fn allowed_signers(verified: &Verified) -> String {
    let devices = query::devices(&verified.state).unwrap_or_default();
    let named: Vec<_> = devices
        .values()
        .flat_map(|d| d.lane_keys().map(|key| (d.name.clone(), key)))
        .collect();
    sshsig::allowed_signers(&named)
}

/// Each builder's bundle of the round that made the release, as its reveal carries it.
fn attestations(verified: &Verified, release: &Release, cid: &str) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let round = query::slots(&verified.state)
        .unwrap_or_default()
        .remove(release.slot.as_str())
        .and_then(|slot| slot.history.into_iter().find(|h| h.release == cid))
        .and_then(|h| query::round(&verified.state, &h.round?).ok()?);
    for build in verified.log.builds() {
        if let BuildOp::Reveal(reveal) = build.op
            && let Some(round) = &round
            && reveal.round == round.id
            && let Some(builder) = round.builders.iter().find(|b| b.account == build.author)
        {
            let member = attestation_member(&builder.key);
            out.insert(member, reveal.bundle.into_bytes());
        }
    }
    out
}
