//! What a block merges of a fork of its chain: a slice of the fork's trunk, as it merges lanes.
//!
//! A slice is fixed by its last block's id: everything below follows by parents. It ends where the slice before it ended,
//! or at the fork's genesis, whose parent is a block of this chain. Nothing is said here of who certified the fork's
//! blocks, and of what its entries come to on this chain.

use std::collections::BTreeSet;

use instar_attest::ChainId;
use serde::{Deserialize, Serialize};

use crate::block::Block;
use crate::entry::Entry;
use crate::genesis::GenesisFork;
use crate::grammar::{self, GrammarError, Kind, Signatures};
use crate::lane::{Lane, LaneCommit};
use crate::oid::Oid;
use crate::receipt::{Outcome, Receipt, ReceiptLine};

/// How many slices one block may merge.
pub const MAX_FORKS_A_BLOCK: usize = 1;
/// How many blocks of a fork one slice may have.
pub const MAX_SLICE_BLOCKS: u64 = 512;
/// How many git objects one slice may have: half of what a pack may hold, since a block's lanes come on top.
pub const MAX_SLICE_OBJECTS: usize = 8 * 1024;
/// How many bytes one slice may have before it is compressed.
pub const MAX_SLICE_BYTES: usize = 16 * 1024 * 1024;
/// Entries that a slice aims at, half of what a proposer does; one block may exceed it.
pub const SLICE_ENTRIES: u64 = 1_000;
/// Bytes that a slice aims at, half of what a proposal may have when it is compressed; one block may exceed it.
pub const SLICE_BYTES: usize = 4 * 1024 * 1024;
/// Objects that a slice aims at; one block may exceed it.
pub const SLICE_OBJECTS: usize = 4 * 1024;

/// What a block merges of a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkRange {
    /// The fork.
    pub chain: ChainId,
    /// The first height of the fork that this block merges.
    pub from: u64,
    /// The fork's block of height `to`.
    pub head: Oid,
    /// The last height of the fork that this block merges.
    pub to: u64,
}

/// Where a fork's trunk is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkPart {
    /// The height of a slice's last block.
    pub height: u64,
    /// The block.
    pub id: Oid,
}

/// The slice that a block may merge of a fork now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkDue {
    /// What it stands on: the last block that is merged, or the fork's genesis.
    pub after: Oid,
    /// The slice.
    pub range: ForkRange,
}

/// An entry that took effect on the fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEntry {
    /// The entry, signed for the fork.
    pub entry: Entry,
    /// Its place in the lane commit, from 0.
    pub index: u32,
    /// The fork's lane that carried it.
    pub lane: Lane,
    /// The sequence number of the lane commit.
    pub seq: u64,
}

/// A slice, read exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Which.
    pub range: ForkRange,
    /// The block that it stands on; the fork's genesis if it is the first.
    pub after: Oid,
    /// The block of this chain that the fork's genesis stands on, and its height; only of the first slice.
    pub mother: Option<ForkPart>,
    /// The entries that took effect on the fork, in its order.
    pub entries: Vec<SliceEntry>,
    /// All its commits, each after those that it stands on.
    pub commits: Vec<Oid>,
    /// Its commits whose parent lies outside of it, each with that parent.
    pub edges: Vec<(Oid, Oid)>,
}

/// How large one block of a fork is, with what it merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize {
    /// The block.
    pub part: ForkPart,
    /// Bytes before they are compressed.
    pub bytes: usize,
    /// Entries, whatever became of them.
    pub entries: u64,
    /// Git objects.
    pub objects: usize,
}

/// A block of a fork that no slice can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "block {height} of the fork has {objects} objects of {bytes} bytes, at most {MAX_SLICE_OBJECTS} and {MAX_SLICE_BYTES} \
     can be merged at once; the fork can be merged up to the block before"
)]
pub struct TooLarge {
    /// Its height.
    pub height: u64,
    /// Its objects.
    pub objects: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// Cuts blocks of a fork, ascending and without a gap, into slices: each takes as many as its aims allow, and one at least.
/// Whoever has the fork's trunk comes to the same cuts.
pub fn cut(blocks: impl IntoIterator<Item = BlockSize>) -> Result<Vec<ForkPart>, TooLarge> {
    let mut parts: Vec<ForkPart> = Vec::new();
    let (mut bytes, mut entries, mut objects, mut count) = (0, 0, 0, 0);
    for block in blocks {
        if block.objects > MAX_SLICE_OBJECTS || block.bytes > MAX_SLICE_BYTES {
            return Err(TooLarge {
                height: block.part.height,
                objects: block.objects,
                bytes: block.bytes,
            });
        }
        let fits = count < MAX_SLICE_BLOCKS
            && bytes + block.bytes <= SLICE_BYTES
            && entries + block.entries <= SLICE_ENTRIES
            && objects + block.objects <= SLICE_OBJECTS;
        match parts.last_mut() {
            Some(last) if fits => *last = block.part,
            _ => {
                parts.push(block.part);
                (bytes, entries, objects, count) = (0, 0, 0, 0);
            }
        }
        bytes += block.bytes;
        entries += block.entries;
        objects += block.objects;
        count += 1;
    }
    Ok(parts)
}

/// Reads a slice: `fetch` gives the object of an id. Every commit is in the exact grammar of the fork and continues what it
/// stands on; with [`Signatures::Check`] every signature of an entry or a lane commit holds.
pub fn read_slice<E: From<GrammarError>>(
    range: &ForkRange,
    signatures: Signatures,
    mut fetch: impl FnMut(&Oid, Kind) -> Result<Vec<u8>, E>,
) -> Result<Slice, E> {
    let mut blocks: Vec<(Block, Vec<LaneCommit>)> = Vec::new();
    let mut next = range.head;
    // The number of blocks is bounded by the grammar of headers.
    for height in (range.from..=range.to).rev() {
        let block = grammar::read_block(next, &range.chain, &mut fetch)?;
        if block.header.height != height {
            return contradiction("a block of a fork is of another height than its slice says");
        }
        if !block.header.forks.is_empty() {
            return contradiction("a fork that has merged a fork of its own can't be merged");
        }
        let mut commits = Vec::new();
        for lane in &block.header.lanes {
            let first = commits.len();
            let mut id = lane.head;
            for seq in (lane.from..=lane.to).rev() {
                let (commit, _) =
                    grammar::read_lane_commit_with(id, &range.chain, signatures, &mut fetch)?;
                if commit.lane != lane.lane() || commit.seq != seq {
                    return contradiction("a block of a fork merges another lane commit");
                }
                id = commit.parent;
                commits.push(commit);
            }
            commits[first..].reverse();
        }
        next = block.header.parent;
        blocks.push((block, commits));
    }
    blocks.reverse();
    let mut slice = Slice {
        range: *range,
        after: next,
        mother: None,
        entries: Vec::new(),
        commits: Vec::new(),
        edges: Vec::new(),
    };
    let mut known: BTreeSet<Oid> = BTreeSet::new();
    if range.from == 1 {
        let fork = genesis_of(range, &next, &mut fetch)?;
        slice.mother = Some(ForkPart {
            height: fork.height(),
            id: fork.block(),
        });
        slice.add(&mut known, next, fork.block());
    }
    for (block, commits) in blocks {
        for commit in &commits {
            slice.add(&mut known, commit.id, commit.parent);
        }
        slice.add(&mut known, block.id, block.header.parent);
        slice.take_applied(&block, commits)?;
    }
    Ok(slice)
}

fn contradiction<T, E: From<GrammarError>>(why: &'static str) -> Result<T, E> {
    Err(GrammarError::Contradiction(why).into())
}

/// Where the fork leaves its mother: its genesis is the commit that its id names.
fn genesis_of<E: From<GrammarError>>(
    range: &ForkRange,
    below: &Oid,
    fetch: impl FnMut(&Oid, Kind) -> Result<Vec<u8>, E>,
) -> Result<GenesisFork, E> {
    if *below != Oid::from(range.chain) {
        return contradiction("the first block of a fork does not stand on its genesis");
    }
    match grammar::read_genesis(below, fetch)?.0.fork {
        Some(fork) => Ok(fork),
        None => contradiction("a chain that is no fork can't be merged"),
    }
}

impl Slice {
    fn add(&mut self, known: &mut BTreeSet<Oid>, commit: Oid, parent: Oid) {
        if !known.contains(&parent) {
            self.edges.push((commit, parent));
        }
        known.insert(commit);
        self.commits.push(commit);
    }

    /// Keeps the entries of a block whose receipt says that they took effect. Receipts stand in merge order.
    fn take_applied<E: From<GrammarError>>(
        &mut self,
        block: &Block,
        commits: Vec<LaneCommit>,
    ) -> Result<(), E> {
        let mut receipts = block.receipts.iter().filter_map(|line| match line {
            ReceiptLine::Entry(receipt) => Some(receipt),
            ReceiptLine::Event(_) => None,
        });
        for commit in commits {
            for (index, entry) in (0u32..).zip(commit.entries) {
                let Some(receipt) = receipts.next() else {
                    return contradiction("an entry of a fork has no receipt there");
                };
                let place = (receipt.lane, receipt.seq, receipt.index);
                if place != (commit.lane, commit.seq, index) || receipt.entry != entry.id() {
                    return contradiction("the receipts of a fork are not in merge order");
                }
                if took_effect(receipt) {
                    self.entries.push(SliceEntry {
                        entry,
                        index,
                        lane: commit.lane,
                        seq: commit.seq,
                    });
                }
            }
        }
        match receipts.next() {
            Some(_) => contradiction("a block of a fork has a receipt for what it did not merge"),
            None => Ok(()),
        }
    }
}

fn took_effect(receipt: &Receipt) -> bool {
    receipt.outcome == Outcome::Applied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(height: u64, entries: u64, bytes: usize) -> BlockSize {
        BlockSize {
            part: ForkPart {
                height,
                id: Oid::from_bytes([height as u8; 32]),
            },
            bytes,
            entries,
            objects: 4,
        }
    }

    fn heights(blocks: &[BlockSize]) -> Vec<u64> {
        let parts = cut(blocks.iter().copied()).unwrap();
        parts.iter().map(|p| p.height).collect()
    }

    #[test]
    fn slices_are_as_large_as_they_may_be() {
        let small: Vec<_> = (1..=5).map(|h| block(h, 10, 100)).collect();
        assert_eq!(heights(&small), [5]);
        let full: Vec<_> = (1..=5).map(|h| block(h, SLICE_ENTRIES / 2, 100)).collect();
        assert_eq!(heights(&full), [2, 4, 5]);
        let heavy: Vec<_> = (1..=3).map(|h| block(h, 1, SLICE_BYTES)).collect();
        assert_eq!(heights(&heavy), [1, 2, 3]);
        let long: Vec<_> = (1..=MAX_SLICE_BLOCKS + 1).map(|h| block(h, 0, 1)).collect();
        assert_eq!(heights(&long), [MAX_SLICE_BLOCKS, MAX_SLICE_BLOCKS + 1]);
        assert_eq!(heights(&[]), [0u64; 0]);
    }

    #[test]
    fn a_block_over_the_aims_stands_alone_and_one_over_the_bounds_is_named() {
        let blocks = [
            block(1, 5, 10),
            block(2, SLICE_ENTRIES * 3, SLICE_BYTES * 2),
            block(3, 5, 10),
        ];
        assert_eq!(heights(&blocks), [1, 2, 3]);
        let refused = cut([block(7, 1, MAX_SLICE_BYTES + 1)]).unwrap_err();
        assert_eq!(refused.height, 7);
    }
}
