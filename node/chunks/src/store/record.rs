//! What the index says about a block, and what a block looks like in a segment.

use std::cell::RefCell;

use cid::Cid;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use crate::block::{BlockError, MAX_BLOCK_BYTES};

/// Compression level: a fast one.
const LEVEL: i32 = -3;
/// Shortest match that is looked for, longer than the level's own 5: fewer matches are fewer things to encode. Of 600 MB of
/// compiled Rust and sources in 32 KiB blocks this keeps as much as LZ4 at its speed. See docs/formats/chunks.md.
const MIN_MATCH: u32 = 7;
/// Below this nothing is gained.
const MIN_COMPRESS_BYTES: usize = 128;
/// A block is kept compressed if that saves at least one part in this many.
const MIN_GAIN: usize = 16;

/// How a block is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain = 0,
    Zstd = 1,
}

/// Where a block is: the value in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub segment: u32,
    /// Where what is stored begins, behind the record's head.
    pub offset: u64,
    pub stored: u32,
    pub length: u32,
    pub kind: Kind,
    /// When it was last put, in minutes since 1970: young blocks are not collected.
    pub minutes: u32,
}

/// Bytes of an encoded location.
pub(super) const LOCATION_BYTES: usize = 25;

impl Location {
    pub fn encode(&self) -> [u8; LOCATION_BYTES] {
        let mut bytes = [0; LOCATION_BYTES];
        bytes[..4].copy_from_slice(&self.segment.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.offset.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.stored.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.length.to_le_bytes());
        bytes[20] = self.kind as u8;
        bytes[21..].copy_from_slice(&self.minutes.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LOCATION_BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Some(Self {
            segment: word(0),
            offset: u64::from(word(4)) | u64::from(word(8)) << 32,
            stored: word(12),
            length: word(16),
            kind: match bytes[20] {
                0 => Kind::Plain,
                1 => Kind::Zstd,
                _ => return None,
            },
            minutes: word(21),
        })
    }

    /// Bytes that its record takes in its segment.
    pub fn record_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.stored)
    }
}

/// Bytes of an address in the index: version, codec, hash, its length, the digest.
pub(super) const KEY_BYTES: usize = 36;

/// Bytes of a record's head: kind, length of the address, address, length, stored length.
pub(super) const HEAD_BYTES: usize = 2 + KEY_BYTES + 8;

/// The head of a record.
pub(super) fn head(
    key: &[u8; KEY_BYTES],
    kind: Kind,
    length: usize,
    stored: usize,
) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[0] = kind as u8;
    head[1] = KEY_BYTES as u8;
    head[2..2 + KEY_BYTES].copy_from_slice(key);
    // Both are at most two mebibytes.
    head[HEAD_BYTES - 8..HEAD_BYTES - 4].copy_from_slice(&(length as u32).to_le_bytes());
    head[HEAD_BYTES - 4..].copy_from_slice(&(stored as u32).to_le_bytes());
    head
}

/// Compresses the block into `room`, if that is worth it; says how long it is then.
pub(super) fn squeeze(bytes: &[u8], room: &mut [u8]) -> Option<usize> {
    if bytes.len() < MIN_COMPRESS_BYTES {
        return None;
    }
    thread_local! {
        /// Making one costs more than compressing a small block.
        static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    }
    // What doesn't fit isn't worth it, and isn't finished.
    let room = &mut room[..bytes.len() - bytes.len() / MIN_GAIN];
    COMPRESSOR.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            let mut made = Compressor::new(LEVEL).ok()?;
            made.set_parameter(CParameter::MinMatch(MIN_MATCH)).ok()?;
            *compressor = Some(made);
        }
        compressor.as_mut()?.compress_to_buffer(bytes, room).ok()
    })
}

/// The block again. What doesn't unfold to exactly `length` bytes is corrupt.
pub(super) fn unsqueeze(
    cid: &Cid,
    kind: Kind,
    stored: Vec<u8>,
    length: u32,
) -> Result<Vec<u8>, BlockError> {
    let corrupt = || BlockError::Corrupt { cid: *cid };
    let length = length as usize;
    if length > MAX_BLOCK_BYTES {
        return Err(corrupt());
    }
    let bytes = match kind {
        Kind::Plain => stored,
        Kind::Zstd => zstd::bulk::decompress(&stored, length).map_err(|_| corrupt())?,
    };
    if bytes.len() != length {
        return Err(corrupt());
    }
    Ok(bytes)
}
