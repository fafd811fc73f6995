//! Blocks: proposing, the merge test before a prevote, and making a decided block final.

use std::sync::Arc;

use instar_chain::merge::{self, Merges, Parent, Refusal, refuse};
use instar_chain::{BlockInput, BlockOutput, StateError, apply_block, query};
use instar_ledger::{
    BlockDraft, Certificate, LaneCommit, LaneRange, Oid, ReceiptLine, Slice, StoreError,
    ValidatorSet, receipt,
};
use instar_state::Computed;

use super::{Core, CoreError, Head, Tested, ledger_error};
use crate::metrics::Phase;

/// The largest proposal pack that is unpacked.
pub const MAX_BLOCK_PACK_BYTES: usize = 8 << 20;
/// Heights between two prunings.
const PRUNE_EVERY: u64 = 64;
/// Rows that one pruning removes at most, so that no block waits long for it; far more than the blocks between two leave.
const PRUNE_ROWS: usize = 200_000;

impl From<CoreError> for Refusal {
    fn from(e: CoreError) -> Self {
        match &e {
            CoreError::State(StateError::Corrupt { .. }) => refuse("state-corrupt", e.to_string()),
            CoreError::Refused(_) | CoreError::Forged(_) | CoreError::Stranger(_) => {
                refuse("lane-refused", e.to_string())
            }
            _ => refuse("node-trouble", e.to_string()),
        }
    }
}

impl Core {
    /// Makes a block on top of the head. Asked again in a later round it makes a new one, leaving out dapps in trouble.
    pub fn propose(&mut self, round: u32, now_ms: u64) -> Result<(Oid, Vec<u8>), CoreError> {
        let left_out: Vec<String> = if round > 0 {
            self.trouble.iter().cloned().collect()
        } else {
            Vec::new()
        };
        // Nothing of a fork is offered twice, so it waits for a block that leaves nobody out.
        if left_out.is_empty()
            && let Some(slice) = self.slice_at_hand(&self.state.view()?)?
        {
            match self.make(now_ms, Vec::new(), Some(&slice)) {
                Ok((block, pack)) if pack.len() <= MAX_BLOCK_PACK_BYTES => {
                    return Ok((block, pack));
                }
                // Beside less of the lanes it may fit; alone it never will.
                Ok(_) if self.tails.values().any(|tail| !tail.commits.is_empty()) => {}
                Ok((_, pack)) => {
                    let bytes = pack.len();
                    self.give_up(&slice.range, &format!("a block of {bytes} bytes with it"));
                }
                Err(error) => self.give_up(&slice.range, &error),
            }
        }
        self.make(now_ms, left_out, None)
    }

    fn make(
        &mut self,
        now_ms: u64,
        left_out: Vec<String>,
        slice: Option<&Slice>,
    ) -> Result<(Oid, Vec<u8>), CoreError> {
        let mut laps = self.metrics.laps();
        let time_ms = self.parent(None).next_time(now_ms);
        let tails = self.tails.iter();
        let tails = tails.map(|(lane, tail)| (lane, tail.commits.as_slice()));
        let (ranges, commits) = merge::select(&self.state.view()?, &self.head.block, tails, slice);
        let proposer = self.keys.consensus;
        let previous = self.head.certificate.clone();
        let output = self
            .apply(
                (time_ms, &proposer),
                previous.as_ref(),
                &commits,
                slice,
                &left_out,
            )
            .map_err(|e| ledger_error(e.to_string()))?;
        laps.lap(Phase::MergeTest);
        let root = self.state.root_of(self.head.height, &output.writes)?;
        laps.lap(Phase::StateRoot);
        let merges = Merges {
            lanes: ranges.clone(),
            fork: slice.map(|s| s.range),
        };
        let header = self
            .parent(None)
            .header(proposer, time_ms, merges, left_out, &output, root)
            .map_err(ledger_error)?;
        let draft = BlockDraft {
            header,
            receipts: output.receipts.clone(),
            previous,
        };
        let block = self.ledger.write_block(&draft).map_err(ledger_error)?;
        laps.lap(Phase::Pack);
        let computed = Computed {
            height: draft.header.height,
            root: draft.header.state_root,
            receipts: draft.header.receipts,
        };
        self.state.record_computed(block, &computed)?;
        laps.lap(Phase::Record);
        let pack = self.ledger.pack_block(&block).map_err(ledger_error)?;
        laps.lap(Phase::Pack);
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
        let mut laps = self.metrics.laps();
        let view = self.state.view().map_err(CoreError::from)?;
        let due = query::forks_due(&view).map_err(CoreError::from)?;
        self.ledger
            .import_block(pack, MAX_BLOCK_PACK_BYTES, &due)
            .map_err(|e| match e {
                // A disk that is full says nothing of the proposer.
                StoreError::Io { .. } => refuse("node-trouble", e.to_string()),
                e => refuse("bad-pack", e.to_string()),
            })?;
        let block = self
            .ledger
            .read_block(id)
            .map_err(|e| refuse("bad-block", e.to_string()))?;
        let header = &block.header;
        let certified_by = match self.head.height {
            0 => None,
            height => Some(self.validators_of(height)?),
        };
        self.parent(certified_by.as_ref()).check_header(
            header,
            block.previous.as_ref(),
            live_now_ms,
        )?;
        laps.lap(Phase::Unpack);
        let mut commits = Vec::new();
        for range in &header.lanes {
            let merged = self.merged_seq(&range.lane())?;
            let run = self.verified_range(&range.lane(), &range.head, merged)?;
            merge::check_range(range, merged, run.last().map(|c| c.seq))?;
            commits.extend(run);
        }
        let slice = header
            .forks
            .first()
            .map(|range| self.ledger.slice(range))
            .transpose()
            .map_err(|e| refuse("bad-slice", e.to_string()))?;
        laps.lap(Phase::Signatures);
        for dapp in &header.left_out {
            if !self.trouble.contains(dapp) {
                return Err(refuse(
                    "left-out-without-cause",
                    format!("{dapp} runs here without trouble"),
                ));
            }
        }
        let output = self.apply(
            (header.time_ms, &header.proposer),
            block.previous.as_ref(),
            &commits,
            slice.as_ref(),
            &header.left_out,
        )?;
        laps.lap(Phase::MergeTest);
        if let Some((dapp, refusal)) = merge::differing_dapp(header, &output) {
            // The reason names it, and a later round can leave it out.
            self.trouble.insert(dapp);
            return Err(refusal);
        }
        merge::check_output(header, &output)?;
        let root = self
            .state
            .root_of(self.head.height, &output.writes)
            .map_err(CoreError::from)?;
        let receipts =
            receipt::digest(&output.receipts).map_err(|e| refuse("node-trouble", e.to_string()))?;
        laps.lap(Phase::StateRoot);
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
        laps.lap(Phase::Record);
        merge::check_roots(header, &root, &receipts)?;
        self.keep_tested(*id, output, header.lanes.clone(), header.time_ms);
        Ok(())
    }

    /// The head, for a block that stands on it.
    fn parent<'a>(&self, certified_by: Option<&'a ValidatorSet>) -> Parent<'a> {
        Parent {
            chain: self.chain,
            height: self.head.height,
            block: self.head.block,
            time_ms: self.head.time_ms,
            certified_by,
        }
    }

    fn apply(
        &mut self,
        (time_ms, proposer): (u64, &instar_attest::PublicKey),
        previous: Option<&Certificate>,
        commits: &[Arc<LaneCommit>],
        fork: Option<&Slice>,
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
            fork,
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
            // Tested by an earlier process, which made it durable; its payload may have come by value sync, which keeps
            // none.
            let known = match pack {
                Some(_) => None,
                None => Some(self.ledger.pack_block(&block).map_err(|e| {
                    let why = format!("block {block} is decided, but its pack is not here: {e}");
                    CoreError::Refused(why)
                })?),
            };
            let pack = pack.or(known.as_deref()).unwrap_or_default();
            self.check(&block, pack, None)
                .map_err(|e| CoreError::Refused(e.to_string()))?;
        }
        let tested = self
            .tested
            .remove(&block)
            .ok_or_else(|| CoreError::Refused("the decided block was not tested".into()))?;
        let bytes = certificate.to_bytes().map_err(ledger_error)?;
        let mut laps = self.metrics.laps();
        self.state
            .commit(certificate.height, block, &bytes, &tested.writes)?;
        laps.lap(Phase::Commit);
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
        let is_entry = |line: &&ReceiptLine| matches!(line, ReceiptLine::Entry(_));
        let entries = tested.receipts.iter().filter(is_entry).count();
        self.metrics.block(entries);
        self.tested.clear();
        self.trouble.clear();
        self.trim_tails(&tested.ranges);
        self.own_lane_after(&tested.ranges, &tested.receipts)?;
        if certificate.height.is_multiple_of(PRUNE_EVERY) && self.states_kept > 0 {
            let keep_from = certificate.height.saturating_sub(self.states_kept);
            self.state.prune(keep_from, PRUNE_ROWS)?;
        }
        laps.lap(Phase::Publish);
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
    fn validators_of(&self, height: u64) -> Result<ValidatorSet, CoreError> {
        self.validators_after(height.saturating_sub(1))?
            .ok_or_else(|| ledger_error(format!("the validators of height {height} are unknown")))
    }

    /// Whether a block has something to do: an unmerged entry, or a transition that is due at this time.
    pub fn has_work(&self, now_ms: u64) -> Result<bool, CoreError> {
        let view = self.state.view()?;
        let unmerged = self.tails.iter().filter(|(_, t)| !t.commits.is_empty());
        Ok(merge::has_work(
            &view,
            unmerged.map(|(lane, _)| lane),
            self.head.height + 1,
            self.parent(None).next_time(now_ms),
        )?)
    }
}
