//! Frames on a stream (length as a varint, then that many bytes) and the messages inside them.

use std::io;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a frame may claim before more than this is allocated: the rest only as it arrives.
const TRUSTED_BYTES: usize = 64 * 1024;

/// Reads one frame of at most `max` bytes; `None` at a clean end of the stream.
pub async fn read_frame<S: AsyncRead + Unpin>(
    stream: &mut S,
    max: usize,
) -> io::Result<Option<Vec<u8>>> {
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
    let mut frame = Vec::with_capacity(length.min(TRUSTED_BYTES));
    stream.take(length as u64).read_to_end(&mut frame).await?;
    if frame.len() != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(frame))
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
    }
}
