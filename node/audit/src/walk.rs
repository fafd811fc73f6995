//! The one walk along a chain: every block in order, with what carries from one to the next.

use std::collections::{BTreeMap, BTreeSet};

use instar_chain::{forks, query};
use instar_ledger::{
    Block, Certificate, CertificateError, LaneCommit, Oid, Receipt, ReceiptLine, Slice, SliceEntry,
    receipt,
};
use serde::{Deserialize, Serialize};

use crate::history::History;
use crate::reader::{Read, read_in_order};
use crate::replay::{self, Known, Replay};
use crate::wrong::{At, Stop, Wrong, rule_of_certificate};

/// What was checked so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Blocks, each with its receipts and the native rules run again.
    pub blocks: u64,
    /// Certificates with every signature.
    pub certificates: u64,
    /// For each dapp, the blocks that asked it.
    pub dapps: BTreeMap<String, u64>,
    /// Entries.
    pub entries: u64,
    /// Blocks of forks that were merged.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fork_blocks: u64,
    /// Lane commits.
    pub lane_commits: u64,
    /// Signatures that were verified: of entries, lane commits and certificates.
    pub signatures: u64,
    /// Names of the devices whose lanes were merged.
    pub signers: BTreeSet<String>,
    /// State roots that were recomputed.
    pub state_roots: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Who looks at each block after it was checked.
pub trait Watcher {
    /// A block holds, and all before it.
    fn block(&mut self, seen: &Seen<'_>) -> Result<(), Stop>;
}

/// A block that holds.
pub struct Seen<'a> {
    /// The block.
    pub block: &'a Block,
    /// What it merges.
    pub lanes: &'a [LaneCommit],
    /// What was checked so far.
    pub counts: &'a Counts,
    /// The state after it, as far as it is known.
    pub known: &'a Known,
}

/// The walk.
pub struct Walk<'h> {
    /// The rules, run again.
    pub replay: Replay<'h>,
    /// What was checked.
    pub counts: Counts,
    /// Up to here somebody vouches for the signatures.
    pub trusted: u64,
}

/// A block whose certificate is not known yet: it stands in the next one.
struct Waiting {
    block: Block,
    lanes: Vec<LaneCommit>,
    slice: Option<Slice>,
    keys: Vec<instar_attest::PublicKey>,
}

impl Walk<'_> {
    /// Goes on with a fork of the chain that was walked to its end.
    pub fn into_fork(mut self, history: &History) -> Result<Self, Stop> {
        self.replay = self.replay.into_fork(&history.genesis, &history.chain)?;
        Ok(self)
    }

    /// Checks all blocks above `after`, in order, and tells `watcher` of each.
    pub fn run(
        &mut self,
        history: &History,
        after: u64,
        watcher: &mut dyn Watcher,
    ) -> Result<(), Stop> {
        let mut waiting: Option<Waiting> = None;
        read_in_order(history, after + 1, self.trusted, |_, read| {
            let next = match read {
                Ok(read) => read,
                Err(wrong) => {
                    // What is wrong with the block before comes first; only its certificate can't be had any more.
                    if let Some(before) = waiting.take() {
                        self.check(before, history, watcher)?;
                    }
                    return Err(wrong.into());
                }
            };
            let Read {
                block,
                lanes,
                slice,
                previous,
            } = next;
            if let Some(before) = waiting.take() {
                self.certified(
                    &before.block,
                    block.previous.as_ref(),
                    &previous,
                    history,
                    None,
                )?;
                self.check(before, history, watcher)?;
            }
            let (lanes, keys) = lanes.into_iter().unzip();
            waiting = Some(Waiting {
                block,
                lanes,
                slice,
                keys,
            });
            Ok::<(), Stop>(())
        })?;
        if let Some(last) = waiting.take() {
            let tip = history.tip.as_ref();
            let signatures = match tip {
                Some((_, certificate)) => certificate.verify_signatures(&history.chain),
                None => Ok(()),
            };
            let certificate = tip.map(|(_, c)| c);
            self.certified(
                &last.block,
                certificate,
                &signatures,
                history,
                tip.map(|(id, _)| *id),
            )?;
            self.check(last, history, watcher)?;
        }
        Ok(())
    }

    /// The certificate of a block, against the set of its height: the state before the block names it.
    fn certified(
        &mut self,
        block: &Block,
        certificate: Option<&Certificate>,
        signatures: &Result<(), CertificateError>,
        history: &History,
        tip: Option<Oid>,
    ) -> Result<(), Stop> {
        let height = block.header.height;
        if height <= self.trusted && height < history.height() {
            return Ok(());
        }
        let mut at = At::block("certificates", height, block.id);
        at.what = format!("the certificate of block {height}");
        if let Some(holder) = tip.or_else(|| history.id(height + 1)) {
            at = at.object(holder);
        }
        let Some(certificate) = certificate.filter(|c| c.block == block.id && c.height == height)
        else {
            let why = format!("block {} has none of its own", block.id);
            return Err(at.wrong("certificate-missing", why).into());
        };
        let refused = |e: &CertificateError| Stop::from(at.wrong(rule_of_certificate(e), e));
        let set = query::validator_set(self.replay.known().view())
            .map_err(|e| Stop::CannotTell(e.to_string()))?;
        certificate.verify_power(&set).map_err(|e| refused(&e))?;
        signatures.as_ref().map_err(refused)?;
        self.counts.certificates += 1;
        self.counts.signatures += certificate.signatures.len() as u64;
        Ok(())
    }

    /// Everything about a block but its certificate.
    fn check(
        &mut self,
        waiting: Waiting,
        history: &History,
        watcher: &mut dyn Watcher,
    ) -> Result<(), Stop> {
        let Waiting {
            block,
            lanes,
            slice,
            keys,
        } = waiting;
        let height = block.header.height;
        self.lanes(&block, &lanes, &keys, history)?;
        if let Some(slice) = &slice {
            left_here(&block, slice, history)?;
            self.counts.fork_blocks += slice.range.to - slice.range.from + 1;
        }
        let offered = self.offered(&block, slice.as_ref())?;
        receipts(&block, &lanes, &offered)?;
        let replayed = self.replay.block(&block, &lanes, slice.as_ref())?;
        let entries: usize = lanes.iter().map(|c| c.entries.len()).sum();
        self.counts.blocks += 1;
        self.counts.entries += entries as u64;
        self.counts.lane_commits += lanes.len() as u64;
        self.counts.state_roots += u64::from(replayed.root_compared);
        if height > self.trusted {
            self.counts.signatures += (entries + lanes.len()) as u64;
        }
        for name in block.header.dapps.keys() {
            *self.counts.dapps.entry(name.clone()).or_default() += 1;
        }
        watcher.block(&Seen {
            block: &block,
            lanes: &lanes,
            counts: &self.counts,
            known: self.replay.known(),
        })
    }

    /// What a block offers of a fork to dapps, by the state before it.
    fn offered<'s>(
        &self,
        block: &Block,
        slice: Option<&'s Slice>,
    ) -> Result<Vec<&'s SliceEntry>, Stop> {
        let Some(slice) = slice else {
            return Ok(Vec::new());
        };
        let (height, view) = (block.header.height, self.replay.known().view());
        forks::check_due(view, slice)
            .and_then(|()| forks::offered(view, height, slice))
            .map_err(|e| replay::stop(&At::block("fork-slices", height, block.id), e))
    }

    /// That each lane goes on from where it was merged last, and is signed by its device's registered key.
    fn lanes(
        &mut self,
        block: &Block,
        lanes: &[LaneCommit],
        keys: &[instar_attest::PublicKey],
        history: &History,
    ) -> Result<(), Stop> {
        let height = block.header.height;
        let view = self.replay.known().view();
        let cannot = |e: instar_chain::StateError| Stop::CannotTell(e.to_string());
        for range in &block.header.lanes {
            let lane = range.lane();
            let at = At::new("lane-commits", format!("lane {lane}"))
                .object(range.head)
                .height(height);
            let Some(device) = query::device(view, &lane.device).map_err(cannot)? else {
                let why = format!("device {} is not registered", lane.device);
                return Err(at.wrong("device-unknown", why).into());
            };
            let own_key = device.key_of(lane.incarnation);
            let mark = query::lane(view, &lane).map_err(cannot)?;
            let (merged, seq) = mark.map_or((Oid::from(history.chain), 0), |m| (m.head, m.seq));
            if range.from != seq + 1 {
                let why = format!(
                    "block {height} merges it from {}, but {seq} is the last that is merged",
                    range.from
                );
                return Err(at.wrong("lane-gap", why).into());
            }
            let own = lanes.iter().zip(keys).filter(|(c, _)| c.lane == lane);
            for (index, (commit, key)) in own.enumerate() {
                let mut at = at.clone().object(commit.id);
                at.what = format!("lane commit {}", commit.id);
                if index == 0 && commit.parent != merged {
                    let why = format!("it stands on {}, but {merged} is merged", commit.parent);
                    return Err(at.wrong("lane-gap", why).into());
                }
                if *key != own_key {
                    let why = format!(
                        "it is signed by {key}, the lane key of {} is {own_key}",
                        device.name
                    );
                    return Err(at.wrong("lane-key", why).into());
                }
            }
            self.counts.signers.insert(device.name);
        }
        Ok(())
    }
}

/// That a fork whose first blocks are merged left this chain, at a block of its trunk.
fn left_here(block: &Block, slice: &Slice, history: &History) -> Result<(), Wrong> {
    let Some(mother) = slice.mother else {
        return Ok(());
    };
    let at = At::block("fork-slices", block.header.height, block.id);
    match history.find(mother.height)? {
        Some(id) if id == mother.id => Ok(()),
        id => {
            let id = id.map_or_else(|| "none of this chain's".to_owned(), |id| id.to_string());
            let why = format!(
                "fork {} stands on {}, but block {} is {id}",
                slice.range.chain, mother.id, mother.height
            );
            Err(at.wrong("other-mother", why))
        }
    }
}

/// That each merged entry has exactly one receipt, in merge order, and that the header names these receipts. Of a fork's
/// entries those have one that were offered to a dapp.
fn receipts(block: &Block, lanes: &[LaneCommit], offered: &[&SliceEntry]) -> Result<(), Wrong> {
    let at = At::block("receipts", block.header.height, block.id);
    let receipts: Vec<&Receipt> = block
        .receipts
        .iter()
        .filter_map(|line| match line {
            ReceiptLine::Entry(receipt) => Some(receipt),
            ReceiptLine::Event(_) => None,
        })
        .collect();
    let own = lanes.iter().flat_map(|commit| {
        let places = (0u32..).zip(&commit.entries);
        places.map(|(index, entry)| (None, entry, commit.lane, commit.seq, index))
    });
    let foreign = offered.iter().map(|m| {
        let chain = Some(m.entry.chain);
        (chain, &m.entry, m.lane, m.seq, m.index)
    });
    let mut count = 0;
    for (chain, entry, lane, seq, index) in own.chain(foreign) {
        let id = entry.id();
        let found = receipts.get(count).filter(|r| {
            (r.chain, r.entry, r.lane, r.seq, r.index) == (chain, id, lane, seq, index)
        });
        if found.is_none() {
            let why = format!("entry {id} has no receipt in its place");
            return Err(at.wrong("receipt-missing", why));
        }
        count += 1;
    }
    if let Some(extra) = receipts.get(count) {
        let why = format!("a receipt for {}, which was not merged", extra.entry);
        return Err(at.wrong("receipt-extra", why));
    }
    let digest = receipt::digest(&block.receipts).map_err(|e| at.wrong("object-bytes", e))?;
    if digest != block.header.receipts {
        return Err(at.wrong("receipts-digest", "the header names other receipts"));
    }
    Ok(())
}
