//! What a block may merge: whose lanes, from where, in which order, and how much of them.

use std::collections::BTreeMap;

use instar_ledger::block::MAX_LANES_A_BLOCK;
use instar_ledger::lane::merge_key;
use instar_ledger::{DeviceId, Lane, LaneCommit, Oid};

use crate::block::{BlockError, BlockInput};
use crate::keys;
use crate::record::{self, Closed, DeviceRecord, LaneMark};
use crate::view::{Overlay, StateError, StateView};

/// How many entries one device may have in one block: as many as one lane commit may carry.
pub const MAX_DEVICE_ENTRIES: u64 = 4096;
/// How many entries one block may have, over all lanes: their receipts fit `receipts.jsonl`, whatever dapps say.
pub const MAX_BLOCK_ENTRIES: u64 = 8192;
/// How many bytes of entries one device may have in one block; four full lane commits.
pub const MAX_DEVICE_BYTES: u64 = 4 * 1024 * 1024;

/// For how many blocks the rest of a closed lane is still merged, so that every entry on it gets its receipt: a lane's
/// unmerged end is work for a block at once, so its honest rest is merged within a few.
pub const CLOSING_BLOCKS: u64 = 64;
/// How far a new incarnation may lie above the newest. A device that lost its marks may have lost what it knew of newer
/// incarnations too, so it jumps to one that it can't have used; and it can do so a few hundred times.
pub const MAX_INCARNATION_STEP: u32 = 1 << 24;

/// What is used of a block and of its devices' quotas. A proposer asks it what still fits; a merge test refuses the rest.
#[derive(Debug, Clone, Default)]
pub struct Quota {
    devices: BTreeMap<DeviceId, (u64, u64)>,
    entries: u64,
}

impl Quota {
    /// A block in which so many entries are taken already, by a slice of a fork.
    pub fn beside(entries: u64) -> Self {
        Self {
            devices: BTreeMap::new(),
            entries,
        }
    }

    /// Takes a commit if the block and its device's quota allow it.
    pub fn take(&mut self, commit: &LaneCommit) -> bool {
        let (entries, bytes) = self.with(commit);
        let all = self.entries.saturating_add(commit.entries.len() as u64);
        let fits =
            entries <= MAX_DEVICE_ENTRIES && bytes <= MAX_DEVICE_BYTES && all <= MAX_BLOCK_ENTRIES;
        if fits {
            self.devices.insert(commit.lane.device, (entries, bytes));
            self.entries = all;
        }
        fits
    }

    fn with(&self, commit: &LaneCommit) -> (u64, u64) {
        let (entries, bytes) = self
            .devices
            .get(&commit.lane.device)
            .copied()
            .unwrap_or_default();
        let own: usize = commit.entries.iter().map(|e| e.to_line().len() + 1).sum();
        (
            entries.saturating_add(commit.entries.len() as u64),
            bytes.saturating_add(own as u64),
        )
    }
}

/// Checks what a block merges, and notes up to where each lane is merged then.
pub(crate) fn merge(state: &mut Overlay<'_>, input: &BlockInput<'_>) -> Result<(), BlockError> {
    let mut quota = Quota::default();
    let mut lanes: Vec<Lane> = Vec::new();
    let mut marks: BTreeMap<Lane, LaneMark> = BTreeMap::new();
    let entries: u64 = input.lanes.iter().map(|c| c.entries.len() as u64).sum();
    if entries > MAX_BLOCK_ENTRIES {
        return Err(BlockError::TooManyEntries {
            got: entries,
            max: MAX_BLOCK_ENTRIES,
        });
    }
    for commit in input.lanes {
        let lane = commit.lane;
        if lanes.last() != Some(&lane) {
            let later = lanes
                .last()
                .is_none_or(|l| merge_key(&input.parent, l) < merge_key(&input.parent, &lane));
            if !later {
                return Err(BlockError::LaneOrder(lane));
            }
            lanes.push(lane);
            let mark = open(state, input, &lane)?;
            marks.insert(lane, mark);
        }
        let Some(mark) = marks.get_mut(&lane) else {
            return Err(BlockError::LaneOrder(lane));
        };
        if mark.seq.checked_add(1) != Some(commit.seq) || commit.parent != mark.head {
            return Err(BlockError::LaneGap {
                lane,
                seq: commit.seq,
                parent: commit.parent,
                merged: mark.seq,
            });
        }
        if !quota.take(commit) {
            let (entries, bytes) = quota.with(commit);
            return Err(BlockError::Quota {
                device: lane.device,
                entries,
                bytes,
            });
        }
        *mark = LaneMark {
            head: commit.id,
            seq: commit.seq,
        };
    }
    if lanes.len() > MAX_LANES_A_BLOCK {
        return Err(BlockError::TooManyLanes {
            got: lanes.len(),
            max: MAX_LANES_A_BLOCK,
        });
    }
    for (lane, mark) in marks {
        record::write(state, &keys::lane(&lane), &mark)?;
    }
    Ok(())
}

/// Whether a block of this height may merge a lane, and why not. A proposer asks it before it takes a lane.
pub fn check_open(
    device: Option<&DeviceRecord>,
    lane: &Lane,
    height: u64,
) -> Result<(), BlockError> {
    let Some(device) = device else {
        return Err(BlockError::UnknownDevice(lane.device));
    };
    let newest = device.incarnation;
    if lane.incarnation == 0 || lane.incarnation.saturating_sub(newest) > MAX_INCARNATION_STEP {
        return Err(BlockError::Incarnation {
            lane: *lane,
            newest,
        });
    }
    if let Some(closed) = device.closed(lane.incarnation)
        && height >= closed.since.saturating_add(CLOSING_BLOCKS)
    {
        return Err(BlockError::LaneClosed {
            lane: *lane,
            since: closed.since,
        });
    }
    Ok(())
}

/// The end of a lane, if it has one.
pub(crate) fn closed(view: &dyn StateView, lane: &Lane) -> Result<Option<Closed>, StateError> {
    let device: Option<DeviceRecord> = record::read(view, &keys::device(&lane.device))?;
    Ok(device.and_then(|d| d.closed(lane.incarnation)))
}

/// Where a lane stands.
fn open(
    state: &mut Overlay<'_>,
    input: &BlockInput<'_>,
    lane: &Lane,
) -> Result<LaneMark, BlockError> {
    let key = keys::device(&lane.device);
    let device: Option<DeviceRecord> = record::read(state as &dyn StateView, &key)?;
    check_open(device.as_ref(), lane, input.height)?;
    if let Some(mut device) = device
        && lane.incarnation > device.incarnation
    {
        device.incarnation = lane.incarnation;
        record::write(state, &key, &device)?;
    }
    let mark = record::read(state as &dyn StateView, &keys::lane(lane))?;
    Ok(mark.unwrap_or(LaneMark {
        head: Oid::from(input.chain),
        seq: 0,
    }))
}
