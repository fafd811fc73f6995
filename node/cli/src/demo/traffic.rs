//! A client that sends signed transfers at a steady rate and records when it saw each become final.
//!
//! It behaves as a careful client should: every account uses one node, keeps its nonces in order, and hands the very
//! same signed entries to another node when the first stays silent. An entry has one effect however often it is sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use instar_attest::{ChainId, Digest, PublicKey, SecretKey};
use instar_ledger::{Entry, Outcome, ReceiptLine};
use serde_json::json;

use super::chain::FUNDED;
use crate::client::Client;

/// Accounts that send; each waits for nobody else.
const ACCOUNTS: usize = 8;
/// Time between two transfers.
pub const INTERVAL: Duration = Duration::from_millis(50);
/// Time between two transfers of a story that goes on for hours: the auditor checks each of its lane commits.
pub const SLOW_INTERVAL: Duration = Duration::from_millis(500);
/// After this long without a final receipt the account's entries are handed to the next node.
const PATIENCE: Duration = Duration::from_secs(2);
/// Entries that an account may have under way; past that it waits, so that a stalled chain isn't buried.
const MAX_UNDER_WAY: usize = 200;
/// Every so many transfers the client names the memo field, once the dapp knows it.
const MEMO_EVERY: u64 = 10;

/// One account of the demo's client.
pub fn account_key(index: usize) -> SecretKey {
    let seed = Digest::tagged("instar/demo-account", &(index as u64).to_be_bytes());
    SecretKey::from_seed(seed.as_bytes())
}

struct Pending {
    id: Digest,
    line: String,
    sent: Instant,
    handed: Instant,
}

struct Account {
    key: SecretKey,
    nonce: u64,
    node: usize,
    under_way: VecDeque<Pending>,
}

/// What the client saw so far.
#[derive(Default, Clone)]
pub struct Seen {
    /// Transfers signed and handed over.
    pub sent: u64,
    /// Transfers whose receipt says applied.
    pub applied: u64,
    /// Transfers refused by the dapp or the chain, by rule.
    pub rejected: BTreeMap<String, u64>,
    /// Milliseconds from sending to having seen the final block.
    pub final_ms: Vec<f64>,
    /// When blocks with transfers of ours were seen final, and at which height.
    pub finals: Vec<(Instant, u64)>,
    /// The first transfer whose memo came back in its receipt.
    pub memo: Option<(Digest, u64)>,
}

struct Shared {
    stop_sending: AtomicBool,
    stop: AtomicBool,
    memo: AtomicBool,
    accounts: Mutex<Vec<Account>>,
    seen: Mutex<Seen>,
    chain: ChainId,
    clients: Vec<Client>,
    interval: Duration,
}

/// The running client.
pub struct Traffic {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<()>>,
    watcher: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Starts sending to `clients`, a transfer every `interval`, and watching from `height` on.
    pub fn start(
        chain: ChainId,
        clients: Vec<Client>,
        height: u64,
        interval: Duration,
    ) -> Result<Self> {
        let accounts = (0..ACCOUNTS)
            .map(|i| {
                let key = account_key(i);
                Ok(Account {
                    nonce: clients[0].account(&key.public())?.nonce,
                    key,
                    node: i % clients.len(),
                    under_way: VecDeque::new(),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let shared = Arc::new(Shared {
            stop_sending: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            memo: AtomicBool::new(false),
            accounts: Mutex::new(accounts),
            seen: Mutex::new(Seen::default()),
            chain,
            clients,
            interval,
        });
        let for_sender = Arc::clone(&shared);
        let for_watcher = Arc::clone(&shared);
        Ok(Self {
            shared,
            sender: Some(std::thread::spawn(move || for_sender.send_loop())),
            watcher: Some(std::thread::spawn(move || {
                for_watcher.watch_loop(height + 1)
            })),
        })
    }

    /// From now on every tenth transfer carries a memo.
    pub fn use_memo(&self) {
        self.shared.memo.store(true, Ordering::Relaxed);
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.shared
            .seen
            .lock()
            .expect("no thread panics while holding it")
            .clone()
    }

    /// Stops sending, waits until everything sent is final or rejected, and returns what was seen.
    pub fn finish(mut self, patience: Duration) -> Result<Seen> {
        self.shared.stop_sending.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            sender
                .join()
                .map_err(|_| anyhow!("the sending thread panicked"))?;
        }
        let start = Instant::now();
        loop {
            let left = self.under_way();
            if left == 0 {
                break;
            }
            if start.elapsed() > patience {
                return Err(anyhow!(
                    "{left} transfers are neither final nor rejected after {} s",
                    patience.as_secs()
                ));
            }
            self.shared.hand_over_again();
            std::thread::sleep(INTERVAL);
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            watcher
                .join()
                .map_err(|_| anyhow!("the watching thread panicked"))?;
        }
        Ok(self.seen())
    }

    fn under_way(&self) -> usize {
        let accounts = self
            .shared
            .accounts
            .lock()
            .expect("no thread panics while holding it");
        accounts.iter().map(|a| a.under_way.len()).sum()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop_sending.store(true, Ordering::Relaxed);
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn send_loop(&self) {
        let recipient: PublicKey = account_key(FUNDED).public();
        let mut turn = 0u64;
        let mut next = Instant::now();
        while !self.stop_sending.load(Ordering::Relaxed) {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            next += self.interval;
            let index = usize::try_from(turn % ACCOUNTS as u64).expect("less than ACCOUNTS");
            let mut body = json!({"op": "transfer", "to": recipient.to_hex(), "amount": "1"});
            if self.memo.load(Ordering::Relaxed) && turn.is_multiple_of(MEMO_EVERY) {
                body["memo"] = json!(format!("transfer {turn}"));
            }
            turn += 1;
            self.send(index, body);
            self.hand_over_again();
        }
    }

    fn send(&self, index: usize, body: serde_json::Value) {
        let (line, node) = {
            let mut accounts = self
                .accounts
                .lock()
                .expect("no thread panics while holding it");
            let account = &mut accounts[index];
            if account.under_way.len() >= MAX_UNDER_WAY {
                return;
            }
            let entry = Entry::sign(&self.chain, &account.key, account.nonce, "coin", body)
                .expect("a transfer is a small object of strings");
            account.nonce += 1;
            let line = entry.to_line();
            let now = Instant::now();
            account.under_way.push_back(Pending {
                id: entry.id(),
                line: line.clone(),
                sent: now,
                handed: now,
            });
            (line, account.node)
        };
        self.seen
            .lock()
            .expect("no thread panics while holding it")
            .sent += 1;
        // A node that is down is met by `hand_over_again`.
        let _ = self.clients[node].submit(&line);
    }

    /// Accounts whose oldest entry got no answer move to the next node with everything they have under way.
    fn hand_over_again(&self) {
        let mut again = Vec::new();
        {
            let mut accounts = self
                .accounts
                .lock()
                .expect("no thread panics while holding it");
            for account in accounts.iter_mut() {
                if account
                    .under_way
                    .front()
                    .is_some_and(|p| p.handed.elapsed() > PATIENCE)
                {
                    account.node = (account.node + 1) % self.clients.len();
                    let lines: Vec<String> =
                        account.under_way.iter().map(|p| p.line.clone()).collect();
                    account
                        .under_way
                        .iter_mut()
                        .for_each(|p| p.handed = Instant::now());
                    again.push((account.node, lines.join("\n")));
                }
            }
        }
        for (node, lines) in again {
            let _ = self.clients[node].submit(&lines);
        }
    }

    fn watch_loop(&self, mut height: u64) {
        let mut node = 0;
        while !self.stop.load(Ordering::Relaxed) {
            match self.clients[node].find::<instar_node::api::types::BlockAnswer>(&format!(
                "/v1/blocks/{height}?wait_ms=1000"
            )) {
                Ok(Some(block)) => {
                    self.note(&block);
                    height += 1;
                }
                // Nothing new, or the node is gone: another one may know more.
                Ok(None) => node = (node + 1) % self.clients.len(),
                Err(_) => {
                    node = (node + 1) % self.clients.len();
                    std::thread::sleep(INTERVAL);
                }
            }
        }
    }

    fn note(&self, block: &instar_node::api::types::BlockAnswer) {
        let now = Instant::now();
        let mut accounts = self
            .accounts
            .lock()
            .expect("no thread panics while holding it");
        let mut seen = self.seen.lock().expect("no thread panics while holding it");
        let mut ours = false;
        for line in &block.receipts {
            let ReceiptLine::Entry(receipt) = line else {
                continue;
            };
            // A copy that came too early or too late has no effect; the entry itself is still under way or done.
            if receipt
                .rule
                .as_deref()
                .is_some_and(|r| r.starts_with("nonce-"))
                || receipt.outcome == Outcome::Unavailable
            {
                continue;
            }
            for account in accounts.iter_mut() {
                let Some(at) = account.under_way.iter().position(|p| p.id == receipt.entry) else {
                    continue;
                };
                let pending = account
                    .under_way
                    .remove(at)
                    .expect("the position was just found");
                ours = true;
                seen.final_ms
                    .push(pending.sent.elapsed().as_secs_f64() * 1e3);
                if receipt.outcome == Outcome::Applied {
                    seen.applied += 1;
                    let memo = receipt
                        .output
                        .as_ref()
                        .and_then(|o| o.get("memo"))
                        .is_some_and(|m| m.is_string());
                    if memo && seen.memo.is_none() {
                        seen.memo = Some((receipt.entry, block.header.height));
                    }
                } else {
                    *seen
                        .rejected
                        .entry(receipt.rule.clone().unwrap_or_default())
                        .or_default() += 1;
                }
            }
        }
        if ours {
            seen.finals.push((now, block.header.height));
        }
    }
}

/// The `q`-quantile of `values`, by nearest rank; zero when there are none.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return 0.0;
    }
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}
