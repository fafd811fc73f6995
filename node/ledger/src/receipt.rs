//! Receipts: what became of each merged entry, and what the ledger itself did, one canonical JSON line each.

use instar_attest::json::{self, JsonError};
use instar_attest::{ChainId, Digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lane::Lane;

/// The largest receipt line, in bytes.
pub const MAX_RECEIPT_BYTES: usize = 128 * 1024;
/// The largest `receipts.jsonl`, in bytes.
pub const MAX_RECEIPTS_BYTES: usize = 16 * 1024 * 1024;

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It took effect.
    Applied,
    /// A rule refused it; it stays in history.
    Rejected,
    /// Its dapp was left out of the block; the nonce is not consumed.
    Unavailable,
}

/// What became of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The fork that the entry was merged on before; none of an entry of this chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainId>,
    /// A sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The entry's id.
    pub entry: Digest,
    /// Its place in the lane commit, from 0.
    pub index: u32,
    /// The lane that carried it; a lane of the fork where `chain` names one.
    pub lane: Lane,
    /// What became of it.
    pub outcome: Outcome,
    /// What the dapp answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// The rule that refused it, in kebab case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The sequence number of the lane commit.
    pub seq: u64,
}

/// A transition that the ledger made by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The facts; the shape belongs to the event.
    pub body: Value,
    /// Its name, in kebab case.
    pub event: String,
    /// What it happened to: the id of a round, a proposal, a slot's release.
    pub id: Digest,
}

/// One line of `receipts.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReceiptLine {
    /// An entry's receipt; it has the key `entry`.
    Entry(Receipt),
    /// A transition; it has the key `event`.
    Event(Event),
}

/// The bytes of `receipts.jsonl`: a canonical line and a newline each. Their SHA-256 stands in the header.
pub fn to_jsonl(lines: &[ReceiptLine]) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    for line in lines {
        let bytes = json::to_vec(line)?;
        if bytes.len() > MAX_RECEIPT_BYTES {
            return Err(JsonError::TooLarge {
                got: bytes.len(),
                max: MAX_RECEIPT_BYTES,
            });
        }
        out.extend(bytes);
        out.push(b'\n');
    }
    Ok(out)
}

/// The digest of receipts, as the header has it.
pub fn digest(lines: &[ReceiptLine]) -> Result<Digest, JsonError> {
    to_jsonl(lines).map(|bytes| Digest::of(&bytes))
}

/// Reads `receipts.jsonl`. The caller compares [`to_jsonl`] of the result with the bytes it had.
pub(crate) fn from_jsonl(bytes: &[u8]) -> Result<Vec<ReceiptLine>, JsonError> {
    if bytes.len() > MAX_RECEIPTS_BYTES {
        return Err(JsonError::TooLarge {
            got: bytes.len(),
            max: MAX_RECEIPTS_BYTES,
        });
    }
    bytes
        .split_inclusive(|b| *b == b'\n')
        .map(|line| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            json::from_slice(line, MAX_RECEIPT_BYTES)
        })
        .collect()
}
