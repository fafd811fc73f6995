//! What goes into the merge test of a block, and what comes out.

use std::collections::BTreeMap;

use instar_attest::{ChainId, Digest, PublicKey};
use instar_ledger::{
    Certificate, DeviceId, Lane, LaneCommit, Oid, ReceiptLine, Slice, ValidatorSet,
};

use crate::view::{StateError, Writes};

/// A block to be tested, or to be proposed. Signatures, exact bytes and the certificate were checked before.
#[derive(Debug, Clone, Copy)]
pub struct BlockInput<'a> {
    /// The chain.
    pub chain: ChainId,
    /// The block's height, from 1.
    pub height: u64,
    /// The block's time in milliseconds since 1970.
    pub time_ms: u64,
    /// The id of the block before it; genesis for height 1.
    pub parent: Oid,
    /// The proposer's consensus key. No rule depends on it.
    pub proposer: PublicKey,
    /// The certificate of the block before it; none at height 1.
    pub previous: Option<&'a Certificate>,
    /// What it merges: the commits of each lane in sequence, lanes in merge order.
    pub lanes: &'a [LaneCommit],
    /// What it merges of a fork.
    pub fork: Option<&'a Slice>,
    /// The dapps that are left out, sorted.
    pub left_out: &'a [String],
}

/// What a block comes to: the same on every node, whoever proposed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockOutput {
    /// The changes to the state.
    pub writes: Writes,
    /// The ledger's own transitions that were due, a receipt for each entry in merge order, and the transitions that
    /// followed from the entries.
    pub receipts: Vec<ReceiptLine>,
    /// For each dapp that was called, the digest of what it answered.
    pub dapps: BTreeMap<String, Digest>,
    /// The protocol number.
    pub protocol: u32,
    /// Who certifies the next block.
    pub validators: ValidatorSet,
}

/// Why a block can't be: it breaks a rule of blocks, or this node can't tell. A refused *entry* is no error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The state can't be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// This node can't say what a dapp would answer.
    #[error("dapp {dapp} could not be run: {why}")]
    Abstain {
        /// The dapp.
        dapp: String,
        /// For this node's log.
        why: String,
    },
    /// A block of another chain.
    #[error("the block belongs to chain {got}, this is {expected}")]
    OtherChain {
        /// The chain of the state.
        expected: ChainId,
        /// The chain of the block.
        got: ChainId,
    },
    /// Not the next height.
    #[error("block {got} does not follow on height {head}")]
    Height {
        /// The newest height of the state.
        head: u64,
        /// The block's.
        got: u64,
    },
    /// Time must go on.
    #[error("the block's time {got} is not later than its parent's, {parent}")]
    Time {
        /// The parent's, in milliseconds.
        parent: u64,
        /// The block's, in milliseconds.
        got: u64,
    },
    /// Lanes are not in merge order, or a lane's commits stand apart.
    #[error("lane {0} is out of merge order")]
    LaneOrder(Lane),
    /// Too many lanes.
    #[error("the block merges {got} lanes, at most {max} are allowed")]
    TooManyLanes {
        /// How many it merges.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// Too many entries.
    #[error("the block has {got} entries, at most {max} are allowed")]
    TooManyEntries {
        /// How many it has.
        got: u64,
        /// The bound.
        max: u64,
    },
    /// Only registered devices have lanes.
    #[error("device {0} is not registered")]
    UnknownDevice(DeviceId),
    /// An incarnation that is too far above the newest.
    #[error("lane {lane} is of an incarnation that can't be opened: the newest is {newest}")]
    Incarnation {
        /// The lane.
        lane: Lane,
        /// The newest incarnation of the device.
        newest: u32,
    },
    /// Nothing more of a closed lane is merged.
    #[error("lane {lane} was closed at height {since}, and nothing of it is merged any more")]
    LaneClosed {
        /// The lane.
        lane: Lane,
        /// Since when.
        since: u64,
    },
    /// A lane must be merged from where it was merged last.
    #[error("lane {lane}: commit {seq} on {parent} does not follow on what is merged, {merged}")]
    LaneGap {
        /// The lane.
        lane: Lane,
        /// The commit's sequence number.
        seq: u64,
        /// The commit's parent.
        parent: Oid,
        /// The last sequence number that is merged.
        merged: u64,
    },
    /// A device has more in one block than it may.
    #[error("device {device} has {entries} entries of {bytes} bytes in one block, over its quota")]
    Quota {
        /// The device.
        device: DeviceId,
        /// Its entries in the block so far.
        entries: u64,
        /// Their size in bytes so far.
        bytes: u64,
    },
    /// Of a fork, only the slice that a motion made due may be merged, on what is merged of it.
    #[error("blocks {from} to {to} of fork {chain}, up to {head}, are not what is due of it")]
    ForkNotDue {
        /// The fork.
        chain: ChainId,
        /// The first height.
        from: u64,
        /// The last height.
        to: u64,
        /// The last block.
        head: Oid,
    },
    /// A dapp that has entries in a slice rests, and they would be lost.
    #[error("fork {chain} has entries for dapp {dapp}, which rests: its slice waits for that")]
    ForkWaits {
        /// The fork.
        chain: ChainId,
        /// The dapp.
        dapp: String,
    },
    /// A dapp that does not exist, or a list that is not sorted.
    #[error("the list of dapps that are left out is wrong at {0:?}")]
    LeftOut(String),
    /// A counter left its range; no honest chain gets there.
    #[error("the {0} is beyond what can be counted")]
    Overflow(&'static str),
}
