//! Frames on their way to peers: one queue and one writer a peer and protocol, bounded by bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::AsyncWriteExt;
use libp2p::PeerId;
use libp2p::swarm::{Stream, StreamProtocol};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::streams::{OpenError, Opener};
use crate::wire::write_frame;

/// What may wait for one peer and protocol. A peer that is slower than this gets nothing more
/// until it catches up.
pub const MAX_QUEUED_BYTES: usize = 32 * 1024 * 1024;

/// The queue counts in units, because a semaphore counts to 2^29 and small frames cost memory too.
const UNIT_BYTES: usize = 256;

/// How long a peer may take to accept a stream, and to take one frame.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// A frame is tried on this many streams before it is given up.
const MAX_TRIES: usize = 3;

struct Queued {
    frame: Arc<[u8]>,
    _budget: OwnedSemaphorePermit,
}

#[derive(Clone)]
struct Queue {
    frames: mpsc::UnboundedSender<Queued>,
    budget: Arc<Semaphore>,
}

/// The frame couldn't be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// More than [`MAX_QUEUED_BYTES`] wait already.
    #[error("the queue to the peer is full")]
    Full,
    /// The connection is gone.
    #[error("the peer is not connected")]
    Gone,
}

/// Sends frames of one protocol.
pub struct Outbox {
    protocol: StreamProtocol,
    opener: Opener,
    queues: Mutex<HashMap<PeerId, Queue>>,
}

impl Outbox {
    pub fn new(protocol: StreamProtocol, opener: Opener) -> Self {
        Self {
            protocol,
            opener,
            queues: Mutex::default(),
        }
    }

    /// Queues a frame if there is room.
    pub fn try_send(&self, peer: PeerId, frame: Arc<[u8]>) -> Result<(), SendError> {
        let queue = self.queue(peer);
        let budget = Arc::clone(&queue.budget)
            .try_acquire_many_owned(units(&frame))
            .map_err(|_| SendError::Full)?;
        Self::push(&queue, frame, budget)
    }

    /// Queues a frame, waiting for room.
    pub async fn send(&self, peer: PeerId, frame: Arc<[u8]>) -> Result<(), SendError> {
        let queue = self.queue(peer);
        let budget = Arc::clone(&queue.budget)
            .acquire_many_owned(units(&frame))
            .await
            .map_err(|_| SendError::Gone)?;
        Self::push(&queue, frame, budget)
    }

    /// Forgets what waits for a peer that is gone.
    pub fn drop_peer(&self, peer: &PeerId) {
        let queue = self.lock().remove(peer);
        if let Some(queue) = queue {
            queue.budget.close();
        }
    }

    fn push(
        queue: &Queue,
        frame: Arc<[u8]>,
        budget: OwnedSemaphorePermit,
    ) -> Result<(), SendError> {
        queue
            .frames
            .send(Queued {
                frame,
                _budget: budget,
            })
            .map_err(|_| SendError::Gone)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PeerId, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, peer: PeerId) -> Queue {
        let mut queues = self.lock();
        if let Some(queue) = queues.get(&peer)
            && !queue.frames.is_closed()
        {
            return queue.clone();
        }
        let (frames, waiting) = mpsc::unbounded_channel();
        let budget = Arc::new(Semaphore::new(MAX_QUEUED_BYTES / UNIT_BYTES));
        let queue = Queue { frames, budget };
        queues.insert(peer, queue.clone());
        tokio::spawn(write_all(
            self.opener.clone(),
            peer,
            self.protocol.clone(),
            waiting,
        ));
        queue
    }
}

fn units(frame: &[u8]) -> u32 {
    let units = (frame.len() / UNIT_BYTES + 1).min(MAX_QUEUED_BYTES / UNIT_BYTES);
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// Writes what is queued for one peer until the queue is dropped or the peer can't be reached.
async fn write_all(
    opener: Opener,
    peer: PeerId,
    protocol: StreamProtocol,
    mut waiting: mpsc::UnboundedReceiver<Queued>,
) {
    let mut stream: Option<Stream> = None;
    while let Some(queued) = waiting.recv().await {
        let mut tries = 0;
        loop {
            let last = waiting.is_empty();
            let wrote = tokio::time::timeout(WRITE_TIMEOUT, async {
                let open = match stream.take() {
                    Some(open) => open,
                    None => opener.open(peer, protocol.clone()).await?,
                };
                // Kept only if the frame went through: a broken stream is not used again.
                let mut open = open;
                write_frame(&mut open, &queued.frame)
                    .await
                    .map_err(|_| OpenError::Failed)?;
                if last {
                    open.flush().await.map_err(|_| OpenError::Failed)?;
                }
                Ok::<Stream, OpenError>(open)
            })
            .await
            .unwrap_or(Err(OpenError::Failed));
            tries += 1;
            match wrote {
                Ok(open) => {
                    stream = Some(open);
                    break;
                }
                Err(error @ (OpenError::NotConnected | OpenError::Unsupported)) => {
                    tracing::debug!(%peer, %protocol, %error, "nothing can be sent");
                    return;
                }
                Err(error) if tries == MAX_TRIES => {
                    tracing::warn!(%peer, %protocol, %error, "a frame was given up");
                    break;
                }
                Err(_) => {}
            }
        }
    }
}
