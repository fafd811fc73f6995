//! Making one snapshot, on a thread of its own. It reads a state that no later block changes, and rests as long as it
//! works, so that blocks don't feel it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use instar_chain::query;
use instar_chunks::block::{RAW, cid_of};
use instar_chunks::{BlockError, Blocks as _, Cid};
use instar_ledger::Oid;
use instar_state::{StoreError, snapshot};

use super::list::{ChunkAt, SnapshotList};
use super::{Kept, SNAPSHOTS_KEPT};
use crate::home::write_whole;
use crate::node::Node;

/// The longest rest between two chunks: a disk that stood still once is no reason to stand still as long.
const MAX_REST: Duration = Duration::from_secs(1);
/// How long space is waited for while others add blocks.
const GC_PATIENCE: Duration = Duration::from_secs(5);

/// Why a chunk could not be kept.
struct Failed(String);

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// Makes the snapshot of a height, keeps it under a pin, lists it, and lets the oldest go.
pub(super) fn make(node: &Node, height: u64) -> Result<Arc<Kept>, String> {
    let words = |e: &dyn std::fmt::Display| e.to_string();
    // Nothing of it is collected before the pin is there.
    let lease = node.blocks.lease();
    let view = node.state.view_aside(height).map_err(|e| words(&e))?;
    let (block, root) = node
        .state
        .height_row(height)
        .map_err(|e| words(&e))?
        .ok_or_else(|| format!("height {height} is not there"))?;
    let lanes = query::lanes(&view).map_err(|e| words(&e))?;
    let heads = lanes.into_iter().map(|(_, mark)| mark.head);
    let commits: Vec<Oid> = [block].into_iter().chain(heads).collect();
    let mut chunks = Vec::new();
    let mut since = Instant::now();
    snapshot::make(&view, &mut |prefix, bytes| {
        if *node.stop.borrow() {
            return Err(Failed("the node is stopping".to_owned()));
        }
        node.blocks
            .put_later(&cid_of(RAW, &bytes), &bytes)
            .map_err(|e| Failed(e.to_string()))?;
        chunks.push(ChunkAt::of(prefix, &bytes));
        std::thread::sleep(since.elapsed().min(MAX_REST));
        since = Instant::now();
        Ok(())
    })
    .map_err(|Failed(why)| why)?;
    let list = SnapshotList::new(node.chain, height, block, root, chunks, commits);
    let (folder, blocks) = list.folder()?;
    let mut append = node.blocks.append();
    for (cid, bytes) in &blocks {
        append.put(cid, bytes).map_err(|e| words(&e))?;
    }
    append
        .commit_pinned(&list.pin_name(), &folder)
        .map_err(|e| words(&e))?;
    let made = Arc::new(Kept::new(list)?);
    write_whole(&file_of(node, height), &made.bytes).map_err(|e| words(&e))?;
    drop(lease);
    let (gone, kept) = {
        let mut all = node.snapshots.lock();
        all.push(Arc::clone(&made));
        let old = all.len().saturating_sub(SNAPSHOTS_KEPT);
        let gone: Vec<Arc<Kept>> = all.drain(..old).collect();
        (gone, all.clone())
    };
    if let Err(why) = forget(node, &gone, &kept) {
        // What stays takes space and does no harm.
        tracing::warn!(why, "an old snapshot was not removed");
    }
    Ok(made)
}

/// Removes old snapshots: what stands in no kept one. Nobody else pins chunks of a state.
fn forget(node: &Node, gone: &[Arc<Kept>], kept: &[Arc<Kept>]) -> Result<(), String> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut blocks = BTreeSet::new();
    for Kept { list, .. } in gone.iter().map(Arc::as_ref) {
        match fs::remove_file(file_of(node, list.height)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.to_string()),
            _ => {}
        }
        node.blocks
            .unpin(&list.pin_name())
            .map_err(|e| e.to_string())?;
        blocks.extend(list.blocks()?);
    }
    for Kept { list, .. } in kept.iter().map(Arc::as_ref) {
        for cid in list.blocks()? {
            blocks.remove(&cid);
        }
    }
    let blocks: Vec<Cid> = blocks.into_iter().collect();
    node.blocks.remove(&blocks).map_err(|e| e.to_string())?;
    // With this grace nothing is collected; the space of what was removed is given back.
    match node.blocks.gc(Duration::MAX, GC_PATIENCE) {
        // Somebody is adding blocks; the next snapshot's turn will do it.
        Ok(_) | Err(BlockError::Busy { .. }) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

fn file_of(node: &Node, height: u64) -> std::path::PathBuf {
    node.home.snapshots().join(format!("{height}.json"))
}
