//! `/instar/delta/1`: "I have this and want that", asked of one peer on a stream of its own.
//!
//! What comes is an opaque object, taken up to a size that the asker chose and no slower than a named pace. It proves
//! nothing: whoever applies it believes only the content address that comes out. What a delta is, and how one is made,
//! this room doesn't know; whoever starts the peer hands it a [`Deltas`].

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use cid::Cid;
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::PeerId;
use libp2p::swarm::{Stream, StreamProtocol};
use prost::Message as _;
use tokio::sync::Semaphore;

use crate::streams::{OpenError, Opener};
use crate::wire::delta::{Answer, Kind, MAX_FRAME_BYTES, Question};
use crate::wire::{Frames, read_body, read_length, write_frame};

#[cfg(test)]
mod hostile;

pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/instar/delta/1");

/// Bytes that are read from disk, written and waited for at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// How long a piece may take, in either direction: 3 kB a second, which the slowest lines have.
pub const PIECE_PATIENCE: Duration = Duration::from_secs(20);
/// How long a peer may think before it says what it has; it looks into a folder.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Deltas that are sent at a time. Each holds a file and one piece.
const MAX_SENDING: usize = 8;

/// What a node says to the question for a delta.
#[derive(Debug)]
pub enum Found {
    /// There is none, and none will be made.
    None,
    /// It is being made, or waits for that: ask again.
    Making,
    /// It has so many bytes.
    Here(File, u64),
}

/// Where a node's deltas come from.
pub trait Deltas: Send + Sync {
    /// The delta from `have` to `want`. With `make` one may be made for later. Must not wait.
    fn find(&self, have: &Cid, want: &Cid, make: bool) -> Found;
}

/// What a peer answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It has none.
    None,
    /// It is being made: ask again.
    Making,
    /// It has one of so many bytes, more than were asked for.
    Larger(u64),
    /// So many bytes came, and lie in the file.
    Got(u64),
}

/// Why a peer gave no delta.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no stream to it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It went silent, or dawdles.
    #[error("it sent less than {PIECE_BYTES} bytes in {0:?}")]
    Stalled(Duration),
    /// The stream broke off, or says what the protocol doesn't.
    #[error("its answer broke off")]
    Broken(#[source] io::Error),
    /// It wants to send more than it was asked for.
    #[error("it announces {bytes} bytes where at most {max} were asked for")]
    TooLong {
        /// What it announces.
        bytes: u64,
        /// What was asked for.
        max: u64,
    },
    /// The delta couldn't be written down here.
    #[error("the delta can't be kept")]
    Keep(#[source] io::Error),
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// What is here.
    pub have: Cid,
    /// What is wanted.
    pub want: Cid,
    /// Most bytes of delta; 0 to learn the size alone.
    pub max_bytes: u64,
    /// Whether one may be made, if there is none.
    pub make: bool,
    /// How long a piece may take.
    pub patience: Duration,
}

/// Both sides of the protocol.
pub(crate) struct DeltaExchange {
    opener: Opener,
    deltas: OnceLock<Arc<dyn Deltas>>,
    turns: Arc<Semaphore>,
    busy: Mutex<HashSet<PeerId>>,
}

impl DeltaExchange {
    pub fn new(opener: Opener) -> Self {
        Self {
            opener,
            deltas: OnceLock::new(),
            turns: Arc::new(Semaphore::new(MAX_SENDING)),
            busy: Mutex::default(),
        }
    }

    /// From now on answers come from `deltas`; the first who says so counts.
    pub fn offer(&self, deltas: Arc<dyn Deltas>) {
        let _ = self.deltas.set(deltas);
    }

    /// Answers one question; the stream carries no second one.
    pub async fn answer(self: Arc<Self>, peer: PeerId, mut frames: Frames<Stream>) {
        let question = match frames.next(MAX_FRAME_BYTES).await {
            Ok(Some(frame)) => Question::decode(frame.bytes.as_slice()),
            _ => return,
        };
        let Some(question) = question.ok().and_then(|q| Parsed::of(&q)) else {
            tracing::debug!(%peer, "not a question for a delta");
            return;
        };
        let mut stream = frames.into_stream();
        let sent = async {
            let found = self.find(question).await;
            let (kind, bytes) = match &found {
                Found::None => (Kind::None, 0),
                Found::Making => (Kind::Making, 0),
                Found::Here(_, bytes) if *bytes > question.max_bytes => (Kind::Larger, *bytes),
                Found::Here(_, bytes) => (Kind::Here, *bytes),
            };
            // Who gets no turn is told that there is none: it takes the blocks instead.
            let turn = match kind {
                Kind::Here => self.turn(peer),
                _ => None,
            };
            let (kind, bytes) = match kind {
                Kind::Here if turn.is_none() => (Kind::None, 0),
                kind => (kind, bytes),
            };
            let head = Answer {
                kind: kind as i32,
                bytes,
            };
            within(PIECE_PATIENCE, async {
                write_frame(&mut stream, &head.encode_to_vec()).await?;
                stream.flush().await
            })
            .await?;
            if let (Found::Here(file, bytes), Kind::Here) = (found, kind) {
                send(&mut stream, file, bytes).await?;
            }
            within(PIECE_PATIENCE, stream.close()).await
        };
        if let Err(error) = sent.await {
            tracing::debug!(%peer, %error, "a delta was not sent");
        }
    }

    async fn find(&self, question: Parsed) -> Found {
        let Some(deltas) = self.deltas.get().cloned() else {
            return Found::None;
        };
        let Parsed {
            have, want, make, ..
        } = question;
        // It opens a file.
        tokio::task::spawn_blocking(move || deltas.find(&have, &want, make))
            .await
            .unwrap_or(Found::None)
    }

    /// One delta a peer, and a bounded number in all.
    fn turn(&self, peer: PeerId) -> Option<Turn<'_>> {
        let permit = Arc::clone(&self.turns).try_acquire_owned().ok()?;
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(peer).then(|| Turn {
            exchange: self,
            peer,
            _permit: permit,
        })
    }

    /// Asks `peer`; the delta, if it comes, is written to `into` from its start on.
    pub async fn ask(&self, peer: PeerId, ask: Ask, into: &File) -> Result<Asked, AskError> {
        let opened = self.opener.open(peer, PROTOCOL);
        let mut stream = timely(ANSWER_PATIENCE, opened).await??;
        let question = Question {
            have: ask.have.to_bytes(),
            want: ask.want.to_bytes(),
            max_bytes: ask.max_bytes,
            make: ask.make,
        };
        let head = timely(ANSWER_PATIENCE, async {
            write_frame(&mut stream, &question.encode_to_vec()).await?;
            stream.flush().await?;
            let length = read_length(&mut stream, MAX_FRAME_BYTES).await?;
            let length = length.ok_or(io::ErrorKind::UnexpectedEof)?;
            read_body(&mut stream, length).await
        });
        let head = head.await?.map_err(AskError::Broken)?;
        let answer = Answer::decode(head.as_slice())
            .map_err(|e| AskError::Broken(io::Error::new(io::ErrorKind::InvalidData, e)))?;
        match Kind::try_from(answer.kind) {
            Ok(Kind::None) => Ok(Asked::None),
            Ok(Kind::Making) => Ok(Asked::Making),
            Ok(Kind::Larger) => Ok(Asked::Larger(answer.bytes)),
            Ok(Kind::Here) if answer.bytes > ask.max_bytes => Err(AskError::TooLong {
                bytes: answer.bytes,
                max: ask.max_bytes,
            }),
            Ok(Kind::Here) => {
                receive(&mut stream, into, answer.bytes, ask.patience).await?;
                Ok(Asked::Got(answer.bytes))
            }
            Err(_) => Err(AskError::Broken(io::ErrorKind::InvalidData.into())),
        }
    }
}

struct Turn<'a> {
    exchange: &'a DeltaExchange,
    peer: PeerId,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let busy = &self.exchange.busy;
        busy.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.peer);
    }
}

#[derive(Clone, Copy)]
struct Parsed {
    have: Cid,
    want: Cid,
    max_bytes: u64,
    make: bool,
}

impl Parsed {
    fn of(question: &Question) -> Option<Self> {
        Some(Self {
            have: Cid::try_from(question.have.as_slice()).ok()?,
            want: Cid::try_from(question.want.as_slice()).ok()?,
            max_bytes: question.max_bytes,
            make: question.make,
        })
    }
}

async fn within<T>(patience: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(patience, what)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn timely<T>(patience: Duration, what: impl Future<Output = T>) -> Result<T, AskError> {
    tokio::time::timeout(patience, what)
        .await
        .map_err(|_| AskError::Stalled(patience))
}

async fn send(stream: &mut Stream, file: File, bytes: u64) -> io::Result<()> {
    let file = Arc::new(file);
    let mut at = 0;
    while at < bytes {
        let length = (bytes - at).min(PIECE_BYTES as u64) as usize;
        let from = Arc::clone(&file);
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; length];
            from.read_exact_at(&mut piece, at).map(|()| piece)
        });
        let piece = read.await.map_err(io::Error::other)??;
        within(PIECE_PATIENCE, stream.write_all(&piece)).await?;
        at += length as u64;
    }
    within(PIECE_PATIENCE, stream.flush()).await
}

/// Takes exactly `bytes`, a piece at a time; whatever follows is not read.
async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    into: &File,
    bytes: u64,
    patience: Duration,
) -> Result<(), AskError> {
    let into = Arc::new(into.try_clone().map_err(AskError::Keep)?);
    let mut at = 0;
    while at < bytes {
        let length = (bytes - at).min(PIECE_BYTES as u64) as usize;
        let mut piece = vec![0; length];
        timely(patience, stream.read_exact(&mut piece))
            .await?
            .map_err(AskError::Broken)?;
        let file = Arc::clone(&into);
        tokio::task::spawn_blocking(move || file.write_all_at(&piece, at))
            .await
            .map_err(|e| AskError::Keep(io::Error::other(e)))?
            .map_err(AskError::Keep)?;
        at += length as u64;
    }
    Ok(())
}
