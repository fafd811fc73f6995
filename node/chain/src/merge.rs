//! What a proposer puts into a block, and what a validator checks of one around the merge test itself: the header, the
//! lanes, and whether what it computed is what the proposer says. Bytes and signatures were checked before.

use std::collections::BTreeSet;
use std::sync::Arc;

use instar_attest::json::JsonError;
use instar_attest::{ChainId, Digest, PublicKey};
use instar_ledger::block::MAX_LANES_A_BLOCK;
use instar_ledger::lane::merge_key;
use instar_ledger::{
    Certificate, ForkRange, Header, Lane, LaneCommit, LaneRange, Oid, Slice, ValidatorSet, receipt,
};

use crate::block::BlockOutput;
use crate::lanes::Quota;
use crate::query;
use crate::view::{StateError, StateView};

/// The consensus kernel that this program speaks.
pub const KERNEL: u32 = 1;
/// How far a fresh proposal's time may lie from the own clock, on both sides, in milliseconds.
pub const MAX_DRIFT_MS: u64 = 10_000;
/// Entries that a proposer aims at, so that a merge test stays far below a propose timeout; one commit may exceed it.
pub const PROPOSED_ENTRIES: usize = 2_000;

/// Why a node prevotes nil.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {detail}")]
pub struct Refusal {
    /// Kebab case, countable.
    pub rule: &'static str,
    /// For people.
    pub detail: String,
}

/// A refusal by a rule.
pub fn refuse(rule: &'static str, detail: impl Into<String>) -> Refusal {
    Refusal {
        rule,
        detail: detail.into(),
    }
}

/// The newest final block, which the next one stands on.
#[derive(Debug, Clone, Copy)]
pub struct Parent<'a> {
    /// The chain.
    pub chain: ChainId,
    /// Its height; 0 is genesis.
    pub height: u64,
    /// Its id.
    pub block: Oid,
    /// Its time in milliseconds since 1970.
    pub time_ms: u64,
    /// Who certified it; nobody did that for genesis.
    pub certified_by: Option<&'a ValidatorSet>,
}

/// What a block merges.
#[derive(Debug, Clone, Default)]
pub struct Merges {
    /// Of lanes, in merge order.
    pub lanes: Vec<LaneRange>,
    /// Of a fork.
    pub fork: Option<ForkRange>,
}

impl Parent<'_> {
    /// The time of a block that is made now.
    pub fn next_time(&self, now_ms: u64) -> u64 {
        now_ms.max(self.time_ms.saturating_add(1))
    }

    /// The header of the block that merges these and comes to `output`.
    pub fn header(
        &self,
        proposer: PublicKey,
        time_ms: u64,
        merges: Merges,
        left_out: Vec<String>,
        output: &BlockOutput,
        state_root: Digest,
    ) -> Result<Header, JsonError> {
        Ok(Header {
            chain: self.chain,
            dapps: output.dapps.clone(),
            forks: merges.fork.into_iter().collect(),
            height: self.height + 1,
            kernel: KERNEL,
            lanes: merges.lanes,
            left_out,
            parent: self.block,
            proposer,
            protocol: output.protocol,
            receipts: receipt::digest(&output.receipts)?,
            state_root,
            time_ms,
            validators: output.validators.digest(),
        })
    }

    /// Checks a header and the certificate that stands beside it. `live_now_ms` is the own clock, for a fresh proposal
    /// that is seen live.
    pub fn check_header(
        &self,
        header: &Header,
        previous: Option<&Certificate>,
        live_now_ms: Option<u64>,
    ) -> Result<(), Refusal> {
        let order = |range: &LaneRange| merge_key(&self.block, &range.lane());
        let facts = [
            (header.chain == self.chain, "other-chain"),
            (header.height == self.height + 1, "wrong-height"),
            (header.parent == self.block, "wrong-parent"),
            (header.kernel == KERNEL, "other-kernel"),
            (header.lanes.len() <= MAX_LANES_A_BLOCK, "too-many-lanes"),
            (header.time_ms > self.time_ms, "time-not-later"),
            (header.lanes.is_sorted_by_key(order), "lane-order"),
        ];
        for (holds, rule) in facts {
            if !holds {
                let detail = format!("block at height {} on {}", header.height, header.parent);
                return Err(refuse(rule, detail));
            }
        }
        if let Some(now) = live_now_ms
            && header.time_ms.abs_diff(now) > MAX_DRIFT_MS
        {
            let away = header.time_ms.abs_diff(now);
            let detail = format!("{away} ms away from this node's clock");
            return Err(refuse("time-drift", detail));
        }
        self.check_certificate(previous)
    }

    /// Another node may hold other signatures of the parent, but they must certify it.
    fn check_certificate(&self, previous: Option<&Certificate>) -> Result<(), Refusal> {
        match (previous, self.certified_by) {
            (None, None) => Ok(()),
            (Some(certificate), Some(set))
                if certificate.height == self.height && certificate.block == self.block =>
            {
                certificate
                    .verify(&self.chain, set)
                    .map_err(|e| refuse("bad-certificate", e.to_string()))
            }
            _ => Err(refuse(
                "bad-certificate",
                "the block does not carry its parent's certificate",
            )),
        }
    }
}

/// A range must begin where its lane was merged last, and end where it says; `last` is the last of its commits.
pub fn check_range(range: &LaneRange, merged: u64, last: Option<u64>) -> Result<(), Refusal> {
    if range.from == merged + 1 && last == Some(range.to) {
        return Ok(());
    }
    Err(refuse(
        "lane-gap",
        format!(
            "lane {} is merged from {} to {}, expected from {}",
            range.lane(),
            range.from,
            range.to,
            merged + 1
        ),
    ))
}

/// Whether a commit is the one at this place of a lane.
pub fn continues(commit: &LaneCommit, lane: &Lane, seq: u64, parent: &Oid) -> bool {
    commit.lane == *lane && commit.seq == seq && commit.parent == *parent
}

/// The lanes that a block on `parent` would merge now, each from where it was merged last, in merge order. `tails` are
/// the unmerged commits of each lane, oldest first. What a slice of a fork may bring is kept free for it.
pub fn select<'a>(
    view: &dyn StateView,
    parent: &Oid,
    tails: impl Iterator<Item = (&'a Lane, &'a [Arc<LaneCommit>])>,
    fork: Option<&Slice>,
) -> (Vec<LaneRange>, Vec<Arc<LaneCommit>>) {
    let mut lanes: Vec<_> = tails
        .filter(|(_, commits)| !commits.is_empty())
        // A lane that the rules let nobody merge would spoil the whole block.
        .filter(|(lane, _)| query::check_lane(view, lane).is_ok())
        .collect();
    lanes.sort_by_key(|(lane, _)| merge_key(parent, lane));
    let mut quota = Quota::beside(fork.map_or(0, |slice| slice.entries.len() as u64));
    let (mut ranges, mut commits, mut entries) = (Vec::new(), Vec::new(), 0usize);
    for (lane, tail) in lanes.into_iter().take(MAX_LANES_A_BLOCK) {
        let taken: Vec<_> = tail
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
    (ranges, commits)
}

/// The first dapp that answers otherwise here than at the proposer, and how.
pub fn differing_dapp(header: &Header, output: &BlockOutput) -> Option<(String, Refusal)> {
    let names: BTreeSet<&String> = header.dapps.keys().chain(output.dapps.keys()).collect();
    let name = names
        .into_iter()
        .find(|name| output.dapps.get(*name) != header.dapps.get(*name))?;
    let show = |d: Option<&Digest>| d.map_or_else(|| "nothing".to_owned(), Digest::to_hex);
    let (here, there) = (output.dapps.get(name), header.dapps.get(name));
    let (here, there) = (show(here), show(there));
    let detail = format!("dapp {name} answers {here} here, {there} at the proposer");
    Some((name.clone(), refuse("dapp-differs", detail)))
}

/// The next block's validators and the protocol must be what was computed here.
pub fn check_output(header: &Header, output: &BlockOutput) -> Result<(), Refusal> {
    let validators = output.validators.digest();
    if header.validators != validators {
        let there = header.validators;
        return Err(refuse(
            "other-validators",
            format!("the next block's validators are {validators} here, {there} in the header"),
        ));
    }
    if header.protocol != output.protocol {
        let (here, there) = (output.protocol, header.protocol);
        let detail = format!("protocol {here} here, {there} in the header");
        return Err(refuse("other-protocol", detail));
    }
    Ok(())
}

/// Receipts and root must be what was computed here, byte for byte.
pub fn check_roots(header: &Header, root: &Digest, receipts: &Digest) -> Result<(), Refusal> {
    if *receipts != header.receipts {
        let detail = format!(
            "receipts {receipts} here, {} in the header",
            header.receipts
        );
        return Err(refuse("receipts-differ", detail));
    }
    if *root != header.state_root {
        let detail = format!("root {root} here, {} in the header", header.state_root);
        return Err(refuse("state-root-differs", detail));
    }
    Ok(())
}

/// Whether a block would have something to do: an unmerged entry that may be merged, or a transition that is due.
pub fn has_work<'a>(
    view: &dyn StateView,
    mut unmerged: impl Iterator<Item = &'a Lane>,
    height: u64,
    time_ms: u64,
) -> Result<bool, StateError> {
    // What no block may merge is no work.
    if unmerged.any(|lane| query::check_lane(view, lane).is_ok()) {
        return Ok(true);
    }
    crate::due(view, height, time_ms)
}
