//! One simulated node: its disk, its clock, and the validator while the power is on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use instar_consensus::bare::{Bare, BareConfig, Kept, Output, Surroundings};
use instar_consensus::{Medium, RunError, Timeouts};
use instar_ledger::Oid;

use super::Options;
use super::disk::{DiskFile, Shared, lock};
use super::host::SimHost;
use super::world::{BEGIN_MS, VALIDATORS, World};

/// What a validator stands in.
pub struct Outbox {
    disk: Shared,
    out: Arc<Mutex<Vec<Output>>>,
}

impl Surroundings for Outbox {
    fn file(&mut self, kept: Kept) -> Box<dyn Medium> {
        Box::new(DiskFile::open(&self.disk, kept))
    }

    fn put(&mut self, output: Output) {
        // Nothing leaves a node whose power is off.
        if lock(&self.disk).is_on() {
            let out = self.out.lock();
            out.expect("nobody panics with the box in hand")
                .push(output);
        }
    }
}

/// One node.
pub struct Node {
    /// Its number.
    pub number: usize,
    /// Its disk.
    pub disk: Shared,
    /// The validator, while the power is on.
    pub bare: Option<Bare<SimHost, Outbox>>,
    /// How often it was started: timers of an earlier life are nobody's.
    pub boot: u64,
    /// The nonce of its client's next entry.
    pub nonce: u64,
    clock: Arc<AtomicU64>,
    skew_ms: i64,
    out: Arc<Mutex<Vec<Output>>>,
    options: Options,
}

impl Node {
    /// A node with an empty disk.
    pub fn new(number: usize, skew_ms: i64, options: Options) -> Self {
        Self {
            number,
            disk: Shared::default(),
            bare: None,
            boot: 0,
            nonce: 0,
            clock: Arc::default(),
            skew_ms,
            out: Arc::default(),
            options,
        }
    }

    /// Sets its clock; `now_ms` counts from the beginning of the run.
    pub fn set_clock(&self, now_ms: u64) {
        let now = (BEGIN_MS + 60_000 + now_ms).saturating_add_signed(self.skew_ms);
        self.clock.store(now, Ordering::Relaxed);
    }

    /// The final blocks on its disk.
    pub fn has(&self) -> Vec<Oid> {
        let disk = lock(&self.disk);
        let finals = disk.store.finals.iter();
        finals.map(|f| f.certificate.block).collect()
    }

    /// Starts it from what is on its disk.
    pub fn start(&mut self) -> Result<(), RunError> {
        let world = World::get();
        self.boot += 1;
        let host = SimHost::open(self.number, &self.disk, &self.clock, self.options);
        let peers = (0..VALIDATORS).filter(|n| *n != self.number);
        let peers: BTreeMap<_, _> = peers
            .map(|n| (n as u64, world.secrets[n].consensus.public()))
            .collect();
        let config = BareConfig {
            chain: world.chain,
            key: world.secrets[self.number].consensus.clone(),
            peer: self.number as u64,
            peers,
            timeouts: Timeouts::default(),
        };
        let outbox = Outbox {
            disk: Arc::clone(&self.disk),
            out: Arc::clone(&self.out),
        };
        self.bare = Some(Bare::start(config, host, outbox)?);
        Ok(())
    }

    /// What it wants to happen.
    pub fn outputs(&self) -> Vec<Output> {
        let out = self.out.lock();
        std::mem::take(&mut *out.expect("nobody panics with the box in hand"))
    }

    /// Whether its power is on.
    pub fn is_on(&self) -> bool {
        lock(&self.disk).is_on()
    }

    /// The height of its head, if it runs.
    pub fn height(&self) -> Option<u64> {
        let host = self.bare.as_ref()?.host()?;
        Some(host.head.height)
    }
}
