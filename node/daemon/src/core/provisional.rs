//! The provisional view: what the trunk's state would be if the lanes that this node knows were merged now.
//!
//! A device without a quorum answers from it, and says so. It promises nothing: the trunk may merge the lanes in another
//! order, together with others, or with another dapp.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use instar_attest::Digest;
use instar_chain::{BlockInput, Overlay, Quota, Writes, apply_block, query};
use instar_ledger::{Entry, Lane, LaneCommit, Outcome, Receipt, ReceiptLine, lane::merge_key};
use serde_json::Value;

use super::{Core, CoreError, ledger_error};
use crate::index::is_copy;

/// Entries that are tried at most: a tail of weeks is not run through for one answer. What comes after them is pending
/// without a provisional receipt.
const MAX_TRIED: usize = 8_192;

/// What the unmerged lanes would come to on top of one head.
#[derive(Default)]
pub(crate) struct Provisional {
    writes: Writes,
    receipts: BTreeMap<Digest, Receipt>,
}

/// Where an entry stands, as one node knows it.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The lane that carries it.
    pub lane: Lane,
    /// The commit's sequence number in it.
    pub seq: u64,
    /// The entry.
    pub entry: Entry,
    /// What would become of it if the lanes that this node knows were merged now.
    pub receipt: Option<Receipt>,
}

impl Standing {
    /// Whether what this node knows speaks against it.
    pub fn conflicts(&self) -> bool {
        self.receipt
            .as_ref()
            .is_some_and(|r| r.outcome == Outcome::Rejected)
    }
}

impl Core {
    /// The unmerged lanes or the head have changed.
    pub(crate) fn tails_changed(&mut self) {
        self.provisional = None;
    }

    /// An entry in a lane that no block has merged.
    pub fn unmerged_entry(
        &mut self,
        id: &Digest,
        now_ms: u64,
    ) -> Result<Option<Standing>, CoreError> {
        let found = self.tails.values().flat_map(|t| &t.commits).find_map(|c| {
            let entry = c.entries.iter().find(|e| e.id() == *id)?;
            Some((c.lane, c.seq, entry.clone()))
        });
        let Some((lane, seq, entry)) = found else {
            return Ok(None);
        };
        let receipt = match self.provisional(now_ms) {
            Ok(known) => known.receipts.get(id).cloned(),
            // A dapp that can't be run here leaves the entry pending, and nothing known of what becomes of it.
            Err(e) => {
                tracing::warn!(error = %e, "the unmerged lanes can't be tried");
                None
            }
        };
        Ok(Some(Standing {
            lane,
            seq,
            entry,
            receipt,
        }))
    }

    /// Asks a dapp from the provisional view. The answer is `None` when no unmerged entry is for it: then the final
    /// state says the same.
    pub fn query_provisional(
        &mut self,
        dapp: &str,
        question: Value,
        now_ms: u64,
    ) -> Result<Option<Value>, String> {
        let concerned = self
            .tails
            .values()
            .flat_map(|t| &t.commits)
            .flat_map(|c| &c.entries)
            .any(|e| e.topic == dapp);
        if !concerned {
            return Ok(None);
        }
        let writes = self
            .provisional(now_ms)
            .map_err(|e| e.to_string())?
            .writes
            .clone();
        let view = self.state.view().map_err(|e| e.to_string())?;
        let mut state = Overlay::new(&view);
        state.extend(writes);
        self.ask(dapp, &state, &view, question).map(Some)
    }

    fn provisional(&mut self, now_ms: u64) -> Result<&Provisional, CoreError> {
        let known = match self.provisional.take() {
            Some(known) => known,
            None => self.try_tails(now_ms)?,
        };
        Ok(self.provisional.insert(known))
    }

    /// Runs the merge test of the blocks that would merge all tails, and keeps nothing of it but the outcome.
    fn try_tails(&mut self, now_ms: u64) -> Result<Provisional, CoreError> {
        let view = self.state.view()?;
        let mut state = Overlay::new(&view);
        let mut out = Provisional::default();
        let mut left: Vec<VecDeque<Arc<LaneCommit>>> = {
            let mut tails: Vec<_> = self.tails.iter().collect();
            // What no block may merge would spoil the whole try.
            tails.retain(|(lane, _)| query::check_lane(&view, lane).is_ok());
            tails.sort_by_key(|(lane, _)| merge_key(&self.head.block, lane));
            tails
                .into_iter()
                .map(|(_, tail)| tail.commits.iter().cloned().collect())
                .collect()
        };
        let (mut height, mut time_ms) = (self.head.height, now_ms.max(self.head.time_ms));
        let mut previous = self.head.certificate.clone();
        let mut tried = 0;
        while tried < MAX_TRIED {
            let commits = next_block(&mut left);
            if commits.is_empty() {
                break;
            }
            tried += commits.iter().map(|c| c.entries.len()).sum::<usize>();
            (height, time_ms) = (height + 1, time_ms + 1);
            let input = BlockInput {
                chain: self.chain,
                height,
                time_ms,
                parent: self.head.block,
                proposer: self.keys.consensus,
                previous: previous.as_ref(),
                lanes: &commits,
                fork: None,
                left_out: &[],
            };
            let tested = apply_block(&state, &input, &mut self.dapps).map_err(ledger_error)?;
            for line in tested.receipts {
                if let ReceiptLine::Entry(receipt) = line {
                    // A copy in another lane says nothing about the entry itself.
                    if !out.receipts.contains_key(&receipt.entry) || !is_copy(&receipt) {
                        out.receipts.insert(receipt.entry, receipt);
                    }
                }
            }
            state.extend(tested.writes);
            // Only the first of them has a parent that is certified.
            previous = None;
        }
        out.writes = state.into_writes()?;
        Ok(out)
    }
}

/// What one block takes of the tails: in order, as far as the quotas go.
fn next_block(left: &mut [VecDeque<Arc<LaneCommit>>]) -> Vec<LaneCommit> {
    let mut quota = Quota::default();
    let mut commits = Vec::new();
    for tail in left
        .iter_mut()
        .filter(|t| !t.is_empty())
        .take(instar_ledger::block::MAX_LANES_A_BLOCK)
    {
        while tail.front().is_some_and(|c| quota.take(c)) {
            commits.extend(tail.pop_front().map(|c| (*c).clone()));
        }
    }
    commits
}
