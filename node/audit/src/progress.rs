//! What a verification leaves on disk, so that it goes on where it was killed: the state as far as it is known, and what
//! was checked. The file is the verifier's own and is trusted as such; a torn or older one is not used.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use instar_attest::{ChainId, Digest};
use instar_chain::MemoryState;
use instar_ledger::Oid;
use instar_state::Fork;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::replay::Known;
use crate::walk::Counts;

/// The format; the program's version stands beside it, since another one may have other rules.
const FORMAT: &str = "instar-verify-progress-v1";
/// The longest line: a value of the largest size in hex, and its key.
const MAX_LINE_BYTES: u64 = 2 * instar_chain::view::MAX_VALUE_BYTES as u64 + 4096;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The newest block that was checked.
    pub block: Oid,
    /// The chain.
    pub chain: ChainId,
    /// What was checked so far.
    pub counts: Counts,
    /// Whether dapps were run.
    pub dapps_run: bool,
    format: String,
    /// The block's height.
    pub height: u64,
    /// The first height whose state root could not be recomputed.
    pub native_since: Option<u64>,
    program: String,
    /// Up to here the signatures were taken on somebody's word.
    pub trusted: u64,
    whole: bool,
}

/// What was verified before.
pub struct Progress {
    /// How far, and what was checked.
    pub head: Head,
    /// The state there.
    pub known: Known,
}

/// What [`save`] keeps beside the state.
pub struct Place<'a> {
    /// The chain.
    pub chain: ChainId,
    /// The newest block that was checked.
    pub block: Oid,
    /// Its height.
    pub height: u64,
    /// What was checked so far.
    pub counts: &'a Counts,
    /// Whether dapps were run.
    pub dapps_run: bool,
    /// The first height whose state root could not be recomputed.
    pub native_since: Option<u64>,
    /// Up to here the signatures were taken on somebody's word.
    pub trusted: u64,
}

/// Writes the file beside its place and renames it, so that a crash leaves the old one or the new one.
pub fn save(path: &Path, place: &Place<'_>, known: &Known) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let fresh = fresh(path);
    let mut out = Hashing {
        hash: Sha256::new(),
        to: BufWriter::new(File::create(&fresh)?),
    };
    let head = Head {
        block: place.block,
        chain: place.chain,
        counts: place.counts.clone(),
        dapps_run: place.dapps_run,
        format: FORMAT.into(),
        height: place.height,
        native_since: place.native_since,
        program: env!("CARGO_PKG_VERSION").into(),
        trusted: place.trusted,
        whole: matches!(known, Known::Whole(_)),
    };
    serde_json::to_writer(&mut out, &head)?;
    out.write_all(b"\n")?;
    for (key, value) in known.pairs() {
        serde_json::to_writer(&mut out, &(key, hex::encode(value)))?;
        out.write_all(b"\n")?;
    }
    let sum = Digest::from_bytes(out.hash.finalize().into());
    writeln!(out.to, "{sum}")?;
    out.to.flush()?;
    out.to.get_ref().sync_data()?;
    fs::rename(&fresh, path)
}

fn fresh(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

struct Hashing<W> {
    hash: Sha256,
    to: W,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Reads the file. Nothing if there is none; an error says why one that is there is of no use.
pub fn load(path: &Path) -> Result<Option<Progress>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let mut from = BufReader::new(file);
    let mut hash = Sha256::new();
    let mut line = || -> Result<(String, [u8; 32]), String> {
        let mut line = String::new();
        let read = from
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_line(&mut line)
            .map_err(|e| e.to_string())?;
        if read == 0 || !line.ends_with('\n') {
            return Err("it is torn".into());
        }
        let before = hash.clone().finalize().into();
        hash.update(&line);
        Ok((line, before))
    };
    let bad = |e: serde_json::Error| format!("it is damaged: {e}");
    let head: Head = serde_json::from_str(&line()?.0).map_err(bad)?;
    if head.format != FORMAT || head.program != env!("CARGO_PKG_VERSION") {
        return Err("another version of this program wrote it".into());
    }
    let mut pairs = Vec::new();
    loop {
        let (text, sum) = line()?;
        if !text.starts_with('[') {
            let kept: Digest = text.trim_end().parse().map_err(|_| "it is damaged")?;
            if *kept.as_bytes() != sum {
                return Err("it is damaged: its checksum does not hold".into());
            }
            break;
        }
        let (key, value): (String, String) = serde_json::from_str(&text).map_err(bad)?;
        let value = hex::decode(value).map_err(|e| format!("it is damaged: {e}"))?;
        pairs.push((key, value));
    }
    let known = if head.whole {
        let pairs = pairs.into_iter().map(Ok::<_, instar_state::StoreError>);
        let fork = Fork::from_snapshot(pairs).map_err(|e| e.to_string())?;
        Known::Whole(Box::new(fork))
    } else {
        let mut state = MemoryState::default();
        for (key, value) in pairs {
            state.insert(key, value);
        }
        Known::Native(state)
    };
    Ok(Some(Progress { head, known }))
}
