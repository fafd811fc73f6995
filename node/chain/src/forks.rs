//! What a block merges of a fork of this chain: the slice that a motion made due, offered to the dapps once more.
//!
//! Entries that took effect on the fork are tested again here, as foreign ones: their author is a key *of the fork*, they
//! consume no nonce of this chain, and no native topic takes them. The cursor only moves forward, so each of them is
//! offered once.

use instar_attest::{ChainId, Digest};
use instar_ledger::{ForkDue, ForkRange, Outcome, Receipt, Slice, SliceEntry};
use serde_json::json;

use crate::block::{BlockError, BlockInput};
use crate::dapps::{self, Standing};
use crate::host::DappEntry;
use crate::keys;
use crate::lanes::MAX_BLOCK_ENTRIES;
use crate::machine::Machine;
use crate::ops;
use crate::record::{self, ForkRecord};
use crate::view::{Overlay, StateError, StateView};

/// For how many blocks a slice is waited for. Only a proposer who has the fork's history can bring it, so blocks have to be
/// made until the turn is his; and only so many, since perhaps nobody has it.
pub const SLICE_BLOCKS: u64 = 64;

/// The topic under which a dapp sees the entries of a fork.
pub fn foreign_topic(chain: &ChainId) -> String {
    format!("foreign/{chain}")
}

/// The forks of which slices are still due, oldest motion first.
pub(crate) fn open(view: &dyn StateView) -> Result<Vec<ChainId>, StateError> {
    Ok(record::read(view, keys::OPEN_FORKS)?.unwrap_or_default())
}

/// The slice that is due of a fork, if one is.
pub(crate) fn due(view: &dyn StateView, chain: &ChainId) -> Result<Option<ForkDue>, StateError> {
    let record: Option<ForkRecord> = record::read(view, &keys::fork(chain))?;
    Ok(record.and_then(|fork| {
        let next = fork.parts.first()?;
        Some(ForkDue {
            after: fork.head,
            range: ForkRange {
                chain: *chain,
                from: fork.height + 1,
                head: next.id,
                to: next.height,
            },
        })
    }))
}

/// Whether a block of this height is waited for because a slice is due.
pub(crate) fn waited_for(view: &dyn StateView, height: u64) -> Result<bool, StateError> {
    for chain in open(view)? {
        let fork: ForkRecord = record::expect(view, &keys::fork(&chain))?;
        if height <= fork.since.saturating_add(SLICE_BLOCKS) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Keeps what is known of a fork, and whether more of it is due.
pub(crate) fn save(
    state: &mut Overlay<'_>,
    chain: &ChainId,
    fork: &ForkRecord,
) -> Result<(), StateError> {
    let mut open = open(&*state)?;
    open.retain(|other| other != chain || !fork.parts.is_empty());
    if !fork.parts.is_empty() && !open.contains(chain) {
        open.push(*chain);
    }
    record::write(state, keys::OPEN_FORKS, &open)?;
    record::write(state, &keys::fork(chain), fork)
}

/// The entries of a slice that dapps of this chain are offered. A dapp that rests makes all of it wait: nothing of a fork
/// comes a second time.
pub fn offered<'s>(
    view: &dyn StateView,
    height: u64,
    slice: &'s Slice,
) -> Result<Vec<&'s SliceEntry>, BlockError> {
    let mut taken = Vec::new();
    for merged in &slice.entries {
        let topic = &merged.entry.topic;
        if ops::is_native(topic) {
            continue;
        }
        match dapps::standing_at(view, height, topic)? {
            Standing::Unknown => {}
            Standing::Open => taken.push(merged),
            Standing::Suspended => {
                return Err(BlockError::ForkWaits {
                    chain: slice.range.chain,
                    dapp: topic.clone(),
                });
            }
        }
    }
    Ok(taken)
}

/// Of a fork, only the next slice that a motion made due may be merged, on what is merged of it.
pub fn check_due(view: &dyn StateView, slice: &Slice) -> Result<(), BlockError> {
    let range = slice.range;
    let given = ForkDue {
        after: slice.after,
        range,
    };
    if due(view, &range.chain)? == Some(given) {
        return Ok(());
    }
    Err(BlockError::ForkNotDue {
        chain: range.chain,
        from: range.from,
        to: range.to,
        head: range.head,
    })
}

/// Checks what a block merges of a fork, and moves the fork's cursor. Gives the entries that are offered.
pub(crate) fn merge<'s>(
    m: &mut Machine<'_>,
    input: &BlockInput<'s>,
) -> Result<Vec<&'s SliceEntry>, BlockError> {
    let Some(slice) = input.fork else {
        return Ok(Vec::new());
    };
    check_due(&m.state, slice)?;
    let range = slice.range;
    let mut fork: ForkRecord = record::expect(&m.state, &keys::fork(&range.chain))?;
    let offered = offered(&m.state, m.height, slice)?;
    let entries: u64 = input.lanes.iter().map(|c| c.entries.len() as u64).sum();
    let all = entries.saturating_add(offered.len() as u64);
    if all > MAX_BLOCK_ENTRIES {
        return Err(BlockError::TooManyEntries {
            got: all,
            max: MAX_BLOCK_ENTRIES,
        });
    }
    fork.head = range.head;
    fork.height = range.to;
    fork.parts.remove(0);
    fork.since = m.height;
    save(&mut m.state, &range.chain, &fork)?;
    let body = json!({
        "chain": range.chain,
        "from": range.from,
        "left": slice.entries.len() - offered.len(),
        "offered": offered.len(),
        "parts": fork.parts.len(),
        "to": range.to,
    });
    m.event(
        "fork-merged",
        Digest::from_bytes(*range.chain.as_bytes()),
        body,
    );
    Ok(offered)
}

/// A fork's entry as its dapp here sees it.
pub(crate) fn call(chain: &ChainId, merged: &SliceEntry, id: Digest) -> DappEntry {
    DappEntry {
        author: merged.entry.author,
        body: merged.entry.body.clone(),
        chain: Some(*chain),
        id,
        nonce: merged.entry.nonce,
        topic: foreign_topic(chain),
    }
}

/// The receipt of a fork's entry, before its dapp was asked.
pub(crate) fn receipt(chain: &ChainId, merged: &SliceEntry, id: Digest) -> Receipt {
    Receipt {
        chain: Some(*chain),
        detail: None,
        entry: id,
        index: merged.index,
        lane: merged.lane,
        outcome: Outcome::Applied,
        output: None,
        rule: None,
        seq: merged.seq,
    }
}
