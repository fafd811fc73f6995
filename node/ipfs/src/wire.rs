//! Frames on a stream (length as a varint, then that many bytes) and the messages inside them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

mod bounded;

pub use bounded::{Refused, read};

/// What a frame may claim before more than this is allocated: the rest only as it arrives.
const TRUSTED_BYTES: usize = 64 * 1024;

/// Frames of one peer that are in memory at a time. Stock clients open a stream for each message,
/// dozens at once; the rest of them wait in the transport.
const MAX_FRAMES_PER_PEER: usize = 8;

/// Frames of all peers that are in memory at a time: with the largest ones this is 128 MiB.
const MAX_FRAMES: usize = 32;

/// How long a frame may take once it has begun, so that a slow one doesn't keep others out.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// Bounds what peers can make us hold, however many streams they open.
#[derive(Debug)]
pub struct Gate {
    all: Arc<Semaphore>,
    peers: Mutex<HashMap<PeerId, Arc<Semaphore>>>,
}

impl Gate {
    pub fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_FRAMES)),
            peers: Mutex::default(),
        }
    }

    /// The frames on a stream that `peer` opened.
    pub fn frames<S>(&self, peer: PeerId, stream: S) -> Frames<S> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let own = peers
            .entry(peer)
            .or_insert_with(|| Arc::new(Semaphore::new(MAX_FRAMES_PER_PEER)));
        Frames {
            stream,
            own: Arc::clone(own),
            all: Arc::clone(&self.all),
        }
    }

    /// Forgets a peer that is gone; its last streams keep what they hold.
    pub fn drop_peer(&self, peer: &PeerId) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.remove(peer);
    }
}

/// A frame, counted as long as it is kept.
#[derive(Debug)]
pub struct Frame {
    pub bytes: Vec<u8>,
    _turn: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// Reads frames from one stream.
#[derive(Debug)]
pub struct Frames<S> {
    stream: S,
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

impl<S> Frames<S> {
    /// The stream itself, behind what was read of it.
    pub fn into_stream(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> Frames<S> {
    /// The next frame, of at most `max` bytes; `None` at a clean end of the stream.
    pub async fn next(&mut self, max: usize) -> io::Result<Option<Frame>> {
        // An idle stream waits here and costs nobody a turn.
        let Some(length) = read_length(&mut self.stream, max).await? else {
            return Ok(None);
        };
        let closed = |_| io::Error::other("the peer is shutting down");
        let own = Arc::clone(&self.own)
            .acquire_owned()
            .await
            .map_err(closed)?;
        let all = Arc::clone(&self.all)
            .acquire_owned()
            .await
            .map_err(closed)?;
        let body = read_body(&mut self.stream, length);
        let bytes = tokio::time::timeout(FRAME_TIMEOUT, body)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Some(Frame {
            bytes,
            _turn: (own, all),
        }))
    }
}

pub(crate) async fn read_length<S: AsyncRead + Unpin>(
    stream: &mut S,
    max: usize,
) -> io::Result<Option<usize>> {
    let length = match unsigned_varint::aio::read_u32(&mut *stream).await {
        Ok(length) => length as usize,
        Err(unsigned_varint::io::ReadError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(None);
        }
        Err(e) => return Err(io::Error::new(io::ErrorKind::InvalidData, e)),
    };
    if length > max {
        let why = format!("a frame claims {length} bytes, over the limit of {max}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(Some(length))
}

pub(crate) async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    length: usize,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length.min(TRUSTED_BYTES));
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// Writes one frame; the caller flushes.
pub async fn write_frame<S: AsyncWrite + Unpin>(stream: &mut S, frame: &[u8]) -> io::Result<()> {
    let mut buffer = unsigned_varint::encode::usize_buffer();
    let length = unsigned_varint::encode::usize(frame.len(), &mut buffer);
    stream.write_all(length).await?;
    stream.write_all(frame).await
}

/// Bitswap 1.2.0, <https://specs.ipfs.tech/bitswap-protocol/>.
pub mod bitswap {
    /// Most bytes in a message, as the specification says.
    pub const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

    /// `Message`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Message {
        #[prost(message, optional, tag = "1")]
        pub wantlist: Option<Wantlist>,
        #[prost(message, repeated, tag = "3")]
        pub payload: Vec<Block>,
        #[prost(message, repeated, tag = "4")]
        pub presences: Vec<Presence>,
        #[prost(int32, tag = "5")]
        pub pending_bytes: i32,
    }

    impl Message {
        /// A message as it came.
        pub fn read(bytes: &[u8]) -> Result<Self, super::Refused> {
            super::read(bytes, &[1])
        }
    }

    /// `Message.Wantlist`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Wantlist {
        #[prost(message, repeated, tag = "1")]
        pub entries: Vec<Entry>,
        #[prost(bool, tag = "2")]
        pub full: bool,
    }

    /// `Message.Wantlist.Entry`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Entry {
        #[prost(bytes = "vec", tag = "1")]
        pub block: Vec<u8>,
        #[prost(int32, tag = "2")]
        pub priority: i32,
        #[prost(bool, tag = "3")]
        pub cancel: bool,
        #[prost(enumeration = "WantType", tag = "4")]
        pub want_type: i32,
        #[prost(bool, tag = "5")]
        pub send_dont_have: bool,
    }

    /// `Message.Wantlist.WantType`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    pub enum WantType {
        Block = 0,
        Have = 1,
    }

    /// `Message.Block`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Block {
        /// CID version, codec, hash code and hash length, each a varint.
        #[prost(bytes = "vec", tag = "1")]
        pub prefix: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub data: Vec<u8>,
    }

    /// `Message.BlockPresence`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Presence {
        #[prost(bytes = "vec", tag = "1")]
        pub cid: Vec<u8>,
        #[prost(enumeration = "PresenceType", tag = "2")]
        pub kind: i32,
    }

    /// `Message.BlockPresenceType`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    pub enum PresenceType {
        Have = 0,
        DontHave = 1,
    }
}

/// `/instar/gossip/1`.
pub mod gossip {
    /// One message of the gossip protocol: what is pushed, offered and asked for.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Frame {
        /// A whole message.
        #[prost(message, optional, tag = "1")]
        pub push: Option<Push>,
        /// Ids of messages that the sender holds, 32 bytes each.
        #[prost(bytes = "vec", repeated, tag = "2")]
        pub have: Vec<Vec<u8>>,
        /// Ids of messages that the sender asks for.
        #[prost(bytes = "vec", repeated, tag = "3")]
        pub want: Vec<Vec<u8>>,
    }

    impl Frame {
        /// A frame as it came.
        pub fn read(bytes: &[u8]) -> Result<Self, super::Refused> {
            super::read(bytes, &[1])
        }
    }

    /// A published message.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Push {
        #[prost(string, tag = "1")]
        pub topic: String,
        /// Chosen by the publisher, so that the same bytes may be published again.
        #[prost(bytes = "vec", tag = "2")]
        pub nonce: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        pub data: Vec<u8>,
        /// Peers to whom the publisher pushes it, so that nobody offers it to them meanwhile.
        #[prost(bytes = "vec", repeated, tag = "4")]
        pub reach: Vec<Vec<u8>>,
    }
}

/// `/instar/delta/1`.
pub mod delta {
    /// Most bytes of a question or of an answer's head: two addresses and two numbers.
    pub const MAX_FRAME_BYTES: usize = 256;

    /// "I have this, and want that."
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Question {
        /// The binary CID of what the asker has.
        #[prost(bytes = "vec", tag = "1")]
        pub have: Vec<u8>,
        /// The binary CID of what it wants.
        #[prost(bytes = "vec", tag = "2")]
        pub want: Vec<u8>,
        /// The most bytes of delta that it takes; 0 to learn the size alone.
        #[prost(uint64, tag = "3")]
        pub max_bytes: u64,
        /// Whether it would wait for one to be made.
        #[prost(bool, tag = "4")]
        pub make: bool,
    }

    /// What stands before the delta's bytes.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Answer {
        #[prost(enumeration = "Kind", tag = "1")]
        pub kind: i32,
        /// The delta's size.
        #[prost(uint64, tag = "2")]
        pub bytes: u64,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    pub enum Kind {
        /// There is none here, and none will be made.
        None = 0,
        /// It follows.
        Here = 1,
        /// There is one, and it is larger than was asked for.
        Larger = 2,
        /// It is being made, or waits for that.
        Making = 3,
    }
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    fn frames(bytes: Vec<u8>) -> Frames<Cursor<Vec<u8>>> {
        Gate::new().frames(PeerId::random(), Cursor::new(bytes))
    }

    #[tokio::test]
    async fn frames_come_out_as_they_went_in() {
        let mut bytes = Vec::new();
        for frame in [&b""[..], b"x", &[7; 100_000]] {
            write_frame(&mut bytes, frame).await.unwrap();
        }
        let mut frames = frames(bytes);
        assert_eq!(frames.next(100_000).await.unwrap().unwrap().bytes, b"");
        assert_eq!(frames.next(100_000).await.unwrap().unwrap().bytes, b"x");
        assert_eq!(
            frames.next(100_000).await.unwrap().unwrap().bytes,
            [7; 100_000]
        );
        assert!(frames.next(100_000).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_that_claims_too_much_or_ends_early_is_an_error() {
        let claim = |length: usize| {
            let mut buffer = unsigned_varint::encode::usize_buffer();
            unsigned_varint::encode::usize(length, &mut buffer).to_vec()
        };
        assert!(frames(claim(1001)).next(1000).await.is_err());
        assert!(
            frames(claim(1000)).next(1000).await.is_err(),
            "nothing follows"
        );
        assert!(
            frames(vec![0xff; 20]).next(1000).await.is_err(),
            "no varint"
        );
    }

    #[tokio::test]
    async fn a_peer_waits_for_its_turn() {
        let gate = Gate::new();
        let peer = PeerId::random();
        let mut kept = Vec::new();
        for _ in 0..MAX_FRAMES_PER_PEER {
            let frame = gate.frames(peer, Cursor::new(vec![1, 9])).next(10).await;
            kept.push(frame.unwrap().unwrap());
        }
        let mut more = gate.frames(peer, Cursor::new(vec![1, 9]));
        let wait = Duration::from_millis(50);
        assert!(tokio::time::timeout(wait, more.next(10)).await.is_err());
        let other = gate
            .frames(PeerId::random(), Cursor::new(vec![1, 9]))
            .next(10)
            .await;
        assert!(other.unwrap().is_some(), "another peer is not held up");
        kept.pop();
        let mut more = gate.frames(peer, Cursor::new(vec![1, 9]));
        assert!(more.next(10).await.unwrap().is_some());
    }
}
