//! The node behind consensus, in memory: the same rules as in the daemon, over the disk of the simulation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use instar_chain::fake::FakeHost;
use instar_chain::merge::{self, Parent, Refusal, refuse};
use instar_chain::{BlockInput, BlockOutput, Writes, apply_block};
use instar_consensus::{
    Candidate, Host, MAX_PAYLOAD_BYTES, Next, Origin, Proposed, Start, Verdict,
};
use instar_ledger::grammar::{self, GrammarError, Kind, Object};
use instar_ledger::{
    BlockDraft, Certificate, Header, Lane, LaneCommit, LaneRange, Oid, ValidatorSet, pack, receipt,
};
use instar_state::Fork;

use super::disk::{Shared, lock};
use super::store::Final;
use super::world::World;
use super::{Broken, Options};

/// What a proposer does to its block, to see whether anybody notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trick {
    /// The root of another state.
    StateRoot,
    /// A receipt is left out.
    Receipts,
    /// A time far ahead.
    Time,
}

/// A block that was tested here, and what it comes to.
struct Tested {
    pack: Vec<u8>,
    previous: Option<Certificate>,
    writes: Writes,
    ranges: Vec<LaneRange>,
    time_ms: u64,
    validators: ValidatorSet,
}

/// The newest final block here.
pub struct Head {
    /// Its height.
    pub height: u64,
    /// Its id.
    pub block: Oid,
    time_ms: u64,
    validators: ValidatorSet,
    certified_by: Option<ValidatorSet>,
    certificate: Option<Certificate>,
}

/// One node.
pub struct SimHost {
    pub(super) number: usize,
    pub(super) disk: Shared,
    /// The time by its own clock, in milliseconds since 1970.
    clock: Arc<AtomicU64>,
    pub(super) options: Options,
    /// The state after the head.
    pub state: Fork,
    /// The head.
    pub head: Head,
    pub(super) objects: BTreeMap<Oid, Object>,
    pub(super) commits: BTreeMap<Oid, Arc<LaneCommit>>,
    pub(super) tails: BTreeMap<Lane, Vec<Arc<LaneCommit>>>,
    tested: BTreeMap<Oid, Tested>,
    /// Why proposals were refused here, by rule.
    pub refused: BTreeMap<&'static str, u64>,
    /// Why it could not go on.
    pub fatal: Option<String>,
    /// What it does to the next block that it proposes.
    pub trick: Option<Trick>,
}

/// An object, or that it is not here.
pub(super) fn fetch<'a>(
    fresh: &'a BTreeMap<Oid, Object>,
    known: &'a BTreeMap<Oid, Object>,
    id: &Oid,
    kind: Kind,
) -> Result<Vec<u8>, GrammarError> {
    let object = fresh.get(id).or_else(|| known.get(id));
    match object.filter(|o| o.kind == kind) {
        Some(object) => Ok(object.bytes.clone()),
        None => Err(GrammarError::Part {
            what: "pack",
            part: "object that is named in it",
        }),
    }
}

/// The objects of a pack by id.
pub(super) fn unpack(bytes: &[u8]) -> Result<BTreeMap<Oid, Object>, Refusal> {
    let objects = pack::read(bytes, MAX_PAYLOAD_BYTES);
    let objects = objects.map_err(|e| refuse("bad-pack", e.to_string()))?;
    Ok(objects.into_iter().map(|o| (o.id, o)).collect())
}

/// A pack of objects.
pub(super) fn packed<'a>(objects: impl Iterator<Item = &'a Object>) -> Vec<u8> {
    pack::write(objects.map(|o| (o.kind, o.bytes.as_slice())))
}

impl SimHost {
    /// A node as its disk has it.
    pub fn open(number: usize, disk: &Shared, clock: &Arc<AtomicU64>, options: Options) -> Self {
        let world = World::get();
        let mut state = Fork::empty();
        state.apply(&world.writes).expect("the genesis state holds");
        let validators = world.genesis.validator_set();
        let mut host = Self {
            number,
            disk: Arc::clone(disk),
            clock: Arc::clone(clock),
            options,
            state,
            head: Head {
                height: 0,
                block: Oid::from(world.chain),
                time_ms: world.genesis.time_ms,
                validators: validators.expect("the genesis has validators"),
                certified_by: None,
                certificate: None,
            },
            objects: BTreeMap::new(),
            commits: BTreeMap::new(),
            tails: BTreeMap::new(),
            tested: BTreeMap::new(),
            refused: BTreeMap::new(),
            fatal: None,
            trick: None,
        };
        let finals = lock(disk).store.finals.clone();
        for block in &finals {
            host.objects.extend(unpack(&block.pack).unwrap_or_default());
            host.advance(block);
        }
        host.load_own_lane();
        host
    }

    fn now_ms(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn parent(&self) -> Parent<'_> {
        Parent {
            chain: World::get().chain,
            height: self.head.height,
            block: self.head.block,
            time_ms: self.head.time_ms,
            certified_by: self.head.certified_by.as_ref(),
        }
    }

    fn apply(
        &self,
        header_of: (u64, instar_attest::PublicKey),
        previous: Option<&Certificate>,
        commits: &[Arc<LaneCommit>],
        left_out: &[String],
    ) -> Result<BlockOutput, Refusal> {
        let commits: Vec<LaneCommit> = commits.iter().map(|c| (**c).clone()).collect();
        let input = BlockInput {
            chain: World::get().chain,
            height: self.head.height + 1,
            time_ms: header_of.0,
            parent: self.head.block,
            proposer: header_of.1,
            previous,
            lanes: &commits,
            fork: None,
            left_out,
        };
        let mut dapps = FakeHost::default();
        apply_block(&self.state, &input, &mut dapps)
            .map_err(|e| refuse("merge-test", e.to_string()))
    }

    /// A block on the head that merges what is known. `later_ms` tells two blocks of one height apart.
    pub fn make_block(&mut self, later_ms: u64) -> Result<Proposed, String> {
        let world = World::get();
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let proposer = world.secrets[self.number].consensus.public();
        let left = match self.options.broken {
            Some(Broken::LaneLeftOut) => Some(world.lane(super::LEFT_OUT)),
            _ => None,
        };
        let tails = self.tails.iter().filter(|(lane, _)| Some(**lane) != left);
        let tails = tails.map(|(lane, tail)| (lane, tail.as_slice()));
        let (ranges, commits) = merge::select(&self.state, &self.head.block, tails, None);
        let mut time_ms = self.parent().next_time(self.now_ms()) + later_ms;
        let trick = self.trick.take();
        if trick == Some(Trick::Time) {
            time_ms += 100 * merge::MAX_DRIFT_MS;
        }
        let previous = self.head.certificate.clone();
        let by = (time_ms, proposer);
        let mut output = self
            .apply(by, previous.as_ref(), &commits, &[])
            .map_err(|e| text(&e))?;
        let root = self.state.root_of(&output.writes).map_err(|e| text(&e))?;
        if trick == Some(Trick::Receipts) {
            output.receipts.pop();
        }
        let merges = merge::Merges {
            lanes: ranges.clone(),
            fork: None,
        };
        let mut header = self
            .parent()
            .header(proposer, time_ms, merges, Vec::new(), &output, root)
            .map_err(|e| text(&e))?;
        if trick == Some(Trick::StateRoot) {
            header.state_root = header.receipts;
        }
        let draft = BlockDraft {
            header,
            receipts: output.receipts.clone(),
            previous: previous.clone(),
        };
        let tree = grammar::block_tree(&draft).map_err(|e| text(&e))?;
        let bytes = grammar::block_commit(&tree[0].id, &draft.header, &draft.receipts);
        let commit = Object::new(Kind::Commit, bytes);
        let block = commit.id;
        let mut objects = self.objects_of(&commits);
        objects.push(commit);
        objects.extend(tree);
        let pack = packed(objects.iter());
        self.keep_pack(block, &pack).map_err(|e| text(&e))?;
        self.objects.extend(objects.into_iter().map(|o| (o.id, o)));
        let tested = Tested {
            pack: pack.clone(),
            previous,
            writes: output.writes,
            ranges,
            time_ms,
            validators: output.validators,
        };
        self.tested.insert(block, tested);
        let payload = Bytes::from(pack);
        Ok(Proposed { block, payload })
    }

    fn keep_pack(&self, block: Oid, pack: &[u8]) -> std::io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.work()?;
        disk.store.packs.insert(block, pack.to_vec());
        Ok(())
    }

    /// The merge test.
    pub fn test(&mut self, id: &Oid, pack: &[u8], live: Option<u64>) -> Result<(), Refusal> {
        if self.tested.contains_key(id) {
            return Ok(());
        }
        let fresh = unpack(pack)?;
        let chain = World::get().chain;
        let block = grammar::read_block(*id, &chain, |id, kind| {
            fetch(&fresh, &self.objects, id, kind)
        });
        let block = block.map_err(|e| refuse("bad-block", e.to_string()))?;
        let header: &Header = &block.header;
        let left_out = self.options.broken == Some(Broken::MergeTestLeftOut);
        let checked = self
            .parent()
            .check_header(header, block.previous.as_ref(), live);
        if !left_out {
            checked?;
        }
        let mut commits = Vec::new();
        for range in &header.lanes {
            let merged = self.merged(&range.lane())?;
            let run = self.verified(&range.lane(), &range.head, &merged, &fresh)?;
            merge::check_range(range, merged.seq, run.last().map(|c| c.seq))?;
            commits.extend(run);
        }
        let by = (header.time_ms, header.proposer);
        let previous = block.previous.as_ref();
        let output = self.apply(by, previous, &commits, &header.left_out)?;
        let trouble = |e: &dyn std::fmt::Display| refuse("node-trouble", e.to_string());
        if !left_out {
            if let Some((_, refusal)) = merge::differing_dapp(header, &output) {
                return Err(refusal);
            }
            merge::check_output(header, &output)?;
            let root = self
                .state
                .root_of(&output.writes)
                .map_err(|e| trouble(&e))?;
            let receipts = receipt::digest(&output.receipts).map_err(|e| trouble(&e))?;
            // The block and what was computed here are durable before anybody votes.
            self.keep_pack(*id, pack).map_err(|e| trouble(&e))?;
            merge::check_roots(header, &root, &receipts)?;
        }
        let tested = Tested {
            pack: pack.to_vec(),
            previous: block.previous,
            writes: output.writes,
            ranges: block.header.lanes,
            time_ms: block.header.time_ms,
            validators: output.validators,
        };
        self.objects.extend(fresh);
        self.tested.insert(*id, tested);
        Ok(())
    }

    /// Moves the head to a final block.
    fn advance(&mut self, block: &Final) {
        self.state
            .apply(&block.writes)
            .expect("the writes of a tested block fit its parent");
        let certified_by = std::mem::replace(&mut self.head.validators, block.validators.clone());
        self.head = Head {
            height: block.certificate.height,
            block: block.certificate.block,
            time_ms: block.time_ms,
            validators: block.validators.clone(),
            certified_by: Some(certified_by),
            certificate: Some(block.certificate.clone()),
        };
        self.tested.clear();
        self.trim_tails(&block.ranges);
    }

    fn finalize(&mut self, certificate: &Certificate, pack: Option<&[u8]>) -> Result<(), String> {
        if certificate.height <= self.head.height {
            return Ok(());
        }
        let id = certificate.block;
        if !self.tested.contains_key(&id) {
            let kept = lock(&self.disk).store.packs.get(&id).cloned();
            let pack = pack.or(kept.as_deref());
            let pack = pack.ok_or("a block is decided, but its pack is not here")?;
            self.test(&id, pack, None).map_err(|e| e.to_string())?;
        }
        let tested = self.tested.remove(&id).ok_or("the block was not tested")?;
        let block = Final {
            certificate: certificate.clone(),
            previous: tested.previous,
            pack: tested.pack,
            writes: tested.writes,
            ranges: tested.ranges,
            time_ms: tested.time_ms,
            validators: tested.validators,
        };
        {
            let mut disk = lock(&self.disk);
            disk.work().map_err(|e| e.to_string())?;
            disk.store.finals.push(block.clone());
            disk.store.packs.clear();
            if self.options.broken != Some(Broken::FinalNotDurable) {
                disk.store.synced = disk.store.finals.len();
            }
        }
        self.advance(&block);
        lock(&self.disk).news.push(certificate.clone());
        Ok(())
    }

    /// Whether there is something for a block to do.
    pub fn has_work(&self) -> bool {
        let lanes = self.tails.iter().filter(|(_, t)| !t.is_empty());
        let time_ms = self.parent().next_time(self.now_ms());
        let next = self.head.height + 1;
        merge::has_work(&self.state, lanes.map(|(lane, _)| lane), next, time_ms).unwrap_or(true)
    }
}

impl Host for SimHost {
    async fn start(&mut self) -> Start {
        Start {
            height: self.head.height + 1,
            validators: self.head.validators.clone(),
        }
    }

    async fn propose(&mut self, _height: u64, _round: u32) -> Result<Proposed, String> {
        self.make_block(0)
    }

    async fn check(&mut self, candidate: Candidate) -> Verdict {
        let live = (candidate.origin == Origin::Live).then(|| self.now_ms());
        match self.test(&candidate.block, &candidate.payload, live) {
            Ok(()) => Verdict::Valid,
            Err(refusal) => {
                *self.refused.entry(refusal.rule).or_default() += 1;
                Verdict::Invalid(refusal.to_string())
            }
        }
    }

    async fn decided(&mut self, certificate: Certificate, payload: Option<Bytes>) -> Next {
        if let Err(why) = self.finalize(&certificate, payload.as_deref()) {
            // The daemon ends its process here: going on would mean to vote on top of a block that it does not have.
            if lock(&self.disk).is_on() {
                self.fatal = Some(why);
            }
            lock(&self.disk).cut();
        }
        Next {
            height: certificate.height + 1,
            validators: self.head.validators.clone(),
        }
    }

    async fn decided_payload(&mut self, height: u64) -> Option<(Certificate, Bytes)> {
        let place = usize::try_from(height.checked_sub(1)?).ok()?;
        let disk = lock(&self.disk);
        let finals = &disk.store.finals;
        let block = finals.get(place)?;
        let certificate = match finals.get(place + 1) {
            Some(next) => next.previous.clone()?,
            None => self.head.certificate.clone()?,
        };
        Some((certificate, Bytes::from(block.pack.clone())))
    }

    async fn grown(&mut self, certificate: Certificate) {
        let known = self.head.certificate.as_ref();
        if known.is_some_and(|k| {
            k.block == certificate.block && k.signatures.len() < certificate.signatures.len()
        }) {
            self.head.certificate = Some(certificate);
        }
    }
}
