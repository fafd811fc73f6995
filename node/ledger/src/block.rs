//! Blocks: merge commits whose tree holds the header, the receipts, and the previous block's certificate.

use std::collections::BTreeMap;

use instar_attest::{ChainId, Digest, PublicKey};
use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::fork::ForkRange;
use crate::lane::LaneRange;
use crate::oid::Oid;
use crate::receipt::ReceiptLine;

/// How many lane heads one block may merge.
pub const MAX_LANES_A_BLOCK: usize = 256;
/// How many lane commits one block may merge, over all lanes.
pub const MAX_COMMITS_A_BLOCK: u64 = 4096;
/// The largest `header.json`, in bytes.
pub const MAX_HEADER_BYTES: usize = 256 * 1024;

/// What a block says about itself, and what every validator computed before it voted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The chain.
    pub chain: ChainId,
    /// For each dapp that the block touches, the digest of what it answered, so that disagreement names its dapp.
    pub dapps: BTreeMap<String, Digest>,
    /// What is merged of forks of this chain; no field where nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forks: Vec<ForkRange>,
    /// Counts from 1; genesis is 0.
    pub height: u64,
    /// The consensus kernel.
    pub kernel: u32,
    /// What is merged, in merge order.
    pub lanes: Vec<LaneRange>,
    /// Dapps left out of this block, sorted.
    pub left_out: Vec<String>,
    /// The block before it; genesis for height 1.
    pub parent: Oid,
    /// The proposer's consensus key.
    pub proposer: PublicKey,
    /// The protocol number of the state machine.
    pub protocol: u32,
    /// SHA-256 of `receipts.jsonl`.
    pub receipts: Digest,
    /// The root of the state after this block.
    pub state_root: Digest,
    /// The block's time in milliseconds since 1970, later than its parent's.
    pub time_ms: u64,
    /// The digest of the validator set that certifies the *next* block.
    pub validators: Digest,
}

/// A block to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDraft {
    /// Its header; `receipts` must be the digest of the receipts.
    pub header: Header,
    /// Its receipts, in merge order.
    pub receipts: Vec<ReceiptLine>,
    /// The certificate of the previous block; none at height 1.
    pub previous: Option<Certificate>,
}

/// A block that was read, with its exact bytes checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The commit's id: the value that consensus decides.
    pub id: Oid,
    /// Its header.
    pub header: Header,
    /// Its receipts.
    pub receipts: Vec<ReceiptLine>,
    /// The certificate of the previous block; none at height 1.
    pub previous: Option<Certificate>,
}
