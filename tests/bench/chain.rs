//! Four validators on this machine, the coin in its container, transfers signed by a hundred accounts: how many are final a
//! second when the chain is full, and how long one takes at fifty a second.
//!
//! Everything shares this machine's processors: the load, four nodes, their containers. The last line is JSON.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use instar::client::Client;
use instar::demo::stage::{Setup, Stage};
use instar::demo::traffic::{account_key, quantile};
use instar::demo::{Talk, chain, wait};
use instar_attest::{ChainId, Digest};
use instar_ledger::{Entry, Outcome, ReceiptLine};
use serde_json::json;

/// Accounts that send.
const ACCOUNTS: usize = chain::FUNDED;
/// How long each part is measured.
const MEASURED: Duration = Duration::from_secs(20);
/// What comes before it, so that containers are warm and the chain is under way.
const WARM_UP: Duration = Duration::from_secs(5);
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
struct Book {
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

/// One account's next transfers, signed.
struct Signer {
    chain: ChainId,
    index: usize,
    nonce: u64,
}

impl Signer {
    fn next(&mut self) -> Entry {
        let to = account_key(ACCOUNTS + 1).public().to_hex();
        let body = json!({"op": "transfer", "to": to, "amount": "1"});
        let entry = Entry::sign(
            &self.chain,
            &account_key(self.index),
            self.nonce,
            "coin",
            body,
        )
        .expect("a transfer is a small object of strings");
        self.nonce += 1;
        entry
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

/// Keeps the chain full. Each account uses one node, so that its nonces arrive in order.
fn saturate(book: &Arc<Book>, stage: &Stage<'_>, signers: &mut [Signer]) {
    let end = Instant::now() + WARM_UP + MEASURED;
    let mut turn = 0usize;
    while Instant::now() < end {
        if book.under_way() >= UNDER_WAY {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let signer = &mut signers[turn % ACCOUNTS];
        let client = &stage.clients[signer.index % stage.clients.len()];
        let entries: Vec<Entry> = (0..BATCH).map(|_| signer.next()).collect();
        hand_over(book, client, &entries);
        turn += 1;
    }
}

fn trickle(book: &Arc<Book>, stage: &Stage<'_>, signers: &mut [Signer]) {
    let end = Instant::now() + WARM_UP + MEASURED;
    let mut next = Instant::now();
    let mut turn = 0usize;
    while next < end {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += INTERVAL;
        let signer = &mut signers[turn % ACCOUNTS];
        let client = &stage.clients[signer.index % stage.clients.len()];
        let entry = signer.next();
        hand_over(book, client, &[entry]);
        turn += 1;
    }
}

/// Runs one part and returns when and after how long each entry of the measured time became final.
fn part(
    stage: &Stage<'_>,
    signers: &mut [Signer],
    load: fn(&Arc<Book>, &Stage<'_>, &mut [Signer]),
) -> (Vec<(Instant, f64)>, u64) {
    let book = Arc::new(Book::default());
    let height = stage.height().expect("the first node answers") + 1;
    let (watched, client) = (Arc::clone(&book), stage.clients[0].clone());
    let watcher = std::thread::spawn(move || watched.watch(&client, height));
    let start = Instant::now();
    load(&book, stage, signers);
    wait::until("the last entries becoming final", DRAIN, || {
        Ok((book.under_way() == 0).then_some(()))
    })
    .expect("every entry becomes final");
    book.stop.store(true, Ordering::Relaxed);
    watcher.join().expect("the watcher does not panic");
    let (from, to) = (start + WARM_UP, start + WARM_UP + MEASURED);
    let done = book.done.lock().unwrap_or_else(PoisonError::into_inner);
    let measured = done
        .iter()
        .copied()
        .filter(|(at, _)| *at >= from && *at < to);
    (measured.collect(), book.refused.load(Ordering::Relaxed))
}

fn main() {
    instar_sandbox::init();
    let home = tempfile::tempdir().expect("a temporary folder");
    let home = home.path().canonicalize().expect("it is there");
    let talk = Talk::default();
    let setup = Setup {
        program: &instar_tests::instar(),
        home: &home,
        policy: chain::policy(false),
        accounts: chain::FUNDED,
        outlive: false,
        checkout: None,
    };
    let stage = Stage::found(&talk, &setup).expect("a chain of four");
    let mut signers: Vec<Signer> = (0..ACCOUNTS)
        .map(|index| Signer {
            chain: stage.chain,
            index,
            nonce: 0,
        })
        .collect();
    talk.title("Fifty entries a second");
    let (slow, slow_refused) = part(&stage, &mut signers, trickle);
    let times: Vec<f64> = slow.iter().map(|(_, ms)| *ms).collect();
    talk.title("As many as the chain takes");
    let before = stage.height().expect("the first node answers");
    let (full, full_refused) = part(&stage, &mut signers, saturate);
    let blocks = stage.height().expect("the first node answers") - before;
    let per_second = full.len() as f64 / MEASURED.as_secs_f64();
    let full_times: Vec<f64> = full.iter().map(|(_, ms)| *ms).collect();
    println!(
        "{}",
        json!({
            "accounts": ACCOUNTS,
            "topic": "coin, in its container",
            "final_ms_p50": quantile(&times, 0.5).round(),
            "final_ms_p99": quantile(&times, 0.99).round(),
            "entries_at_50": slow.len(),
            "final_per_second": per_second.round(),
            "saturated_ms_p50": quantile(&full_times, 0.5).round(),
            "saturated_blocks": blocks,
            "rejected": slow_refused + full_refused,
        })
    );
}
