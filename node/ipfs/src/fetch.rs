//! Fetches a DAG from connected peers, block by block, trusting nobody.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cid::Cid;
use futures::stream::{FuturesUnordered, StreamExt};
use instar_chunks::block::RAW;
use instar_chunks::{BlockError, DagError, Limits, Walk};
use libp2p::PeerId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bitswap::Bitswap;
use crate::bitswap::wants::Answer;

/// Blocks asked for at a time. At the average chunk size that is 1.3 MB in flight, enough for a
/// slow line and for loopback.
const MAX_OUTSTANDING: usize = 32;

/// How long one peer may take for one block before another is asked as well.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Blocks that a peer may let wait so long before it counts as slow in reports. It is asked last from the first one on.
const MAX_SLOW: usize = 3;

/// Wait before everybody is asked again for a block that nobody had.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// How long the peers that are connected are asked alone, before the DHT is asked for others; and how long until it is
/// asked again while nothing comes.
const PEERS_FIRST: Duration = Duration::from_secs(1);
const SEEK_AGAIN: Duration = Duration::from_secs(10);

/// Fetched bytes that are made durable together.
const FLUSH_BYTES: usize = 4 * 1024 * 1024;

/// How far a fetch has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Distinct blocks that are there.
    pub blocks: usize,
    /// Distinct blocks known so far, there or not; grows until every node has been seen.
    pub known_blocks: usize,
    /// Bytes of the blocks that are there.
    pub bytes: u64,
}

/// How to fetch.
pub struct FetchOptions<'a> {
    /// What the DAG may cost.
    pub limits: Limits,
    /// The fetch fails when no new block has come for this long.
    pub stall: Duration,
    /// Leaves the raw leaves out: what comes is how the DAG is built, not its content.
    pub nodes_only: bool,
    /// Called after each block.
    pub progress: Option<&'a mut (dyn FnMut(Progress) + Send)>,
}

impl Default for FetchOptions<'_> {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            stall: Duration::from_secs(30),
            nodes_only: false,
            progress: None,
        }
    }
}

/// What a fetch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchReport {
    /// Distinct blocks of the DAG.
    pub blocks: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that were not there before.
    pub fetched_blocks: usize,
    /// Bytes of those.
    pub fetched_bytes: u64,
    /// Blocks by the peer that sent them.
    pub sources: HashMap<PeerId, usize>,
    /// Peers that sent something else than they were asked for, and what.
    pub refused: Vec<(PeerId, &'static str)>,
    /// Peers that let blocks wait too long again and again, and how many; they were asked last from then on.
    pub slow: Vec<(PeerId, usize)>,
}

/// Why a DAG couldn't be fetched. What had come stays in the store; a new fetch goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody gave a block in time.
    #[error(
        "block {missing} of {root} did not come within {waited:?}; {peers} peers are connected, {refused} refused"
    )]
    Stalled {
        /// The DAG.
        root: Cid,
        /// One of the blocks that were waited for.
        missing: Cid,
        /// How long.
        waited: Duration,
        /// Connected peers.
        peers: usize,
        /// Peers that lied.
        refused: usize,
    },
    /// The DAG is malformed or over a limit.
    #[error("the DAG {root} is refused")]
    Dag {
        /// The DAG.
        root: Cid,
        /// What is wrong with it.
        source: DagError,
    },
    /// The store failed.
    #[error("the block store failed while {root} was fetched")]
    Store {
        /// The DAG.
        root: Cid,
        /// How.
        source: BlockError,
    },
    /// The peer is shutting down.
    #[error("the peer is shutting down")]
    ShuttingDown,
}

/// What the wants of one fetch share.
struct Session {
    bitswap: Arc<Bitswap>,
    connected: watch::Receiver<Vec<PeerId>>,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    /// Wants outstanding with each peer, for sharing the load.
    load: HashMap<PeerId, usize>,
    /// Timeouts of each peer: the slow are asked last.
    slow: HashMap<PeerId, usize>,
    refused: Vec<(PeerId, &'static str)>,
}

impl Notes {
    fn slow(&self) -> Vec<(PeerId, usize)> {
        let mut slow: Vec<_> = self.slow.iter().map(|(peer, n)| (*peer, *n)).collect();
        slow.retain(|(_, times)| *times >= MAX_SLOW);
        slow.sort();
        slow
    }
}

impl Session {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The best connected peer that wasn't tried yet: not slow, then least busy.
    fn choose(&self, tried: &HashSet<PeerId>) -> Option<PeerId> {
        let connected = self.connected.borrow().clone();
        let notes = self.notes();
        connected
            .into_iter()
            .filter(|peer| !tried.contains(peer))
            .filter(|peer| notes.refused.iter().all(|(refused, _)| refused != peer))
            .min_by_key(|peer| {
                let slow = notes.slow.get(peer).copied().unwrap_or(0);
                let load = notes.load.get(peer).copied().unwrap_or(0);
                (slow, load)
            })
    }

    /// Gets one block from whoever has it. Never gives up; the caller watches for stalls.
    async fn want(&self, cid: Cid) -> (Cid, Arc<Vec<u8>>, PeerId) {
        let mut connected = self.connected.clone();
        let mut waiter = self.bitswap.wants.wait(cid);
        let mut tried = HashSet::new();
        loop {
            let Some(peer) = self.choose(&tried) else {
                // A late answer, a new peer, or time: whatever comes first.
                tokio::select! {
                    answer = waiter.answer() => {
                        if let Some(found) = self.judge(cid, answer, None) {
                            return found;
                        }
                    }
                    _ = connected.changed() => {}
                    () = tokio::time::sleep(RETRY_DELAY) => {}
                }
                tried.clear();
                continue;
            };
            tried.insert(peer);
            self.bitswap.wants.note_asked(peer, cid);
            *self.notes().load.entry(peer).or_default() += 1;
            let _busy = Busy(self, peer);
            if !self.bitswap.ask(peer, &[cid], false) {
                continue;
            }
            let deadline = Instant::now() + BLOCK_TIMEOUT;
            loop {
                match tokio::time::timeout_at(deadline, waiter.answer()).await {
                    Ok(answer) => {
                        let about = match &answer {
                            Answer::Block(from, _)
                            | Answer::DontHave(from)
                            | Answer::Lost(from, _) => *from,
                        };
                        if let Some(found) = self.judge(cid, answer, Some(peer)) {
                            return found;
                        }
                        if about == peer {
                            break;
                        }
                    }
                    Err(_) => {
                        *self.notes().slow.entry(peer).or_default() += 1;
                        self.bitswap.ask(peer, &[cid], true);
                        break;
                    }
                }
            }
        }
    }

    fn judge(
        &self,
        cid: Cid,
        answer: Answer,
        asked: Option<PeerId>,
    ) -> Option<(Cid, Arc<Vec<u8>>, PeerId)> {
        match answer {
            Answer::Block(from, data) => {
                if let Some(other) = asked.filter(|peer| *peer != from) {
                    self.bitswap.ask(other, &[cid], true);
                }
                return Some((cid, data, from));
            }
            Answer::Lost(peer, why) if !why.is_empty() => {
                let mut notes = self.notes();
                if notes.refused.iter().all(|(known, _)| *known != peer) {
                    notes.refused.push((peer, why));
                }
            }
            Answer::Lost(..) | Answer::DontHave(_) => {}
        }
        None
    }
}

/// Takes a want off a peer's load, however the want ends.
struct Busy<'a>(&'a Session, PeerId);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(load) = self.0.notes().load.get_mut(&self.1) {
            *load = load.saturating_sub(1);
        }
    }
}

/// Single blocks from connected peers, for those who mix them with other sources. Which peers were
/// slow or lied is remembered as long as this lives.
pub struct PeerSession(Session);

impl PeerSession {
    pub(crate) fn new(bitswap: &Arc<Bitswap>, connected: watch::Receiver<Vec<PeerId>>) -> Self {
        Self(Session {
            bitswap: Arc::clone(bitswap),
            connected,
            notes: Mutex::default(),
        })
    }

    /// The block, checked against its address, once a peer has sent it: wait a bounded time.
    pub async fn block(&self, cid: Cid) -> Vec<u8> {
        let (_, data, _) = self.0.want(cid).await;
        Arc::unwrap_or_clone(data)
    }

    /// How many peers are connected.
    pub fn peers(&self) -> usize {
        self.0.connected.borrow().len()
    }

    /// Peers that sent something else than they were asked for, or dawdled, and what they did.
    pub fn refused(&self) -> Vec<String> {
        let notes = self.0.notes();
        let lies = notes
            .refused
            .iter()
            .map(|(peer, why)| format!("{peer}: {why}"));
        let slow = notes.slow().into_iter().map(|(peer, times)| {
            format!("{peer}: too slow, {times} blocks did not come within {BLOCK_TIMEOUT:?}")
        });
        lies.chain(slow).collect()
    }
}

pub(crate) async fn fetch(
    bitswap: &Arc<Bitswap>,
    connected: watch::Receiver<Vec<PeerId>>,
    root: &Cid,
    mut options: FetchOptions<'_>,
) -> Result<FetchReport, FetchError> {
    let root = *root;
    let refused_dag = |source| FetchError::Dag { root, source };
    let _lease = bitswap.store.lease();
    let session = Session {
        bitswap: Arc::clone(bitswap),
        connected,
        notes: Mutex::default(),
    };
    let mut walk = Walk::new(&root, options.limits).map_err(refused_dag)?;
    let mut report = FetchReport::default();
    let mut wants = FuturesUnordered::new();
    let mut waiting: HashSet<Cid> = HashSet::new();
    let mut unsaved: Vec<(Cid, Vec<u8>)> = Vec::new();
    let mut unsaved_bytes = 0;
    let mut last_news = Instant::now();
    let mut sought: Option<Instant> = None;
    let mut done = 0;
    loop {
        while wants.len() < MAX_OUTSTANDING
            && let Some(cid) = walk.next_wanted()
        {
            if options.nodes_only && cid.codec() == RAW {
                continue;
            }
            match held(bitswap, root, cid).await? {
                Some(bytes) => {
                    walk.visit(&cid, &bytes).map_err(refused_dag)?;
                    done += 1;
                    last_news = Instant::now();
                }
                None => {
                    waiting.insert(cid);
                    wants.push(session.want(cid));
                }
            }
        }
        if wants.is_empty() {
            break;
        }
        let deadline = last_news + options.stall;
        let seek_at = match sought {
            Some(at) => (at + SEEK_AGAIN).max(last_news + PEERS_FIRST),
            None => last_news + PEERS_FIRST,
        };
        let came = tokio::time::timeout_at(deadline.min(seek_at), wants.next()).await;
        if came.is_err() && seek_at < deadline {
            // Who is found appears among the connected; nobody waits for the end of the lookup.
            drop(bitswap.seek(&root));
            sought = Some(Instant::now());
            continue;
        }
        let Ok(Some((cid, data, from))) = came else {
            // What came is worth keeping.
            save(bitswap, root, unsaved).await?;
            return Err(FetchError::Stalled {
                root,
                missing: waiting.iter().next().copied().unwrap_or(root),
                waited: options.stall,
                peers: session.connected.borrow().len(),
                refused: session.notes().refused.len(),
            });
        };
        last_news = Instant::now();
        waiting.remove(&cid);
        // `data` was hashed when it came: its address was computed from it.
        if let Err(source) = walk.visit(&cid, &data) {
            save(bitswap, root, unsaved).await?;
            return Err(refused_dag(source));
        }
        done += 1;
        report.fetched_blocks += 1;
        report.fetched_bytes += data.len() as u64;
        *report.sources.entry(from).or_default() += 1;
        unsaved_bytes += data.len();
        unsaved.push((cid, Arc::unwrap_or_clone(data)));
        if unsaved_bytes >= FLUSH_BYTES {
            unsaved_bytes = 0;
            save(bitswap, root, std::mem::take(&mut unsaved)).await?;
        }
        if let Some(progress) = &mut options.progress {
            progress(Progress {
                blocks: done,
                known_blocks: walk.blocks(),
                bytes: walk.bytes(),
            });
        }
    }
    drop(wants);
    save(bitswap, root, unsaved).await?;
    report.blocks = walk.blocks();
    report.bytes = walk.bytes();
    let mut notes = session.notes();
    report.refused = std::mem::take(&mut notes.refused);
    report.slow = notes.slow();
    drop(notes);
    Ok(report)
}

async fn held(bitswap: &Bitswap, root: Cid, cid: Cid) -> Result<Option<Vec<u8>>, FetchError> {
    let store = Arc::clone(&bitswap.store);
    match tokio::task::spawn_blocking(move || store.get(&cid)).await {
        Ok(Ok(found)) => Ok(found),
        // A copy that went bad is fetched again and replaced.
        Ok(Err(BlockError::Corrupt { .. })) => Ok(None),
        Ok(Err(source)) => Err(FetchError::Store { root, source }),
        Err(_) => Err(FetchError::ShuttingDown),
    }
}

async fn save(bitswap: &Bitswap, root: Cid, blocks: Vec<(Cid, Vec<u8>)>) -> Result<(), FetchError> {
    if blocks.is_empty() {
        return Ok(());
    }
    let store = Arc::clone(&bitswap.store);
    match tokio::task::spawn_blocking(move || store.put_many(&blocks)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(FetchError::Store { root, source }),
        Err(_) => Err(FetchError::ShuttingDown),
    }
}
