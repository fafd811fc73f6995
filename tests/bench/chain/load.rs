//! Load for benchmarks of a whole chain: entries that accounts sign, handed over at a steady rate or as fast as they become
//! final, and what a node counts meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use instar::client::Client;
use instar::demo::stage::Stage;
use instar::demo::traffic::account_key;
use instar::demo::{chain, wait};
use instar_attest::{ChainId, Digest};
use instar_ledger::{Entry, Outcome, ReceiptLine};
use serde_json::json;

/// Accounts that send.
pub const ACCOUNTS: usize = chain::FUNDED;
/// How long each part is measured.
pub const MEASURED: Duration = Duration::from_secs(20);
/// What comes before it, so that containers are warm and the chain is under way.
pub const WARM_UP: Duration = Duration::from_secs(5);
/// Entries under way at saturation: several full blocks.
const UNDER_WAY: u64 = 8_000;
/// Entries handed over in one call at saturation.
const BATCH: usize = 200;
/// Time between two entries of the slow part: fifty a second.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long the last entries may take.
const DRAIN: Duration = Duration::from_secs(60);

/// What was handed over and when, and what became final.
#[derive(Default)]
pub struct Book {
    sent: Mutex<HashMap<Digest, Instant>>,
    done: Mutex<Vec<(Instant, f64)>>,
    refused: AtomicU64,
    stop: AtomicBool,
}

impl Book {
    fn under_way(&self) -> u64 {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.len() as u64
    }

    /// Reads blocks as they become final, as any client could.
    fn watch(&self, client: &Client, mut height: u64) {
        while !self.stop.load(Ordering::Relaxed) {
            let path = format!("/v1/blocks/{height}?wait_ms=1000");
            let Ok(Some(block)) = client.find::<instar_node::api::types::BlockAnswer>(&path) else {
                continue;
            };
            let now = Instant::now();
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            for line in &block.receipts {
                let ReceiptLine::Entry(receipt) = line else {
                    continue;
                };
                let Some(at) = sent.remove(&receipt.entry) else {
                    continue;
                };
                if receipt.outcome != Outcome::Applied {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                done.push((now, now.duration_since(at).as_secs_f64() * 1e3));
            }
            height += 1;
        }
    }
}

/// One account's next entries, signed.
pub struct Signer {
    chain: ChainId,
    index: usize,
    nonce: u64,
}

/// The accounts that send, none of which has said anything yet.
pub fn signers(chain: ChainId) -> Vec<Signer> {
    (0..ACCOUNTS)
        .map(|index| Signer {
            chain,
            index,
            nonce: 0,
        })
        .collect()
}

impl Signer {
    pub fn next(&mut self, topic: &str) -> Entry {
        let to = account_key(ACCOUNTS + 1).public().to_hex();
        let body = json!({"op": "transfer", "to": to, "amount": "1"});
        let entry = Entry::sign(
            &self.chain,
            &account_key(self.index),
            self.nonce,
            topic,
            body,
        )
        .expect("a transfer is a small object of strings");
        self.nonce += 1;
        entry
    }
}

/// What one node has counted about itself so far: seconds by phase, and blocks.
#[derive(Default)]
pub struct Counted {
    seconds: BTreeMap<String, f64>,
    blocks: f64,
    at: Option<Instant>,
}

impl Counted {
    pub fn now(client: &Client) -> Self {
        let text = client.find_bytes("/metrics").expect("a node has metrics");
        let text = String::from_utf8(text.unwrap_or_default()).expect("they are text");
        let mut counted = Self {
            at: Some(Instant::now()),
            ..Self::default()
        };
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let value = value.parse().unwrap_or(0.0);
            if let Some(phase) = name.strip_prefix("instar_phase_seconds_total{phase=\"") {
                let phase = phase.trim_end_matches("\"}").to_owned();
                counted.seconds.insert(phase, value);
            } else if name == "instar_blocks_total" {
                counted.blocks = value;
            }
        }
        counted
    }

    /// What came since `before`: milliseconds of each phase for one block, and of all that was measured; the rest is
    /// consensus, the network, and waiting for a processor.
    pub fn since(&self, before: &Self) -> serde_json::Value {
        let blocks = (self.blocks - before.blocks).max(1.0);
        let each: BTreeMap<&String, f64> = self
            .seconds
            .iter()
            .map(|(phase, s)| {
                let spent = s - before.seconds.get(phase).copied().unwrap_or(0.0);
                (phase, (spent * 1e4 / blocks).round() / 10.0)
            })
            .collect();
        let wall = match (self.at, before.at) {
            (Some(now), Some(then)) => now.duration_since(then).as_secs_f64(),
            _ => 0.0,
        };
        let block = (wall * 1e4 / blocks).round() / 10.0;
        let known: f64 = each.values().sum();
        json!({"block": block, "phases": each, "rest": ((block - known) * 10.0).round() / 10.0})
    }
}

fn hand_over(book: &Book, client: &Client, entries: &[Entry]) {
    let now = Instant::now();
    {
        let mut sent = book.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.extend(entries.iter().map(|e| (e.id(), now)));
    }
    let lines: Vec<String> = entries.iter().map(Entry::to_line).collect();
    client
        .submit(&lines.join("\n"))
        .expect("a node takes entries while it has room");
}

/// Keeps the chain full for the measured time.
pub fn saturate(book: &Arc<Book>, stage: &Stage<'_>, signers: &mut [Signer], topic: &str) {
    let end = Instant::now() + WARM_UP + MEASURED;
    fill(book, stage, signers, topic, |_| Instant::now() < end);
}

/// Keeps the chain full while `more` says so of what was handed over. Each account uses one node, so that its nonces arrive
/// in order.
pub fn fill(
    book: &Arc<Book>,
    stage: &Stage<'_>,
    signers: &mut [Signer],
    topic: &str,
    more: impl Fn(u64) -> bool,
) {
    let mut turn = 0usize;
    while more((turn * BATCH) as u64) {
        if book.under_way() >= UNDER_WAY {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let signer = &mut signers[turn % ACCOUNTS];
        let client = &stage.clients[signer.index % stage.clients.len()];
        let entries: Vec<Entry> = (0..BATCH).map(|_| signer.next(topic)).collect();
        hand_over(book, client, &entries);
        turn += 1;
    }
}

pub fn trickle(book: &Arc<Book>, stage: &Stage<'_>, signers: &mut [Signer], topic: &str) {
    let end = Instant::now() + WARM_UP + MEASURED;
    let mut next = Instant::now();
    let mut turn = 0usize;
    while next < end {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += INTERVAL;
        let signer = &mut signers[turn % ACCOUNTS];
        let client = &stage.clients[signer.index % stage.clients.len()];
        let entry = signer.next(topic);
        hand_over(book, client, &[entry]);
        turn += 1;
    }
}

/// What one part came to.
pub struct Part {
    /// Milliseconds from an entry's hand-over to the block that made it final, of those that became so while measured.
    pub times: Vec<f64>,
    pub refused: u64,
    /// Of the first node, for one block.
    pub spent_ms: serde_json::Value,
}

pub fn part(
    stage: &Stage<'_>,
    signers: &mut [Signer],
    load: impl FnOnce(&Arc<Book>, &Stage<'_>, &mut [Signer], &str),
    topic: &str,
) -> Part {
    let book = Arc::new(Book::default());
    let height = stage.height().expect("the first node answers") + 1;
    let (watched, client) = (Arc::clone(&book), stage.clients[0].clone());
    let watcher = std::thread::spawn(move || watched.watch(&client, height));
    let start = Instant::now();
    let before = Counted::now(&stage.clients[0]);
    load(&book, stage, signers, topic);
    let spent_ms = Counted::now(&stage.clients[0]).since(&before);
    wait::until("the last entries becoming final", DRAIN, || {
        Ok((book.under_way() == 0).then_some(()))
    })
    .expect("every entry becomes final");
    book.stop.store(true, Ordering::Relaxed);
    watcher.join().expect("the watcher does not panic");
    let (from, to) = (start + WARM_UP, start + WARM_UP + MEASURED);
    let done = book.done.lock().unwrap_or_else(PoisonError::into_inner);
    let measured = done.iter().filter(|(at, _)| *at >= from && *at < to);
    Part {
        times: measured.map(|(_, ms)| *ms).collect(),
        refused: book.refused.load(Ordering::Relaxed),
        spent_ms,
    }
}
