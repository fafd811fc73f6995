//! Releases on disk: assembling one from a build, its root, and its blocks.
//!
//! The ledger computes the same from what builders reveal; these helpers are for folders.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cid::Cid;
use instar_attest::release::{
    Activation, ChunkProfile, FileMode, FileReveal, ProgramName, Release, ReleaseHead, ReleasePath,
    SBOM_PATH, SbomReveal, Slot, Source, SourceFormat, Target,
};
use instar_attest::{ChainId, Digest};
use instar_builder::record::BuildRecord;
use instar_chunks::{Profile, TreeLink, add_file, tree_root};

/// The one target that this project builds for so far.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The protocol number of the state machine.
pub const PROTOCOL: u32 = 1;

/// What receives blocks.
pub type Sink<'a> = dyn FnMut(&Cid, &[u8]) -> io::Result<()> + 'a;

/// The release that a build folder holds, for a chain.
pub fn of_build(dir: &Path, chain: ChainId) -> Result<Release> {
    let record = BuildRecord::read(dir)?;
    let head = ReleaseHead {
        activation: if record.slot.dapp_name().is_some() {
            Activation::Dapp
        } else {
            Activation::Rolling
        },
        chain,
        chunk_profile: ChunkProfile::new(Profile::InstarCdcV1.name())?,
        name: record.name,
        number: record.number,
        protocol: PROTOCOL,
        slot: record.slot,
        source: record.source,
    };
    let targets = record
        .targets
        .into_iter()
        .map(|t| (t.target, t.files))
        .collect();
    Ok(Release::assemble(head, &targets, record.sbom)?)
}

/// A source that nobody knows, for a program that was not built from a checkout here.
pub fn unknown_source() -> Source {
    Source {
        commit: "0".repeat(64),
        format: SourceFormat::Sha256,
        tree: "0".repeat(64),
    }
}

/// Lays out a program that exists already as a release of the node's slot. It can only be genesis-admitted.
pub fn of_program(program: &Path, dir: &Path, chain: ChainId, source: Source) -> Result<Release> {
    let target = Target::new(TARGET)?;
    let path = ReleasePath::of_target(&target, "instar")?;
    let at = dir.join(path.as_str());
    fs::create_dir_all(at.parent().context("a release path has a folder")?)?;
    fs::copy(program, &at)?;
    let sbom = br#"{"bomFormat":"CycloneDX","components":[],"specVersion":"1.5","version":1}"#;
    fs::write(dir.join(SBOM_PATH), sbom)?;
    let file = reveal(&at, path, FileMode::Executable)?;
    let s = reveal(
        &dir.join(SBOM_PATH),
        ReleasePath::new(SBOM_PATH)?,
        FileMode::Plain,
    )?;
    let sbom = SbomReveal {
        cid: s.cid,
        dag_size: s.dag_size,
        path: s.path,
        sha256: s.sha256,
        size: s.size,
    };
    let head = ReleaseHead {
        activation: Activation::Rolling,
        chain,
        chunk_profile: ChunkProfile::new(Profile::InstarCdcV1.name())?,
        name: ProgramName::new("instar")?,
        number: 1,
        protocol: PROTOCOL,
        slot: Slot::node(),
        source,
    };
    Ok(Release::assemble(
        head,
        &BTreeMap::from([(target, vec![file])]),
        sbom,
    )?)
}

fn reveal(at: &Path, path: ReleasePath, mode: FileMode) -> Result<FileReveal> {
    let summary = add_file(Profile::InstarCdcV1, &mut File::open(at)?, &mut |_, _| {
        Ok(())
    })?;
    Ok(FileReveal {
        cid: instar_attest::release::Cid::new(summary.cid.to_string())?,
        dag_size: summary.dag_size,
        mode,
        path,
        sha256: Digest::from_bytes(summary.sha256),
        size: summary.size,
    })
}

/// A root CID and the blocks that it is made of, without those of the files.
pub type RootAndBlocks = (Cid, Vec<(Cid, Vec<u8>)>);

/// The root CID of a release, and the blocks of its directories and of release.json.
pub fn root_blocks(release: &Release) -> Result<RootAndBlocks> {
    let mut blocks = Vec::new();
    let bytes = release.to_bytes()?;
    let summary = add_file(
        Profile::InstarCdcV1,
        &mut bytes.as_slice(),
        &mut |cid, data| {
            blocks.push((*cid, data.to_vec()));
            Ok(())
        },
    )?;
    let mut links = BTreeMap::new();
    for (path, link) in release.links() {
        links.insert(
            path,
            TreeLink {
                cid: link.cid.as_str().parse()?,
                dag_size: link.dag_size,
            },
        );
    }
    links.insert(
        "release.json".into(),
        TreeLink {
            cid: summary.cid,
            dag_size: summary.dag_size,
        },
    );
    let (root, directories) = tree_root(&links)?;
    blocks.extend(directories);
    Ok((root, blocks))
}

/// The root CID of a release.
pub fn root(release: &Release) -> Result<Cid> {
    Ok(root_blocks(release)?.0)
}

/// Cuts the files of a release below `dir` and hands every block of its DAG to `sink`; the root CID.
///
/// A file that is not what the release says is an error, whatever was handed over before.
pub fn store(dir: &Path, release: &Release, sink: &mut Sink<'_>) -> Result<Cid> {
    let mut wanted: Vec<(ReleasePath, String)> = release
        .files
        .iter()
        .map(|f| (f.path.clone(), f.cid.to_string()))
        .collect();
    wanted.push((release.sbom.path.clone(), release.sbom.cid.to_string()));
    for (path, cid) in wanted {
        let at = dir.join(path.as_str());
        let mut file = File::open(&at).with_context(|| at.display().to_string())?;
        let summary = add_file(Profile::InstarCdcV1, &mut file, sink)?;
        ensure!(
            summary.cid.to_string() == cid,
            "{} is not what the release holds: its CID is {}, the release says {cid}. Either the file was changed after \
             the build, or this build got other bytes than the release's builders",
            at.display(),
            summary.cid
        );
    }
    let (root, blocks) = root_blocks(release)?;
    for (cid, bytes) in &blocks {
        sink(cid, bytes)?;
    }
    Ok(root)
}
