//! What must hold, whatever happens. It sees what leaves a node and what becomes final, and trusts no node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use instar_attest::{Digest, PublicKey};
use instar_chain::fake::FakeHost;
use instar_chain::merge::Parent;
use instar_chain::{BlockInput, apply_block, merge};
use instar_consensus::bare::Channel;
use instar_ledger::grammar::{self};
use instar_ledger::{Certificate, LaneCommit, Oid, ReceiptLine, ValidatorSet, receipt};
use instar_state::Fork;

use super::host::{fetch, unpack};
use super::wire::{self, What};
use super::world::{VALIDATORS, World};

/// What was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// No two honest nodes have different final blocks at one height.
    Agreement,
    /// A final block is certified, and comes to what it says when it is tested again.
    Validity,
    /// What a node once had as final it has for ever.
    FinalKept,
    /// No honest validator signs two things for one height, round and step.
    SignedOnce,
    /// Every entry that an honest lane took gets a receipt.
    Receipted,
    /// After healing everybody comes to one head.
    Progress,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.detail)
    }
}

pub(super) fn broken<T>(invariant: Invariant, detail: impl Into<String>) -> Result<T, Violation> {
    Err(Violation {
        invariant,
        detail: detail.into(),
    })
}

/// The one chain that there may be, and what was said.
pub struct Checker {
    state: Fork,
    parent: (u64, Oid, u64),
    validators: ValidatorSet,
    certified_by: Option<ValidatorSet>,
    /// The final blocks, height 1 first.
    pub blocks: Vec<Oid>,
    /// The entries that have a receipt.
    pub receipted: BTreeMap<Digest, u64>,
    /// Entries that an honest lane took.
    pub taken: BTreeSet<Digest>,
    /// How far each node once was.
    reached: [u64; VALIDATORS],
    said: BTreeMap<(PublicKey, u64, u32, u8), What>,
    honest: BTreeSet<PublicKey>,
    objects: BTreeMap<Oid, grammar::Object>,
}

impl Checker {
    /// Before the first block.
    pub fn new(honest: impl Iterator<Item = usize>) -> Self {
        let world = World::get();
        let mut state = Fork::empty();
        state.apply(&world.writes).expect("the genesis state holds");
        let validators = world.genesis.validator_set();
        Self {
            state,
            parent: (0, Oid::from(world.chain), world.genesis.time_ms),
            validators: validators.expect("the genesis has validators"),
            certified_by: None,
            blocks: Vec::new(),
            receipted: BTreeMap::new(),
            taken: BTreeSet::new(),
            reached: [0; VALIDATORS],
            said: BTreeMap::new(),
            honest: honest
                .map(|n| world.secrets[n].consensus.public())
                .collect(),
            objects: BTreeMap::new(),
        }
    }

    /// A message leaves a node.
    pub fn sent(&mut self, channel: Channel, bytes: &Bytes) -> Result<(), Violation> {
        let Some(said) = wire::read(channel, bytes) else {
            return Ok(());
        };
        if !self.honest.contains(&said.by) {
            return Ok(());
        }
        let at = (said.by, said.height, said.round, said.what.step());
        match self.said.insert(at, said.what) {
            Some(before) if before != said.what => broken(
                Invariant::SignedOnce,
                format!(
                    "{} at height {}, round {}: {before:?}, then {:?}",
                    said.by.short(),
                    said.height,
                    said.round,
                    said.what
                ),
            ),
            _ => Ok(()),
        }
    }

    /// A block becomes final at an honest node.
    pub fn finalized(
        &mut self,
        node: usize,
        certificate: &Certificate,
        pack: &[u8],
    ) -> Result<(), Violation> {
        let height = certificate.height;
        match self.blocks.get(height as usize - 1) {
            Some(block) if *block != certificate.block => {
                return broken(
                    Invariant::Agreement,
                    format!(
                        "node {node} has {} at height {height}, {block} is final",
                        certificate.block
                    ),
                );
            }
            Some(_) => {}
            None => self.test(certificate, pack).or_else(|why| {
                broken(
                    Invariant::Validity,
                    format!("height {height} at node {node}: {why}"),
                )
            })?,
        }
        self.reached[node] = self.reached[node].max(height);
        Ok(())
    }

    fn test(&mut self, certificate: &Certificate, pack: &[u8]) -> Result<(), String> {
        let chain = World::get().chain;
        let text = |e: &dyn fmt::Display| e.to_string();
        certificate
            .verify(&chain, &self.validators)
            .map_err(|e| text(&e))?;
        let fresh = unpack(pack).map_err(|e| text(&e))?;
        let id = certificate.block;
        let block = grammar::read_block(id, &chain, |id, kind| {
            fetch(&fresh, &self.objects, id, kind)
        });
        let block = block.map_err(|e| text(&e))?;
        let header = &block.header;
        let (height, parent, time_ms) = self.parent;
        let on = Parent {
            chain,
            height,
            block: parent,
            time_ms,
            certified_by: self.certified_by.as_ref(),
        };
        on.check_header(header, block.previous.as_ref(), None)
            .map_err(|e| text(&e))?;
        let mut commits: Vec<LaneCommit> = Vec::new();
        for range in &header.lanes {
            let mut run = Vec::new();
            let mut next = range.head;
            for _ in range.from..=range.to {
                let (commit, _) = grammar::read_lane_commit(next, &chain, |id, kind| {
                    fetch(&fresh, &self.objects, id, kind)
                })
                .map_err(|e: grammar::GrammarError| text(&e))?;
                next = commit.parent;
                run.push(commit);
            }
            run.reverse();
            commits.extend(run);
        }
        let input = BlockInput {
            chain,
            height: header.height,
            time_ms: header.time_ms,
            parent,
            proposer: header.proposer,
            previous: block.previous.as_ref(),
            lanes: &commits,
            fork: None,
            left_out: &header.left_out,
        };
        let output = apply_block(&self.state, &input, &mut FakeHost::default());
        let output = output.map_err(|e| text(&e))?;
        let root = self.state.root_of(&output.writes).map_err(|e| text(&e))?;
        let receipts = receipt::digest(&output.receipts).map_err(|e| text(&e))?;
        merge::check_output(header, &output).map_err(|e| text(&e))?;
        merge::check_roots(header, &root, &receipts).map_err(|e| text(&e))?;
        for line in &output.receipts {
            if let ReceiptLine::Entry(r) = line {
                self.receipted.insert(r.entry, header.height);
            }
        }
        self.state.apply(&output.writes).map_err(|e| text(&e))?;
        self.parent = (header.height, id, header.time_ms);
        let next = output.validators;
        self.certified_by = Some(std::mem::replace(&mut self.validators, next));
        self.blocks.push(id);
        self.objects.extend(fresh);
        Ok(())
    }

    /// A node comes back with this chain.
    pub fn restarted(&self, node: usize, has: &[Oid]) -> Result<(), Violation> {
        let reached = self.reached[node] as usize;
        if has.len() < reached {
            let detail = format!(
                "node {node} had height {reached}, and has {} now",
                has.len()
            );
            return broken(Invariant::FinalKept, detail);
        }
        let same = has.iter().zip(&self.blocks).all(|(a, b)| a == b);
        if !same || has.len() > self.blocks.len() {
            let detail = format!("node {node} comes back with another chain");
            return broken(Invariant::Agreement, detail);
        }
        Ok(())
    }

    /// Entries that were taken and have no receipt.
    pub fn open_entries(&self) -> usize {
        let open = |id: &&Digest| !self.receipted.contains_key(*id);
        self.taken.iter().filter(open).count()
    }
}
