//! Blocks: proposing, the merge test before a prevote, and making a decided block final.

use std::sync::Arc;

use instar_attest::Digest;
use instar_chain::{BlockInput, BlockOutput, Quota, StateError, apply_block, query};
use instar_ledger::block::MAX_LANES_A_BLOCK;
use instar_ledger::{
    BlockDraft, Certificate, Header, LaneCommit, LaneRange, Oid, lane::merge_key, receipt,
};
use instar_state::Computed;

use super::{Core, CoreError, Head, Tested, ledger_error};

/// Entries that a proposer aims at, so that a merge test stays far below a propose timeout; one commit may exceed it.
const PROPOSED_ENTRIES: usize = 2_000;
/// How far a fresh proposal's time may lie from the own clock, on both sides.
const MAX_DRIFT_MS: u64 = 10_000;
/// The largest proposal pack that is unpacked.
pub const MAX_BLOCK_PACK_BYTES: usize = 8 << 20;
/// Heights between two prunings.
const PRUNE_EVERY: u64 = 64;
/// Rows that one pruning removes at most, so that no block waits long for it; far more than the blocks between two leave.
const PRUNE_ROWS: usize = 200_000;
/// The consensus kernel that this program speaks.
const KERNEL: u32 = 1;

/// Why this node prevotes nil.
#[derive(Debug, thiserror::Error)]
#[error("{rule}: {detail}")]
pub struct Refusal {
    /// Kebab case, countable.
    pub rule: &'static str,
    /// For people.
    pub detail: String,
}

fn refuse(rule: &'static str, detail: impl Into<String>) -> Refusal {
    Refusal {
        rule,
        detail: detail.into(),
    }
}

impl From<CoreError> for Refusal {
    fn from(e: CoreError) -> Self {
        match &e {
            CoreError::State(StateError::Corrupt { .. }) => refuse("state-corrupt", e.to_string()),
            CoreError::Refused(_) => refuse("lane-refused", e.to_string()),
            _ => refuse("node-trouble", e.to_string()),
        }
    }
}

impl Core {
    /// Makes a block on top of the head. Asked again in a later round it makes a new one, leaving out dapps in trouble.
    pub fn propose(&mut self, round: u32, now_ms: u64) -> Result<(Oid, Vec<u8>), CoreError> {
        let time_ms = now_ms.max(self.head.time_ms + 1);
        let left_out: Vec<String> = if round > 0 {
            self.trouble.iter().cloned().collect()
        } else {
            Vec::new()
        };
        let (ranges, commits) = self.collect()?;
        let proposer = self.keys.consensus;
        let previous = self.head.certificate.clone();
        let output = self
            .apply(time_ms, &proposer, previous.as_ref(), &commits, &left_out)
            .map_err(|e| ledger_error(e.to_string()))?;
        let header = Header {
            chain: self.chain,
            dapps: output.dapps.clone(),
            height: self.head.height + 1,
            kernel: KERNEL,
            lanes: ranges.clone(),
            left_out,
            parent: self.head.block,
            proposer,
            protocol: output.protocol,
            receipts: receipt::digest(&output.receipts).map_err(ledger_error)?,
            state_root: self.state.root_of(self.head.height, &output.writes)?,
            time_ms,
            validators: output.validators.digest(),
        };
        let draft = BlockDraft {
            header,
            receipts: output.receipts.clone(),
            previous,
        };
        let block = self.ledger.write_block(&draft).map_err(ledger_error)?;
        let computed = Computed {
            height: draft.header.height,
            root: draft.header.state_root,
            receipts: draft.header.receipts,
        };
        self.state.record_computed(block, &computed)?;
        let pack = self.ledger.pack_block(&block).map_err(ledger_error)?;
        self.keep_tested(block, output, ranges, time_ms);
        Ok((block, pack))
    }

    /// The merge test of somebody's block. On success this node's own root and receipts are stored, durably.
    pub fn check(
        &mut self,
        block: &Oid,
        pack: &[u8],
        live_now_ms: Option<u64>,
    ) -> Result<(), Refusal> {
        if self.tested.contains_key(block) {
            return Ok(());
        }
        let result = self.check_new(block, pack, live_now_ms);
        if let Err(refusal) = &result {
            *self.nil.entry(refusal.rule.to_owned()).or_default() += 1;
            self.last_nil = Some(refusal.to_string());
            tracing::warn!(%block, height = self.head.height + 1, reason = %refusal, "merge test failed, prevote nil");
        }
        result
    }

    fn check_new(
        &mut self,
        id: &Oid,
        pack: &[u8],
        live_now_ms: Option<u64>,
    ) -> Result<(), Refusal> {
        self.ledger
            .import_pack(pack, MAX_BLOCK_PACK_BYTES)
            .map_err(|e| refuse("bad-pack", e.to_string()))?;
        let block = self
            .ledger
            .read_block(id)
            .map_err(|e| refuse("bad-block", e.to_string()))?;
        let header = &block.header;
        self.check_header(header, block.previous.as_ref(), live_now_ms)?;
        let mut commits = Vec::new();
        for range in &header.lanes {
            let merged = self.merged_seq(&range.lane())?;
            let run = self.verified_range(&range.lane(), &range.head, merged)?;
            if range.from != merged + 1 || run.last().map(|c| c.seq) != Some(range.to) {
                return Err(refuse(
                    "lane-gap",
                    format!(
                        "lane {} is merged from {} to {}, expected from {}",
                        range.lane(),
                        range.from,
                        range.to,
                        merged + 1
                    ),
                ));
            }
            commits.extend(run);
        }
        for dapp in &header.left_out {
            if !self.trouble.contains(dapp) {
                return Err(refuse(
                    "left-out-without-cause",
                    format!("{dapp} runs here without trouble"),
                ));
            }
        }
        let output = self.apply(
            header.time_ms,
            &header.proposer,
            block.previous.as_ref(),
            &commits,
            &header.left_out,
        )?;
        self.compare(header, &output)?;
        let root = self
            .state
            .root_of(self.head.height, &output.writes)
            .map_err(CoreError::from)?;
        let receipts =
            receipt::digest(&output.receipts).map_err(|e| refuse("node-trouble", e.to_string()))?;
        // What this node computed itself is on disk before its prevote leaves.
        self.state
            .record_computed(
                *id,
                &Computed {
                    height: header.height,
                    root,
                    receipts,
                },
            )
            .map_err(CoreError::from)?;
        if receipts != header.receipts {
            return Err(refuse(
                "receipts-differ",
                format!(
                    "receipts {receipts} here, {} in the header",
                    header.receipts
                ),
            ));
        }
        if root != header.state_root {
            return Err(refuse(
                "state-root-differs",
                format!("root {root} here, {} in the header", header.state_root),
            ));
        }
        self.keep_tested(*id, output, header.lanes.clone(), header.time_ms);
        Ok(())
    }

    fn check_header(
        &self,
        header: &Header,
        previous: Option<&Certificate>,
        live_now_ms: Option<u64>,
    ) -> Result<(), Refusal> {
        let head = &self.head;
        let facts = [
            (header.chain == self.chain, "other-chain"),
            (header.height == head.height + 1, "wrong-height"),
            (header.parent == head.block, "wrong-parent"),
            (header.kernel == KERNEL, "other-kernel"),
            (header.lanes.len() <= MAX_LANES_A_BLOCK, "too-many-lanes"),
            (header.time_ms > head.time_ms, "time-not-later"),
            (
                header
                    .lanes
                    .is_sorted_by_key(|r| merge_key(&head.block, &r.lane())),
                "lane-order",
            ),
        ];
        for (holds, rule) in facts {
            if !holds {
                return Err(refuse(
                    rule,
                    format!("block at height {} on {}", header.height, header.parent),
                ));
            }
        }
        if let Some(now) = live_now_ms
            && header.time_ms.abs_diff(now) > MAX_DRIFT_MS
        {
            return Err(refuse(
                "time-drift",
                format!(
                    "{} ms away from this node's clock",
                    header.time_ms.abs_diff(now)
                ),
            ));
        }
        // The certificate of the parent: another node may hold other signatures, but they must certify it.
        match previous {
            None if head.height == 0 => Ok(()),
            Some(certificate)
                if certificate.height == head.height && certificate.block == head.block =>
            {
                let set = self.validators_of(head.height)?;
                certificate
                    .verify(&self.chain, &set)
                    .map_err(|e| refuse("bad-certificate", e.to_string()))
            }
            _ => Err(refuse(
                "bad-certificate",
                "the block does not carry its parent's certificate",
            )),
        }
    }

    /// Finds out which dapp disagrees, so that the reason names it and a later round can leave it out.
    fn compare(&mut self, header: &Header, output: &BlockOutput) -> Result<(), Refusal> {
        let names: std::collections::BTreeSet<&String> =
            header.dapps.keys().chain(output.dapps.keys()).collect();
        for name in names {
            let (here, there) = (output.dapps.get(name), header.dapps.get(name));
            if here != there {
                self.trouble.insert(name.clone());
                let show =
                    |d: Option<&Digest>| d.map_or_else(|| "nothing".to_owned(), Digest::to_hex);
                return Err(refuse(
                    "dapp-differs",
                    format!(
                        "dapp {name} answers {} here, {} at the proposer",
                        show(here),
                        show(there)
                    ),
                ));
            }
        }
        if header.validators != output.validators.digest() {
            return Err(refuse(
                "other-validators",
                format!(
                    "the next block's validators are {} here, {} in the header",
                    output.validators.digest(),
                    header.validators
                ),
            ));
        }
        if header.protocol != output.protocol {
            return Err(refuse(
                "other-protocol",
                format!(
                    "protocol {} here, {} in the header",
                    output.protocol, header.protocol
                ),
            ));
        }
        Ok(())
    }

    /// The lanes that a block would merge now, each from where it was merged last, in merge order.
    fn collect(&self) -> Result<(Vec<LaneRange>, Vec<Arc<LaneCommit>>), CoreError> {
        let view = self.state.view()?;
        let mut lanes: Vec<_> = self
            .tails
            .iter()
            .filter(|(_, t)| !t.commits.is_empty())
            // A lane that the rules let nobody merge would spoil the whole block.
            .filter(|(lane, _)| query::check_lane(&view, lane).is_ok())
            .collect();
        lanes.sort_by_key(|(lane, _)| merge_key(&self.head.block, lane));
        let (mut ranges, mut commits, mut quota, mut entries) =
            (Vec::new(), Vec::new(), Quota::default(), 0usize);
        for (lane, tail) in lanes.into_iter().take(MAX_LANES_A_BLOCK) {
            let taken: Vec<_> = tail
                .commits
                .iter()
                .take_while(|c| {
                    let fits = entries == 0 || entries + c.entries.len() <= PROPOSED_ENTRIES;
                    let taken = fits && quota.take(c);
                    entries += if taken { c.entries.len() } else { 0 };
                    taken
                })
                .cloned()
                .collect();
            let (Some(first), Some(last)) = (taken.first(), taken.last()) else {
                continue;
            };
            ranges.push(LaneRange {
                device: lane.device,
                from: first.seq,
                head: last.id,
                incarnation: lane.incarnation,
                to: last.seq,
            });
            commits.extend(taken);
        }
        Ok((ranges, commits))
    }

    fn apply(
        &mut self,
        time_ms: u64,
        proposer: &instar_attest::PublicKey,
        previous: Option<&Certificate>,
        commits: &[Arc<LaneCommit>],
        left_out: &[String],
    ) -> Result<BlockOutput, Refusal> {
        let commits: Vec<LaneCommit> = commits.iter().map(|c| (**c).clone()).collect();
        let input = BlockInput {
            chain: self.chain,
            height: self.head.height + 1,
            time_ms,
            parent: self.head.block,
            proposer: *proposer,
            previous,
            lanes: &commits,
            left_out,
        };
        let view = self.state.view().map_err(CoreError::from)?;
        apply_block(&view, &input, &mut self.dapps).map_err(|e| self.block_refusal(e))
    }

    fn block_refusal(&mut self, error: instar_chain::BlockError) -> Refusal {
        use instar_chain::BlockError;
        match error {
            BlockError::State(e) => CoreError::State(e).into(),
            BlockError::Abstain { dapp, why } => {
                self.trouble.insert(dapp.clone());
                refuse("abstain", format!("dapp {dapp} could not be run: {why}"))
            }
            other => refuse("merge-test", other.to_string()),
        }
    }

    fn keep_tested(
        &mut self,
        block: Oid,
        output: BlockOutput,
        ranges: Vec<LaneRange>,
        time_ms: u64,
    ) {
        let BlockOutput {
            writes,
            receipts,
            validators,
            ..
        } = output;
        self.tested.insert(
            block,
            Tested {
                writes,
                receipts,
                ranges,
                time_ms,
                validators,
            },
        );
    }

    /// Makes a certified block final: state and head first, in one transaction, then the refs that readers see.
    pub fn decided(
        &mut self,
        certificate: &Certificate,
        pack: Option<&[u8]>,
    ) -> Result<(), CoreError> {
        let block = certificate.block;
        if certificate.height <= self.head.height {
            return Ok(());
        }
        if !self.tested.contains_key(&block) {
            let pack = pack.ok_or_else(|| {
                CoreError::Refused(format!(
                    "block {block} is decided, but its pack is not here"
                ))
            })?;
            self.check(&block, pack, None)
                .map_err(|e| CoreError::Refused(e.to_string()))?;
        }
        let tested = self
            .tested
            .remove(&block)
            .ok_or_else(|| CoreError::Refused("the decided block was not tested".into()))?;
        let bytes = certificate.to_bytes().map_err(ledger_error)?;
        self.state
            .commit(certificate.height, block, &bytes, &tested.writes)?;
        self.ledger
            .finalize(&block, certificate)
            .map_err(ledger_error)?;
        let changed = tested.validators != self.head.validators;
        let changed = changed.then_some(&tested.validators);
        self.index
            .add(certificate.height, &tested.receipts, changed)?;
        self.head = Head {
            height: certificate.height,
            block,
            time_ms: tested.time_ms,
            validators: tested.validators,
            certificate: Some(certificate.clone()),
        };
        self.tested.clear();
        self.trouble.clear();
        self.trim_tails(&tested.ranges);
        self.own_lane_after(&tested.ranges, &tested.receipts)?;
        if certificate.height.is_multiple_of(PRUNE_EVERY) && self.states_kept > 0 {
            let keep_from = certificate.height.saturating_sub(self.states_kept);
            self.state.prune(keep_from, PRUNE_ROWS)?;
        }
        Ok(())
    }

    /// Takes the head's certificate with the precommits that came after the decision: the next block carries it.
    pub fn grown(&mut self, certificate: Certificate) {
        let known = self.head.certificate.as_ref();
        let more = known.is_some_and(|k| {
            k.block == certificate.block && k.signatures.len() < certificate.signatures.len()
        });
        if more {
            self.head.certificate = Some(certificate);
        }
    }

    /// The set that certifies a height: the one that the header before it names.
    fn validators_of(&self, height: u64) -> Result<instar_ledger::ValidatorSet, CoreError> {
        self.validators_after(height.saturating_sub(1))?
            .ok_or_else(|| ledger_error(format!("the validators of height {height} are unknown")))
    }

    /// Whether a block has something to do: an unmerged entry, or a transition that is due at this time.
    pub fn has_work(&self, now_ms: u64) -> Result<bool, CoreError> {
        let view = self.state.view()?;
        // What no block may merge is no work.
        let mergeable = |lane| query::check_lane(&view, lane).is_ok();
        let unmerged = self.tails.iter().filter(|(_, t)| !t.commits.is_empty());
        if unmerged.into_iter().any(|(lane, _)| mergeable(lane)) {
            return Ok(true);
        }
        Ok(instar_chain::due(
            &view,
            self.head.height + 1,
            now_ms.max(self.head.time_ms + 1),
        )?)
    }
}
