//! The whole chain, block after block: exact bytes, signatures, certificates, receipts, and the native rules run again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use instar_attest::Digest;
use instar_chain::{MemoryState, query};
use instar_ledger::{Block, LaneCommit, ValidatorSet, receipt};

use crate::history::{History, HistoryError, Merged, check_receipt_order};
use crate::log::Log;
use crate::objects::Objects;
use crate::replay::Replay;
use crate::report::{Refused, Report};

/// A chain that holds, from genesis to the tip.
pub struct Verified {
    /// Its blocks.
    pub history: History,
    /// What it says about builds and upgrades.
    pub log: Log,
    /// The native part of its state, run again from genesis.
    pub state: MemoryState,
}

/// Checks a whole chain. The report says how far it got.
pub fn verify_chain(clone: &Path) -> (Report, Option<Verified>) {
    let mut report = Report::default();
    let verified = run(clone, &mut report).ok();
    report.ok = verified.is_some();
    (report, verified)
}

pub(crate) fn run(clone: &Path, report: &mut Report) -> Result<Verified, Refused> {
    let objects = report.need("clone", Objects::open(clone))?;
    let history = report.need("clone", History::open(objects))?;
    report.chain = Some(history.chain);
    report.hold(
        "clone",
        format!(
            "chain {} ({}), head at height {}",
            history.chain,
            history.genesis.chain_name,
            history.height()
        ),
    );
    let mut pass = Pass::new(&history, report)?;
    for height in 1..=history.height() {
        pass.block(height, report)?;
    }
    pass.finish(report)?;
    let Pass {
        log,
        replay,
        blocks,
        ..
    } = pass;
    report.blocks = blocks;
    let state = replay.into_state();
    Ok(Verified {
        history,
        log,
        state,
    })
}

/// What is carried from block to block.
struct Pass<'a> {
    history: &'a History,
    replay: Replay,
    log: Log,
    merged: Merged,
    /// The set that certifies the block at hand.
    set: ValidatorSet,
    /// The block before the one at hand.
    before: Option<Block>,
    blocks: u64,
    lane_commits: u64,
    signers: BTreeSet<String>,
    dapps: BTreeMap<String, u64>,
}

impl<'a> Pass<'a> {
    fn new(history: &'a History, report: &mut Report) -> Result<Self, Refused> {
        let set = report.need("genesis", history.genesis.validator_set())?;
        let replay = report.need("genesis", Replay::new(&history.genesis, &history.chain))?;
        report.hold(
            "genesis",
            format!(
                "{} validators of {} operators; the genesis commit is the chain's id",
                set.len(),
                history
                    .genesis
                    .validators
                    .iter()
                    .map(|v| v.operator.as_str())
                    .collect::<BTreeSet<_>>()
                    .len()
            ),
        );
        Ok(Self {
            history,
            replay,
            log: Log::default(),
            merged: Merged::new(),
            set,
            before: None,
            blocks: 0,
            lane_commits: 0,
            signers: BTreeSet::new(),
            dapps: BTreeMap::new(),
        })
    }

    fn block(&mut self, height: u64, report: &mut Report) -> Result<(), Refused> {
        let block = report.need("blocks", self.history.block(height))?;
        // The certificate of the block before stands in this one. It is of the set of that block, which is `set` until
        // this block is replayed.
        if let Some(before) = self.before.take() {
            self.certified(&before, Some(&block), report)?;
            self.advance(before, report)?;
        }
        self.before = Some(block);
        Ok(())
    }

    /// Checks the last block with the tip's certificate.
    fn finish(&mut self, report: &mut Report) -> Result<(), Refused> {
        if let Some(last) = self.before.take() {
            self.certified(&last, None, report)?;
            self.advance(last, report)?;
        }
        report.hold(
            "blocks",
            format!(
                "{} blocks, each rebuilt byte for byte and standing on the one before",
                self.blocks
            ),
        );
        report.hold(
            "certificates",
            format!(
                "{} certificates, each of more than two thirds of the power of its height",
                self.blocks
            ),
        );
        report.lane_commits = self.lane_commits;
        report.hold(
            "lane-commits",
            format!(
                "{} lane commits of {} devices, each rebuilt byte for byte and signed by its device's lane key",
                self.lane_commits,
                self.signers.len()
            ),
        );
        report.hold(
            "receipts",
            format!(
                "{} entries, each signed by its author, with one receipt in its place",
                self.log.entries_total
            ),
        );
        let dapps: Vec<String> = self
            .dapps
            .iter()
            .map(|(name, blocks)| format!("{name} in {blocks} blocks"))
            .collect();
        report.hold(
            "native-rules",
            format!(
                "all native rules were run again and gave every receipt byte for byte; taken from the certified \
                 receipts, not run again: the verdicts of dapps ({}); taken from certified headers: the state roots",
                if dapps.is_empty() { "none".into() } else { dapps.join(", ") }
            ),
        );
        Ok(())
    }

    fn certified(
        &self,
        block: &Block,
        next: Option<&Block>,
        report: &mut Report,
    ) -> Result<(), Refused> {
        let height = block.header.height;
        let certificate = self
            .history
            .certificate(next)
            .filter(|c| c.block == block.id && c.height == height);
        let Some(certificate) = certificate else {
            let why = format!(
                "block {height} ({}) has no certificate of its own",
                block.id
            );
            return Err(report.refuse("certificates", why));
        };
        let checked = certificate
            .verify(&self.history.chain, &self.set)
            .map_err(|e| format!("block {height}: {e}"));
        report.need("certificates", checked)
    }

    /// Reads what a block merges, and runs the native rules on it.
    fn advance(&mut self, block: Block, report: &mut Report) -> Result<(), Refused> {
        let height = block.header.height;
        let lanes = self.lanes(&block, report)?;
        report.need(
            "receipts",
            check_receipt_order(height, &lanes, &block.receipts),
        )?;
        let digest = report.need("receipts", receipt::digest(&block.receipts))?;
        report.need(
            "receipts",
            same_digest(height, &digest, &block.header.receipts),
        )?;
        let output = report.need("native-rules", self.replay.block(&block, &lanes))?;
        if output.validators.digest() != block.header.validators {
            let why = format!("block {height}: the header names another validator set");
            return Err(report.refuse("native-rules", why));
        }
        self.set = output.validators;
        for name in block.header.dapps.keys() {
            *self.dapps.entry(name.clone()).or_default() += 1;
        }
        self.log.add(height, &lanes, &block.receipts);
        self.blocks += 1;
        Ok(())
    }

    fn lanes(&mut self, block: &Block, report: &mut Report) -> Result<Vec<LaneCommit>, Refused> {
        let name = "lane-commits";
        let mut all = Vec::new();
        for range in &block.header.lanes {
            let lane = range.lane();
            let before = self.merged.get(&lane).copied();
            let commits = report.need(name, self.history.lane_range(range, before))?;
            let device = report.need(
                name,
                query::device(self.replay.state(), &lane.device).map_err(|e| e.to_string()),
            )?;
            let Some(device) = device else {
                return Err(
                    report.refuse(name, format!("device {} is not registered", lane.device))
                );
            };
            for (commit, key) in commits {
                let own = device.key_of(lane.incarnation);
                if key != own {
                    let why = format!(
                        "lane commit {} is signed by {key}, the lane key of {} is {own}",
                        commit.id, device.name
                    );
                    return Err(report.refuse(name, why));
                }
                self.lane_commits += 1;
                all.push(commit);
            }
            self.signers.insert(device.name);
            self.merged.insert(lane, (range.head, range.to));
        }
        Ok(all)
    }
}

fn same_digest(height: u64, got: &Digest, expected: &Digest) -> Result<(), HistoryError> {
    if got == expected {
        return Ok(());
    }
    Err(HistoryError::broken(
        format!("block {height}"),
        "the header names other receipts",
    ))
}
