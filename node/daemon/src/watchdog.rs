//! The watchdog: ends a node that is stuck, with the reason, so that it starts again from disk.
//!
//! It runs on a thread of its own, since what it watches may be what every other thread waits for. What is stuck is
//! decided by [`Judge`], which is pure; a node that merely lacks a quorum, or has nothing to do, is not.

mod judge;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use instar_consensus::Event;
use tokio::sync::mpsc;

use crate::node::{Node, Shared};

pub use judge::{Judge, Seen, Stuck};

/// How a node that was stuck ends: what BSD's sysexits call a temporary failure. Its supervisor starts it again.
pub const EXIT_STUCK: i32 = 75;
/// How long something may stand still unless `node.json` says otherwise, in seconds. Three of the slowest merge tests fit,
/// and it is well over a minute, after which the upgrader takes a restart for the first one again.
pub const DEFAULT_STUCK_S: u64 = 180;
/// How often the watchdog looks.
const LOOK: Duration = Duration::from_secs(1);
/// How often the loops' runtime shows that it runs.
const TURN: Duration = Duration::from_millis(500);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Events of consensus that wait to be counted.
pub(crate) const MAX_EVENTS: usize = 256;

/// What the parts of a node leave for the watchdog to see.
#[derive(Debug, Default)]
pub struct Signs {
    /// Turns of the loops' runtime.
    runtime: AtomicU64,
    /// Times that the core was taken.
    pub(crate) core: AtomicU64,
    /// Answers of the engine.
    engine: AtomicU64,
    /// Whether an engine runs.
    engine_runs: AtomicBool,
    /// Whether a quorum is connected.
    quorum: AtomicBool,
    /// Whether there is something for a block to do.
    pub(crate) work: AtomicBool,
}

impl Signs {
    /// The engine begins.
    pub(crate) fn engine_begins(&self) {
        self.engine_runs.store(true, Ordering::Relaxed);
    }

    fn seen(&self, node: &Node, at_ms: u64) -> Seen {
        // Only whether it is held counts; that a thread panicked with it is noticed elsewhere.
        let core_held = matches!(node.core.try_lock(), Err(TryLockError::WouldBlock));
        Seen {
            at_ms,
            runtime: self.runtime.load(Ordering::Relaxed),
            core_held,
            core: self.core.load(Ordering::Relaxed),
            engine_runs: self.engine_runs.load(Ordering::Relaxed),
            engine: self.engine.load(Ordering::Relaxed),
            height: node.height(),
            work: self.work.load(Ordering::Relaxed),
            quorum: self.quorum.load(Ordering::Relaxed),
        }
    }
}

/// Counts the engine's signs of life.
pub(crate) async fn count(node: Shared, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        if let Event::Alive { quorum } = event {
            node.signs.engine.fetch_add(1, Ordering::Relaxed);
            node.signs.quorum.store(quorum, Ordering::Relaxed);
        }
    }
}

/// Shows that the loops' runtime runs.
pub(crate) async fn turn(node: Shared) {
    let mut tick = tokio::time::interval(TURN);
    loop {
        tick.tick().await;
        node.signs.runtime.fetch_add(1, Ordering::Relaxed);
    }
}

/// Says why, if that is possible: a thread may be stuck with standard error in its hands.
fn say(text: String) {
    let said = thread::spawn(move || eprintln!("{text}"));
    let end = Instant::now() + LAST_WORDS;
    while !said.is_finished() && Instant::now() < end {
        thread::sleep(LAST_WORDS / 100);
    }
}

/// Watches a node until its process ends. Nothing is watched where `node.json` says 0 seconds.
pub(crate) fn watch(node: &Shared) -> io::Result<()> {
    let limit_ms = node.config.stuck_after_s.saturating_mul(1000);
    if limit_ms == 0 {
        return Ok(());
    }
    let node = Arc::clone(node);
    let watch = move || {
        let begin = Instant::now();
        let mut judge = Judge::new(limit_ms);
        loop {
            thread::sleep(LOOK);
            let at_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            if let Some(stuck) = judge.look(&node.signs.seen(&node, at_ms)) {
                say(format!(
                    "fatal: the node is stuck: {stuck}; the process ends with code {EXIT_STUCK} and starts again from disk"
                ));
                std::process::exit(EXIT_STUCK)
            }
        }
    };
    thread::Builder::new()
        .name("watchdog".into())
        .spawn(watch)
        .map(drop)
}
