//! One run: what happens when, and what follows from it.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;
use instar_consensus::RunError;
use instar_consensus::bare::{Bare, Channel, Kept, Timer};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::attack::Liar;
use super::check::{Checker, Invariant, Violation, broken};
use super::disk::{Loss, lock};
use super::host::SimHost;
use super::lanes::LaneNews;
use super::node::{Node, Outbox};
use super::plan::{Fault, Plan};
use super::world::VALIDATORS;
use super::{Broken, Options};

/// How often a node tells its height and sends unmerged lanes again.
pub(super) const TICK_MS: u64 = 1_000;
/// The longest that a node stays without power.
const MAX_OFF_MS: u64 = 2_000;
/// After this long with a network that works, everything must be final.
const PATIENCE_MS: u64 = 60_000;
/// No run is this long; one that is goes round in circles.
const MAX_EVENTS: u64 = 60_000;

/// Something on its way from one node to another.
#[derive(Debug, Clone)]
pub(super) enum Packet {
    Consensus(Channel, Bytes),
    Lane(Arc<LaneNews>),
}

/// Something that happens at its time.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Deliver(usize, usize, Packet),
    Timer(usize, u64, Timer),
    Tick(usize, u64),
    Entry(usize),
    Fault(Fault),
    Off(usize, u64),
    On(usize),
    Heal,
    End,
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Final blocks.
    pub heights: u64,
    /// Entries that honest lanes took; all of them have receipts.
    pub entries: usize,
    /// Things that happened.
    pub events: u64,
    /// Times that the power went.
    pub cuts: u64,
    /// Rounds after the first of a height, over all nodes.
    pub late_rounds: u64,
    /// Times that a node followed instead of signing.
    pub followed: u64,
    /// Refused proposals by rule, over all honest nodes.
    pub refused: BTreeMap<&'static str, u64>,
    /// Times that a validator ended by itself, by reason.
    pub ended: BTreeMap<String, u64>,
    /// The same for the same events in the same order.
    pub fingerprint: u64,
}

/// A seed that broke an invariant.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was broken.
    pub violation: Violation,
    /// What happened, if it was written down.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}: {}", self.seed, self.violation)?;
        write!(
            f,
            "again, with this trace: tests/bench/sim --from {} --seeds 1 --trace",
            self.seed
        )
    }
}

/// A run under way.
pub(super) struct Sim {
    pub(super) now: u64,
    pub(super) count: u64,
    pub(super) queue: BTreeMap<(u64, u64), Event>,
    pub(super) rng: ChaCha8Rng,
    pub(super) options: Options,
    pub(super) plan: Plan,
    pub(super) nodes: Vec<Node>,
    pub(super) liars: BTreeMap<usize, Liar>,
    pub(super) checker: Checker,
    pub(super) cut: Option<[bool; VALIDATORS]>,
    pub(super) healed_at: Option<(u64, usize)>,
    pub(super) to_say: usize,
    pub(super) lost_mark: bool,
    pub(super) hasher: DefaultHasher,
    pub(super) summary: Summary,
    pub(super) trace: Vec<String>,
}

/// Runs a seed. The same seed and options make the same run.
pub fn run(seed: u64, options: Options) -> Result<Summary, Failure> {
    let mut sim = Sim::new(seed, options);
    match sim.go() {
        Ok(()) => {
            for node in 0..VALIDATORS {
                sim.count_refused(node);
            }
            sim.summary.heights = sim.checker.blocks.len() as u64;
            sim.summary.entries = sim.checker.taken.len();
            sim.summary.fingerprint = sim.hasher.finish();
            Ok(sim.summary)
        }
        Err(violation) => Err(Failure {
            seed,
            violation,
            trace: sim.trace,
        }),
    }
}

impl Sim {
    fn new(seed: u64, options: Options) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let plan = Plan::draw(&options, &mut rng);
        let two = options.broken == Some(Broken::TwoLiars);
        let liars = plan.liars.iter().map(|n| (*n, Liar::new(*n, two)));
        let liars: BTreeMap<usize, Liar> = liars.collect();
        let nodes = (0..VALIDATORS).map(|n| Node::new(n, plan.skew_ms[n], options));
        let honest = (0..VALIDATORS).filter(|n| !liars.contains_key(n));
        let checker = Checker::new(honest);
        let mut sim = Self {
            now: 0,
            count: 0,
            queue: BTreeMap::new(),
            rng,
            options,
            nodes: nodes.collect(),
            checker,
            liars,
            cut: None,
            healed_at: None,
            to_say: plan.entries.len(),
            lost_mark: false,
            hasher: DefaultHasher::new(),
            summary: Summary::default(),
            trace: Vec::new(),
            plan,
        };
        sim.note(|| format!("seed {seed}"));
        for node in 0..VALIDATORS {
            sim.at(0, Event::On(node));
        }
        for (at, fault) in sim.plan.faults.clone() {
            sim.at(at, Event::Fault(fault));
        }
        for (at, node) in sim.plan.entries.clone() {
            sim.at(at, Event::Entry(node));
        }
        sim.at(sim.plan.healed_ms, Event::Heal);
        sim.at(sim.plan.healed_ms + PATIENCE_MS, Event::End);
        sim
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.queue.insert((at.max(self.now), self.count), event);
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.options.trace {
            self.trace.push(format!("{:>6} ms  {}", self.now, text()));
        }
    }

    fn go(&mut self) -> Result<(), Violation> {
        while let Some(((now, place), event)) = self.queue.pop_first() {
            self.now = now;
            self.summary.events += 1;
            (now, place).hash(&mut self.hasher);
            for node in &self.nodes {
                node.set_clock(now);
            }
            if matches!(event, Event::End) || self.summary.events > MAX_EVENTS {
                return self.unfinished();
            }
            self.happen(event)?;
            if self.is_done() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn honest(&self) -> impl Iterator<Item = &Node> {
        let liars = &self.liars;
        let nodes = self.nodes.iter();
        nodes.filter(|node| !liars.contains_key(&node.number))
    }

    fn is_done(&self) -> bool {
        let height = Some(self.checker.blocks.len() as u64);
        self.healed_at.is_some()
            && self.to_say == 0
            && self.checker.open_entries() == 0
            && self.honest().all(|node| node.height() == height)
    }

    fn unfinished(&self) -> Result<(), Violation> {
        let blocks = self.checker.blocks.len();
        let open = self.checker.open_entries();
        let heights: Vec<_> = self.honest().map(Node::height).collect();
        let moved = self.healed_at.is_some_and(|(_, before)| blocks > before);
        let together = self
            .honest()
            .all(|n| n.height().is_some_and(|h| h + 2 >= blocks as u64));
        let detail = format!("heads {heights:?}, {open} entries without a receipt");
        if moved && together && open > 0 {
            return broken(Invariant::Receipted, detail);
        }
        broken(Invariant::Progress, detail)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Deliver(from, to, packet) => self.deliver(from, to, packet),
            Event::Timer(node, boot, timer) => {
                self.with(node, Some(boot), |bare| bare.elapsed(timer))
            }
            Event::Tick(node, boot) => self.tick(node, boot),
            Event::Entry(node) => self.entry(node),
            Event::Fault(fault) => self.fault(fault),
            Event::Off(node, boot) => {
                if self.nodes[node].boot == boot {
                    lock(&self.nodes[node].disk).cut();
                    self.after(node)?;
                }
                Ok(())
            }
            Event::On(node) => self.start(node),
            Event::Heal => {
                self.note(|| "everything works again".into());
                self.cut = None;
                self.healed_at = Some((self.now, self.checker.blocks.len()));
                Ok(())
            }
            Event::End => Ok(()),
        }
    }

    fn start(&mut self, node: usize) -> Result<(), Violation> {
        if !self.liars.contains_key(&node) {
            let has = self.nodes[node].has();
            self.checker.restarted(node, &has)?;
        }
        let started = self.nodes[node].start();
        if self.options.broken == Some(Broken::LyingDisk) {
            lock(&self.nodes[node].disk).lies = true;
        }
        let boot = self.nodes[node].boot;
        self.note(|| format!("node {node} starts"));
        self.at(self.now + TICK_MS, Event::Tick(node, boot));
        self.ended(node, started);
        self.after(node)
    }

    fn ended(&mut self, node: usize, result: Result<(), RunError>) {
        let Err(error) = result else { return };
        if self.nodes[node].is_on() {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            self.note(|| format!("node {node} ends: {text}"));
            *self.summary.ended.entry(text).or_default() += 1;
            // Its supervisor starts it again.
            lock(&self.nodes[node].disk).cut();
        }
    }

    /// Does something with a running node, and everything that follows.
    pub(super) fn with(
        &mut self,
        node: usize,
        boot: Option<u64>,
        f: impl FnOnce(&mut Bare<SimHost, Outbox>) -> Result<(), RunError>,
    ) -> Result<(), Violation> {
        let place = &mut self.nodes[node];
        if boot.is_some_and(|boot| boot != place.boot) {
            return Ok(());
        }
        let Some(bare) = &mut place.bare else {
            return Ok(());
        };
        if self.liars.contains_key(&node) {
            let trick = Liar::next_trick(&mut self.rng);
            if let Some(host) = bare.host_mut() {
                host.trick = trick;
            }
        }
        let result = f(bare);
        self.ended(node, result);
        self.after(node)
    }

    /// What follows from a step of a node.
    pub(super) fn after(&mut self, node: usize) -> Result<(), Violation> {
        loop {
            for output in self.nodes[node].outputs() {
                self.output(node, output)?;
            }
            self.look_at_news(node)?;
            if !self.nodes[node].is_on() {
                self.power_off(node);
                return Ok(());
            }
            let Some(bare) = &mut self.nodes[node].bare else {
                return Ok(());
            };
            if !bare.is_idle() || !bare.host().is_some_and(SimHost::has_work) {
                return Ok(());
            }
            let result = bare.work();
            self.ended(node, result);
        }
    }

    fn look_at_news(&mut self, node: usize) -> Result<(), Violation> {
        let news = std::mem::take(&mut lock(&self.nodes[node].disk).news);
        for certificate in news {
            let height = certificate.height;
            let block = certificate.block;
            self.note(|| format!("node {node} has {block} final at height {height}"));
            if self.liars.contains_key(&node) {
                continue;
            }
            let pack = {
                let disk = lock(&self.nodes[node].disk);
                let block = disk.store.finals.get(height as usize - 1);
                block.map(|b| b.pack.clone()).unwrap_or_default()
            };
            self.checker.finalized(node, &certificate, &pack)?;
        }
        Ok(())
    }

    fn power_off(&mut self, node: usize) {
        self.count_refused(node);
        let bare = self.nodes[node].bare.take();
        if let Some(why) = bare.and_then(|mut b| b.host_mut()?.fatal.take()) {
            self.note(|| format!("node {node} can't go on: {why}"));
            *self.summary.ended.entry(why).or_default() += 1;
        }
        self.nodes[node].boot += 1;
        self.summary.cuts += 1;
        let loss = match self.plan.disorderly {
            _ if self.options.broken == Some(Broken::LyingDisk) => Loss::All,
            Some(n) if n == node => Loss::Any,
            _ => Loss::Prefix,
        };
        let deep = self.nodes[node].has().len() > 1;
        let mut disk = lock(&self.nodes[node].disk);
        disk.restore(loss, &mut self.rng);
        // Once a run, and where nobody lies: a node without its mark is one more that does not vote.
        let alone = self.plan.disorderly.is_none() && self.liars.is_empty();
        if alone && deep && !self.lost_mark && self.rng.random_ratio(1, 8) {
            self.lost_mark = true;
            disk.lose(Kept::Mark);
        }
        drop(disk);
        let off = match self.healed_at {
            Some(_) => 50,
            None => self.rng.random_range(50..MAX_OFF_MS),
        };
        let until = (self.now + off).min(self.plan.healed_ms.max(self.now + 50));
        self.note(|| format!("node {node} loses power until {until} ms"));
        self.at(until, Event::On(node));
    }

    fn count_refused(&mut self, node: usize) {
        let Some(host) = self.nodes[node].bare.as_ref().and_then(Bare::host) else {
            return;
        };
        if !self.liars.contains_key(&node) {
            for (rule, times) in &host.refused {
                *self.summary.refused.entry(rule).or_default() += times;
            }
        }
    }
}
