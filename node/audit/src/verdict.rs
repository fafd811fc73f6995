//! What [`verify`](crate::verify()) answers.

use instar_attest::ChainId;
use instar_ledger::Oid;
use serde::Serialize;

use crate::history::History;
use crate::walk::Counts;
use crate::wrong::Wrong;

/// The answer of [`verify`](crate::verify()).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Why it could not be told whether the chain holds.
    pub cannot_tell: Option<String>,
    /// The chain.
    pub chain: Option<ChainId>,
    /// What was checked, this time and before.
    pub checked: Counts,
    /// Whether dapps were run again.
    pub dapps_run: bool,
    /// Where it and its mothers left theirs, the oldest first; empty if it is no fork, or where they were verified before.
    pub forked_from: Vec<Mother>,
    /// The newest block of the clone.
    pub head: Option<Oid>,
    /// Its height.
    pub height: u64,
    /// What was taken as certified and not recomputed, in sentences.
    pub not_checked: Vec<String>,
    /// Whether all that was checked holds.
    pub ok: bool,
    /// The height up to which an earlier run had verified the chain.
    pub resumed_at: Option<u64>,
    /// The height up to which signatures were taken on the caller's word.
    pub trusted: u64,
    /// How far the chain was found to hold.
    pub verified_height: u64,
    /// The first thing that is wrong.
    pub wrong: Option<Wrong>,
}

/// A chain that another one descends from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mother {
    /// The block that the fork stands on.
    pub block: Oid,
    /// The chain.
    pub chain: ChainId,
    /// The block's height.
    pub height: u64,
}

impl Mother {
    pub(crate) fn of(history: &History) -> Self {
        Self {
            block: history.head(),
            chain: history.chain,
            height: history.height(),
        }
    }
}

/// What was taken as certified and not recomputed.
pub(crate) fn not_checked(verdict: &Verdict, native_since: Option<u64>) -> Vec<String> {
    let mut out = Vec::new();
    if verdict.trusted > 0 {
        out.push(format!(
            "signatures and certificates up to height {}: taken on your word",
            verdict.trusted
        ));
    }
    let dapps: Vec<&str> = verdict.checked.dapps.keys().map(String::as_str).collect();
    if !verdict.dapps_run && !dapps.is_empty() {
        out.push(format!(
            "the verdicts of dapps ({}): taken from the certified receipts; --dapps runs them again",
            dapps.join(", ")
        ));
    }
    if let Some(height) = native_since {
        out.push(format!(
            "state roots from height {height} on: they depend on what dapps wrote, and were taken from certified headers"
        ));
    }
    out
}
