//! Dapps, seen from the state machine: one call a dapp and block, behind a trait.

use instar_attest::{ChainId, Digest, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::view::{StateView, Writes};

/// What a dapp may know about the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DappContext {
    /// The chain.
    pub chain: ChainId,
    /// The block's height.
    pub height: u64,
    /// The only randomness there is: a function of chain, height and parent.
    pub seed: Digest,
    /// The block's time in milliseconds since 1970.
    pub time_ms: u64,
}

/// An entry whose signature was checked; of this chain's also the nonce and the author's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DappEntry {
    /// The author's account key.
    pub author: PublicKey,
    /// What is said.
    pub body: Value,
    /// The fork that it was said on; none of an entry of this chain. The same key on two chains is two authors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainId>,
    /// The entry's id.
    pub id: Digest,
    /// The author's counter.
    pub nonce: u64,
    /// The topic: the dapp's name, or `foreign/<chain>`.
    pub topic: String,
}

/// What a release replaces when it goes live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Migration {
    /// The root CID of the release before; none where the slot was empty.
    pub from: Option<String>,
    /// The number of the release before, 0 where the slot was empty.
    pub from_number: u64,
    /// The number of the release that takes over.
    pub to_number: u64,
}

/// One call: all entries of one block for one dapp, in merge order, those of a fork last, or a migration without entries.
pub struct DappCall<'a> {
    /// The dapp's name.
    pub dapp: &'a str,
    /// The root CID of the release that runs.
    pub release: &'a str,
    /// What it may know about the block.
    pub ctx: DappContext,
    /// The entries, in merge order.
    pub entries: Vec<DappEntry>,
    /// The dapp's own key space, keys without its prefix.
    pub state: &'a dyn StateView,
    /// Set when this release takes over and may rewrite the state before anything else sees it.
    pub migrate: Option<Migration>,
}

/// What a dapp says to one entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Whether it takes effect.
    pub ok: bool,
    /// What it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// The rule that refused it, in kebab case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl Verdict {
    /// What a host says to a fork's entry for a dapp that did not opt in.
    pub fn foreign_not_taken() -> Self {
        Self {
            detail: Some("the dapp takes no entries of forks".into()),
            ok: false,
            output: None,
            rule: Some("foreign-not-taken".into()),
        }
    }
}

/// What one call came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DappResult {
    /// One for each entry, in order.
    pub verdicts: Vec<Verdict>,
    /// In the dapp's own key space, keys without its prefix.
    pub writes: Writes,
}

/// Why a call came to nothing. The texts are for this node's log: they may differ between nodes and stand nowhere on
/// the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DappFailure {
    /// This node can't say what the dapp would answer: out of memory or time, or its state is corrupt.
    #[error("abstained: {0}")]
    Abstain(String),
    /// The program ended before it had answered.
    #[error("crashed: {0}")]
    Crash(String),
    /// The program answered what no dapp may answer, or asked for more than it may.
    #[error("broke the protocol: {0}")]
    Protocol(String),
}

/// Runs dapps. The same call must come to the same result on every node. Whether a dapp takes entries of forks its own
/// manifest says, so the host answers for one that does not: [`Verdict::foreign_not_taken`].
pub trait DappHost {
    /// Runs one call.
    fn run(&mut self, call: DappCall<'_>) -> Result<DappResult, DappFailure>;
}
