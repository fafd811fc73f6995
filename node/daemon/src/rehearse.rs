//! Rehearsal: a fork of the state at height R runs the next N real blocks with the new release, in a closed world.
//!
//! It runs in a process of its own, which for the node's slot is the *new* program. Its input is an exported state and
//! the ledger; it holds no keys, appends nothing, and answers with one state root.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use instar_attest::Digest;
use instar_chain::{BlockInput, MemoryState, apply_block};
use instar_chunks::BlockStore;
use instar_ledger::{LaneCommit, Oid, Store};
use instar_runtime::Runtime;
use serde::{Deserialize, Serialize};

/// A state larger than this is not exported for a rehearsal.
const MAX_SNAPSHOT_BYTES: u64 = 4 << 30;

/// What to rehearse.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// The exported state at R.
    pub snapshot: PathBuf,
    /// The ledger.
    pub ledger: PathBuf,
    /// The folder with unpacked images.
    pub images: PathBuf,
    /// A block store of its own, with the releases of all dapps as the rehearsal needs them.
    pub blocks: PathBuf,
    /// R.
    pub from: u64,
    /// R + N.
    pub to: u64,
    /// The slot that is replaced.
    pub slot: String,
    /// The release that replaces it.
    pub release: String,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// R + N.
    pub height: u64,
    /// The state root after R + N.
    pub root: Digest,
}

/// A rehearsal that could not be run to its end; the release gets no readiness from this node.
#[derive(Debug, thiserror::Error)]
#[error("the rehearsal failed: {0}")]
pub struct RehearsalError(pub String);

/// The error with its causes: the other side of the pipe reads text only.
fn fail(e: impl std::error::Error) -> RehearsalError {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    RehearsalError(text)
}

/// Writes a state's keys and values, one hex pair a line.
pub fn write_snapshot(
    path: &Path,
    pairs: impl Iterator<Item = Result<(String, Vec<u8>), instar_chain::StateError>>,
) -> Result<(), RehearsalError> {
    let mut out = BufWriter::new(File::create(path).map_err(fail)?);
    for pair in pairs {
        let (key, value) = pair.map_err(fail)?;
        serde_json::to_writer(&mut out, &(key, value)).map_err(fail)?;
        out.write_all(b"\n").map_err(fail)?;
    }
    out.flush().map_err(fail)
}

fn read_snapshot(path: &Path) -> Result<MemoryState, RehearsalError> {
    let file = File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    if size > MAX_SNAPSHOT_BYTES {
        return Err(RehearsalError(format!(
            "the exported state has {size} bytes, at most {MAX_SNAPSHOT_BYTES} are read"
        )));
    }
    let mut state = MemoryState::default();
    for line in BufReader::new(file).lines() {
        let (key, value): (String, Vec<u8>) =
            serde_json::from_str(&line.map_err(fail)?).map_err(fail)?;
        state.insert(key, value);
    }
    Ok(state)
}

/// Runs the rehearsal.
pub fn rehearse(what: &Rehearsal) -> Result<Rehearsed, RehearsalError> {
    let mut state = read_snapshot(&what.snapshot)?;
    let ledger = Store::open_clone(&what.ledger).map_err(fail)?;
    let blocks = Arc::new(BlockStore::open(&what.blocks).map_err(fail)?);
    let mut runtime = Runtime::new(&what.images, blocks).map_err(fail)?;
    let replaced = instar_chain::rehearsal::replace(
        &state,
        &what.slot,
        &what.release,
        what.from,
        &mut runtime,
    )
    .map_err(fail)?;
    state.apply(&replaced);
    for height in what.from + 1..=what.to {
        let id = ledger.block_at(height);
        let id =
            id.ok_or_else(|| RehearsalError(format!("block {height} is not in the ledger")))?;
        let writes = replay(&ledger, &id, &state, &mut runtime)?;
        state.apply(&writes);
    }
    runtime.shutdown();
    let pairs = state
        .iter()
        .map(|(k, v)| Ok::<_, instar_state::StoreError>((k.to_owned(), v.to_vec())));
    let root = instar_state::root_of_snapshot(pairs).map_err(fail)?;
    Ok(Rehearsed {
        height: what.to,
        root,
    })
}

fn replay(
    ledger: &Store,
    id: &Oid,
    state: &MemoryState,
    runtime: &mut Runtime,
) -> Result<instar_chain::Writes, RehearsalError> {
    let block = ledger.read_block(id).map_err(fail)?;
    let header = &block.header;
    let mut lanes: Vec<LaneCommit> = Vec::new();
    for range in &header.lanes {
        for commit in ledger
            .lane_range(&range.head, range.from - 1)
            .map_err(fail)?
        {
            lanes.push(ledger.lane_commit(&commit).map_err(fail)?);
        }
    }
    let slice = header.forks.first().map(|range| ledger.slice(range));
    let slice = slice.transpose().map_err(fail)?;
    let input = BlockInput {
        chain: header.chain,
        height: header.height,
        time_ms: header.time_ms,
        parent: header.parent,
        proposer: header.proposer,
        previous: block.previous.as_ref(),
        lanes: &lanes,
        fork: slice.as_ref(),
        left_out: &header.left_out,
    };
    apply_block(state, &input, runtime)
        .map(|output| output.writes)
        .map_err(fail)
}
