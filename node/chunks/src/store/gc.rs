//! Collecting what no pin reaches, and checking what is held.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use cid::Cid;
use redb::{Durability, ReadableDatabase, ReadableTable};

use super::record::{HEAD_BYTES, Location};
use super::{BlockStore, INDEX, failed, now_minutes};
use crate::block::{BlockError, Blocks, RAW, canonical};
use crate::node::decode;

/// A segment of which less than this part is used (in percent) is copied to the end and deleted.
const SPARSE_PERCENT: u64 = 60;
/// Blocks that are forgotten or moved in one transaction.
const STEP: usize = 4096;

/// What looks at each block's key and place.
type Look<'a> = dyn FnMut(&[u8], Location) -> Result<(), BlockError> + 'a;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blocks that pins reach, or that are young.
    pub kept_blocks: u64,
    /// Blocks that were forgotten.
    pub removed_blocks: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Bytes that the disk got back.
    pub freed_bytes: u64,
    /// Blocks that a pin reaches and that are not held: a pin was made before its content came.
    pub missing_blocks: u64,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Blocks that were read and hashed.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks whose bytes are not what their address says.
    pub corrupt: Vec<Cid>,
    /// Pins (by name) with blocks that are not held, and one of those.
    pub incomplete: Vec<(String, Cid)>,
}

impl BlockStore {
    /// Forgets what no pin reaches and nobody put in the last `grace`, and gives the space back.
    ///
    /// Nothing is collected while a [`super::Lease`] is held; that is waited for at most `patience`.
    /// A pinned node that can't be read stops the collection: what hangs below it can't be known.
    pub fn gc(&self, grace: Duration, patience: Duration) -> Result<GcReport, BlockError> {
        let _collecting = self
            .gate
            .collect(patience)
            .map_err(|leases| BlockError::Busy { leases })?;
        let mut report = GcReport::default();
        let reached = self.reached(&mut report)?;
        let grace = u32::try_from(grace.as_secs() / 60).unwrap_or(u32::MAX);
        let old = now_minutes().saturating_sub(grace);
        let mut doomed = Vec::new();
        self.each(&mut |key, held| {
            // Minutes are rounded down, so that a grace of nothing spares nothing.
            let young = grace > 0 && held.minutes > old;
            if young || reached.contains(key) {
                report.kept_blocks += 1;
            } else {
                report.removed_blocks += 1;
                report.removed_bytes += u64::from(held.length);
                doomed.push(key.to_vec());
            }
            Ok(())
        })?;
        drop(reached);
        for step in doomed.chunks(STEP) {
            self.write("collect", |tables| {
                for key in step {
                    tables
                        .index
                        .remove(key.as_slice())
                        .map_err(failed("collect"))?;
                }
                Ok(())
            })?;
        }
        report.freed_bytes = self.compact()?;
        Ok(report)
    }

    /// The addresses of everything below the pins. Leaves are not read.
    fn reached(&self, report: &mut GcReport) -> Result<HashSet<Vec<u8>>, BlockError> {
        let mut reached = HashSet::new();
        let mut stack: Vec<Cid> = self.pins()?.into_iter().map(|(_, root)| root).collect();
        while let Some(cid) = stack.pop() {
            let cid = canonical(&cid)?;
            if !reached.insert(cid.to_bytes()) {
                continue;
            }
            if cid.codec() == RAW {
                report.missing_blocks += u64::from(!self.has(&cid)?);
                continue;
            }
            let Some(bytes) = self.get(&cid)? else {
                report.missing_blocks += 1;
                continue;
            };
            // Nothing is known to hang below a node that isn't understood.
            if let Ok(node) = decode(&cid, &bytes) {
                stack.extend(node.children());
            }
        }
        Ok(reached)
    }

    fn each(&self, look: &mut Look<'_>) -> Result<(), BlockError> {
        let read = self.db.begin_read().map_err(failed("list"))?;
        let table = read.open_table(INDEX).map_err(failed("list"))?;
        for row in table.iter().map_err(failed("list"))? {
            let (key, held) = row.map_err(failed("list"))?;
            if let Some(held) = Location::decode(held.value()) {
                look(key.value(), held)?;
            }
        }
        Ok(())
    }

    /// Deletes segments that nothing uses, and copies the rest out of those that little uses.
    fn compact(&self) -> Result<u64, BlockError> {
        let before = self.segments.total();
        let mut used: BTreeMap<u32, u64> = BTreeMap::new();
        self.each(&mut |_, held| {
            *used.entry(held.segment).or_default() += held.record_bytes();
            Ok(())
        })?;
        let ends: Vec<(u32, u64)> = self.write("collect", |tables| {
            let rows = tables.ends.iter().map_err(failed("collect"))?;
            rows.map(|row| {
                let (segment, end) = row.map_err(failed("collect"))?;
                Ok((segment.value(), end.value()))
            })
            .collect()
        })?;
        for (segment, end) in ends {
            let live = used.get(&segment).copied().unwrap_or_default();
            if live * 100 >= end * SPARSE_PERCENT && live > 0 {
                continue;
            }
            if live > 0 {
                self.evacuate(segment)?;
            }
            // First the index forgets it, durably; a file that is left over is deleted on opening.
            self.write("collect", |tables| {
                tables.ends.remove(segment).map_err(failed("collect"))?;
                Ok(())
            })?;
            let mut tail = self.segments.tail();
            self.segments
                .remove(&mut tail, segment, end)
                .map_err(failed("delete a segment"))?;
        }
        Ok(before.saturating_sub(self.segments.total()))
    }

    /// Copies what is used of a segment to the end of the last one.
    fn evacuate(&self, segment: u32) -> Result<(), BlockError> {
        let mut moving = Vec::new();
        self.each(&mut |key, held| {
            if held.segment == segment {
                moving.push((key.to_vec(), held));
            }
            Ok(())
        })?;
        // In the order of the file, so that neighbours stay neighbours.
        moving.sort_by_key(|(_, held)| held.offset);
        let mut tail = self.segments.tail();
        if tail.segment == segment {
            tail.close();
        }
        drop(tail);
        for step in moving.chunks(STEP) {
            let mut moved = Vec::with_capacity(step.len());
            let mut tail = self.segments.tail();
            for (key, held) in step {
                let (segment, offset) = self
                    .segments
                    .append(&mut tail, &self.record(key, held)?)
                    .map_err(failed("move a block"))?;
                moved.push(Location {
                    segment,
                    offset: offset + HEAD_BYTES as u64,
                    ..*held
                });
            }
            self.commit("collect", Durability::Immediate, &mut tail, |tables| {
                for ((key, _), to) in step.iter().zip(&moved) {
                    let reach = to.offset + u64::from(to.stored);
                    tables
                        .index
                        .insert(key.as_slice(), to.encode().as_slice())
                        .map_err(failed("collect"))?;
                    tables
                        .ends
                        .insert(to.segment, reach)
                        .map_err(failed("collect"))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The record of a block, as it lies in its segment.
    fn record(&self, key: &[u8], held: &Location) -> Result<Vec<u8>, BlockError> {
        use std::os::unix::fs::FileExt as _;
        let cid = Cid::try_from(key).map_err(failed("read a key"))?;
        let corrupt = || BlockError::Corrupt { cid };
        let file = self.segments.file(held.segment).ok_or_else(corrupt)?;
        let stored = (held.stored as usize).min(crate::MAX_BLOCK_BYTES);
        let mut record = vec![0; HEAD_BYTES + stored];
        let begin = held.offset.checked_sub(HEAD_BYTES as u64);
        file.read_exact_at(&mut record, begin.ok_or_else(corrupt)?)
            .map_err(failed("read a block"))?;
        Ok(record)
    }

    /// Reads and hashes every block, and looks whether what is pinned is whole.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport, BlockError> {
        let mut report = VerifyReport::default();
        let mut after: Option<Cid> = None;
        loop {
            let page = self.list(after.as_ref(), STEP)?;
            let Some(last) = page.last() else { break };
            after = Some(*last);
            for cid in &page {
                report.blocks += 1;
                match self.get(cid) {
                    Ok(Some(bytes)) => report.bytes += bytes.len() as u64,
                    // Forgotten meanwhile.
                    Ok(None) => report.blocks -= 1,
                    Err(BlockError::Corrupt { cid }) => report.corrupt.push(cid),
                    Err(other) => return Err(other),
                }
            }
            progress(report.blocks);
        }
        for (name, root) in self.pins()? {
            if let Some(absent) = self.first_missing(&root)? {
                report.incomplete.push((name, absent));
            }
        }
        Ok(report)
    }

    fn first_missing(&self, root: &Cid) -> Result<Option<Cid>, BlockError> {
        let mut seen = HashSet::new();
        let mut stack = vec![*root];
        while let Some(cid) = stack.pop() {
            if !seen.insert(cid) {
                continue;
            }
            if cid.codec() == RAW {
                if !self.has(&cid)? {
                    return Ok(Some(cid));
                }
                continue;
            }
            match self.get(&cid) {
                Ok(Some(bytes)) => {
                    if let Ok(node) = decode(&cid, &bytes) {
                        stack.extend(node.children());
                    }
                }
                Ok(None) | Err(BlockError::Corrupt { .. }) => return Ok(Some(cid)),
                Err(other) => return Err(other),
            }
        }
        Ok(None)
    }
}
