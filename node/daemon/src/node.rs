//! One running node: the shared handle that the loops and the API hold.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instar_attest::{ChainId, Digest, SecretKey};
use instar_chunks::BlockStore;
use instar_consensus::WorkSignal;
use instar_ipfs::Peer;
use instar_ledger::{Entry, Outcome, ReceiptLine};
use instar_state::StateStore;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::types::{BlockAnswer, EntryAnswer, Label, Mother, ReceiptAnswer, Role, Status};
use crate::core::{Core, CoreError};
use crate::fresh::Known;
use crate::home::{Home, NodeConfig};
use crate::metrics::Metrics;
use crate::watchdog::Signs;

/// Entries that wait for the lane at most; past that the API says so.
pub(crate) const MAX_QUEUE: usize = 10_000;

/// A node's shared handle.
pub type Shared = Arc<Node>;

/// Why entries were not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full.
    #[error("{MAX_QUEUE} entries are waiting already")]
    Full,
    /// The node is going down.
    #[error("the node is stopping")]
    Stopping,
    /// The lane could not be written.
    #[error(transparent)]
    Core(#[from] CoreError),
}

/// A batch for the lane, and where to say that it is there.
pub(crate) struct Batch {
    pub entries: Vec<Entry>,
    pub done: oneshot::Sender<Result<(), CoreError>>,
}

/// What the upgrader says about this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Supervision {
    /// Root CID of the running release.
    pub release: Option<String>,
}

/// One running node.
pub struct Node {
    pub(crate) home: Home,
    pub(crate) config: NodeConfig,
    pub(crate) codename: String,
    pub(crate) token: String,
    pub(crate) chain: ChainId,
    pub(crate) core: Mutex<Core>,
    pub(crate) state: Arc<StateStore>,
    pub(crate) blocks: Arc<BlockStore>,
    pub(crate) snapshots: crate::snapshots::Snapshots,
    pub(crate) answers: crate::answers::Answers,
    pub(crate) git: instar_ledger::http::UploadPack,
    pub(crate) peer: Peer,
    pub(crate) work: WorkSignal,
    /// The height at which this process started.
    pub(crate) first_height: u64,
    pub(crate) height: watch::Sender<u64>,
    pub(crate) lane: mpsc::Sender<Batch>,
    pub(crate) supervision: Mutex<Supervision>,
    pub(crate) stop: watch::Sender<bool>,
    /// The consensus key: read once, since a sealed one takes a while.
    pub(crate) signer: SecretKey,
    /// How fresh this node is, if it follows.
    pub(crate) fresh: Known,
    /// Where the time goes.
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) signs: Signs,
}

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Node {
    /// The core, locked. Callers are on threads that may block.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        let core = self.core.lock().unwrap_or_else(|_| {
            // A panic while the core was being changed leaves it in a state that nobody can vouch for.
            eprintln!("fatal: a thread panicked while it changed the node's state; the process ends and starts again from disk");
            std::process::abort()
        });
        self.signs.core.fetch_add(1, Ordering::Relaxed);
        core
    }

    /// The newest final state.
    pub(crate) fn view(&self) -> Result<instar_state::View, CoreError> {
        Ok(self.state.view()?)
    }

    /// Runs `f` with the core on a thread that may block.
    pub(crate) async fn with_core<T: Send + 'static>(
        self: &Arc<Self>,
        f: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> T {
        let node = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || f(&mut node.core()));
        task.await
            .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    /// Height of the newest final block.
    pub fn height(&self) -> u64 {
        *self.height.borrow()
    }

    /// Appends entries to this node's lane; returns when they are durable there.
    pub(crate) async fn submit(&self, entries: Vec<Entry>) -> Result<(), SubmitError> {
        let (done, wait) = oneshot::channel();
        self.lane
            .try_send(Batch { entries, done })
            .map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => SubmitError::Full,
                mpsc::error::TrySendError::Closed(_) => SubmitError::Stopping,
            })?;
        wait.await
            .map_err(|_| SubmitError::Stopping)?
            .map_err(SubmitError::Core)
    }

    /// Signs a statement with the node's account and appends it; its id.
    pub(crate) async fn state_something(
        self: &Arc<Self>,
        topic: &str,
        body: Value,
    ) -> Result<Digest, SubmitError> {
        let topic = topic.to_owned();
        // Signed and appended under one lock, so that two statements never take the same nonce.
        let (id, message) = self
            .with_core(move |core| {
                let entry = core.sign_statement(&topic, body)?;
                let message = core.append(std::slice::from_ref(&entry), now_ms() / 1000)?;
                Ok::<_, CoreError>((entry.id(), message))
            })
            .await?;
        self.tell_peers(message).await;
        Ok(id)
    }

    /// Gossips a lane message and wakes consensus.
    pub(crate) async fn tell_peers(&self, message: Option<Vec<u8>>) {
        let Some(message) = message else { return };
        if let Err(e) = self.peer.publish(crate::gossip::LANES_TOPIC, &message) {
            // The message is sent again while the lane has an unmerged end.
            tracing::debug!(error = %e, "a lane message did not go out");
        }
        self.work.notify();
    }

    /// Asks again at each new height until `find` has something or the time is over.
    pub(crate) async fn wait_for<T, F>(
        &self,
        patience: Duration,
        find: impl Fn() -> F,
    ) -> Result<Option<T>, CoreError>
    where
        F: Future<Output = Result<Option<T>, CoreError>>,
    {
        let deadline = tokio::time::Instant::now() + patience;
        let mut heights = self.height.subscribe();
        loop {
            heights.borrow_and_update();
            if let Some(found) = find().await? {
                return Ok(Some(found));
            }
            match tokio::time::timeout_at(deadline, heights.changed()).await {
                Ok(Ok(())) => {}
                _ => return Ok(None),
            }
        }
    }

    /// A final block with the certificate that made it so.
    pub(crate) async fn read_block(
        self: &Arc<Self>,
        height: u64,
    ) -> Result<Option<BlockAnswer>, CoreError> {
        self.with_core(move |core| core.final_block(height)).await
    }

    /// The node's status.
    pub(crate) async fn status(self: &Arc<Self>) -> Result<Status, CoreError> {
        let (head, history_from, pending, nil, validates, (lane, quarantined), mother) = self
            .with_core(|core| {
                let (head, nil) = (core.head().clone(), core.nil_prevotes());
                let lanes = core.lanes_status()?;
                let (first, pending) = (core.first_height(), core.pending());
                let mother = core.ledger().genesis().fork.as_ref().map(|fork| Mother {
                    block: fork.block(),
                    chain: *fork.mother(),
                    height: fork.height(),
                });
                let validates = core.is_validator();
                Ok::<_, CoreError>((head, first, pending, nil, validates, lanes, mother))
            })
            .await?;
        let release = self
            .supervision
            .lock()
            .map(|s| s.release.clone())
            .unwrap_or_default();
        Ok(Status {
            name: self.config.name.clone(),
            fresh_ms: self
                .fresh
                .age()
                .filter(|_| !validates)
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            role: if validates {
                Role::Validator
            } else {
                Role::Follower
            },
            codename: self.codename.clone(),
            release,
            pid: std::process::id(),
            chain: self.chain,
            mother,
            height: head.height,
            head: head.block,
            time_ms: head.time_ms,
            history_from,
            states_from: self.state.floor()?,
            data_addresses: self
                .peer
                .addresses()
                .iter()
                .map(ToString::to_string)
                .collect(),
            data_peers: self.peer.connected().len(),
            lane,
            quarantined,
            pending,
            nil_prevotes: nil.0,
            last_nil_reason: nil.1,
        })
    }

    /// An entry's receipt on the trunk.
    pub(crate) async fn final_receipt(
        self: &Arc<Self>,
        id: Digest,
    ) -> Result<Option<ReceiptAnswer>, CoreError> {
        self.with_core(move |core| {
            let Some((height, position)) = core.index().find(&id)? else {
                return Ok(None);
            };
            let block = core.final_block(height)?;
            let lost = || {
                CoreError::Ledger(format!(
                    "entry {id} is indexed at height {height}, where the ledger has no receipt of it; delete index.redb, it is made again"
                ))
            };
            let block = match block {
                Some(block) => block,
                None if height < core.first_height() => {
                    return Err(CoreError::Before {
                        what: format!("entry {id}"),
                        height,
                        first: core.first_height(),
                    });
                }
                None => return Err(lost()),
            };
            let at = usize::try_from(position).map_err(|_| lost())?;
            match block.receipts.into_iter().nth(at) {
                Some(ReceiptLine::Entry(receipt)) => Ok(Some(ReceiptAnswer {
                    label: Label::Final,
                    height,
                    block: block.id,
                    receipt,
                })),
                _ => Err(lost()),
            }
        })
        .await
    }

    /// An entry that the trunk holds, with what the trunk says of it.
    pub(crate) async fn final_entry(
        self: &Arc<Self>,
        id: Digest,
    ) -> Result<Option<EntryAnswer>, CoreError> {
        let found = self.final_receipt(id).await?;
        // An entry that was carried while its dapp was left out can come again: it is not settled.
        Ok(found
            .filter(|a| a.receipt.outcome != Outcome::Unavailable)
            .map(|a| EntryAnswer {
                label: match a.receipt.outcome {
                    Outcome::Applied => Label::Final,
                    _ => Label::Conflicted,
                },
                lane: a.receipt.lane,
                seq: a.receipt.seq,
                height: Some(a.height),
                block: Some(a.block),
                receipt: Some(a.receipt),
            }))
    }

    /// Asks a dapp: from the provisional view where unmerged entries concern it, unless only what is final counts.
    pub(crate) async fn query(
        self: &Arc<Self>,
        dapp: String,
        question: Value,
        only_final: bool,
    ) -> Result<(Label, u64, Value), String> {
        self.with_core(move |core| {
            if !only_final
                && let Some(answer) = core.query_provisional(&dapp, question.clone(), now_ms())?
            {
                return Ok((Label::Pending, core.head().height, answer));
            }
            let (height, answer) = core.query(&dapp, question)?;
            Ok((Label::Final, height, answer))
        })
        .await
    }
}
