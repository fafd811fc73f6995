//! Git packs as nodes exchange them: version 2, SHA-256, and **without deltas**.
//!
//! Stock git reads these packs. What nodes send each other is small and fresh, so deltas would save little, and
//! without them a reader's bounds are exact: each object says its size before it is inflated, and nothing in a pack
//! can multiply. Packs at rest are made small by stock git, see [`crate::store`].

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::bufread::ZlibDecoder;
use flate2::write::ZlibEncoder;
use instar_attest::Digest;

use crate::grammar::{Kind, MAX_COMMIT_BYTES, MAX_TREE_BYTES, Object};
use crate::receipt::MAX_RECEIPTS_BYTES;

/// How many objects a pack may hold: a full block merges 4,096 lane commits of three objects each.
pub const MAX_PACK_OBJECTS: u32 = 16 * 1024;
/// How large a pack may be once inflated.
pub const MAX_INFLATED_BYTES: u64 = 64 * 1024 * 1024;
/// The largest blob: the receipts of a block.
const MAX_BLOB_BYTES: usize = MAX_RECEIPTS_BYTES;

/// Why a pack is refused.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// More bytes than the caller allows.
    #[error("a pack of {got} bytes, at most {max} are allowed here")]
    TooLarge {
        /// Its size.
        got: usize,
        /// The caller's bound.
        max: usize,
    },
    /// Not a version 2 pack, or it ends too early.
    #[error("not a whole version 2 pack: {0}")]
    Malformed(&'static str),
    /// The checksum at its end does not hold.
    #[error("the pack's checksum does not hold")]
    Checksum,
    /// More objects than [`MAX_PACK_OBJECTS`].
    #[error("a pack of {0} objects, at most {MAX_PACK_OBJECTS} are allowed")]
    TooManyObjects(u32),
    /// A delta, a tag, or an unknown kind.
    #[error("object {index} has pack type {kind}; only whole commits, trees and blobs are allowed")]
    ObjectKind {
        /// Its place.
        index: u32,
        /// The pack's number for the kind.
        kind: u8,
    },
    /// An object that says it is too large, or a pack that inflates to too much.
    #[error("object {index} would inflate to {got} bytes, at most {max} are allowed")]
    Inflated {
        /// Its place.
        index: u32,
        /// What it says.
        got: u64,
        /// The bound.
        max: u64,
    },
    /// The compressed data is broken or has another length than it says.
    #[error("object {index} does not inflate to what it says")]
    Deflate {
        /// Its place.
        index: u32,
    },
}

const fn number_of(kind: Kind) -> u8 {
    match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
    }
}

/// Writes a pack of whole objects, in the order given.
pub fn write<'a>(objects: impl IntoIterator<Item = (Kind, &'a [u8])>) -> Vec<u8> {
    let mut out = b"PACK\0\0\0\x02\0\0\0\0".to_vec();
    let mut count: u32 = 0;
    for (kind, bytes) in objects {
        count += 1;
        let mut size = bytes.len();
        let mut byte = (number_of(kind) << 4) | (size & 0x0f) as u8;
        size >>= 4;
        while size > 0 {
            out.push(byte | 0x80);
            byte = (size & 0x7f) as u8;
            size >>= 7;
        }
        out.push(byte);
        let mut encoder = ZlibEncoder::new(&mut out, Compression::fast());
        encoder
            .write_all(bytes)
            .and_then(|()| encoder.finish().map(|_| ()))
            .expect("writing into memory does not fail");
    }
    out[8..12].copy_from_slice(&count.to_be_bytes());
    let checksum = Digest::of(&out);
    out.extend(checksum.as_bytes());
    out
}

/// Reads a pack, refusing more than `max` bytes before looking at any, and every bound above while it goes.
pub fn read(pack: &[u8], max: usize) -> Result<Vec<Object>, PackError> {
    if pack.len() > max {
        return Err(PackError::TooLarge {
            got: pack.len(),
            max,
        });
    }
    let (body, checksum) = pack
        .split_last_chunk::<32>()
        .ok_or(PackError::Malformed("too short"))?;
    let (head, mut rest) = body
        .split_first_chunk::<12>()
        .ok_or(PackError::Malformed("too short"))?;
    if head[..8] != *b"PACK\0\0\0\x02" {
        return Err(PackError::Malformed("it does not begin like one"));
    }
    if Digest::of(body).as_bytes() != checksum {
        return Err(PackError::Checksum);
    }
    let count = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    if count > MAX_PACK_OBJECTS {
        return Err(PackError::TooManyObjects(count));
    }
    let mut left = MAX_INFLATED_BYTES;
    let mut objects = Vec::new();
    for index in 0..count {
        let (kind, size) = object_head(&mut rest, index)?;
        let bound = match kind {
            Kind::Commit => MAX_COMMIT_BYTES,
            Kind::Tree => MAX_TREE_BYTES,
            Kind::Blob => MAX_BLOB_BYTES,
        };
        let max = left.min(bound as u64);
        if size > max {
            return Err(PackError::Inflated {
                index,
                got: size,
                max,
            });
        }
        left -= size;
        // One byte more than it says, so that a longer stream shows.
        let mut bytes = Vec::new();
        let mut decoder = ZlibDecoder::new(rest);
        let read = decoder.by_ref().take(size + 1).read_to_end(&mut bytes);
        if read.is_err() || bytes.len() as u64 != size {
            return Err(PackError::Deflate { index });
        }
        rest = decoder.into_inner();
        objects.push(Object::new(kind, bytes));
    }
    if !rest.is_empty() {
        return Err(PackError::Malformed("bytes after the last object"));
    }
    Ok(objects)
}

/// The kind and the size that stand before an object's compressed data.
fn object_head(rest: &mut &[u8], index: u32) -> Result<(Kind, u64), PackError> {
    let mut next = || -> Result<u8, PackError> {
        let (byte, tail) = rest
            .split_first()
            .ok_or(PackError::Malformed("it ends within an object"))?;
        *rest = tail;
        Ok(*byte)
    };
    let first = next()?;
    let mut size = u64::from(first & 0x0f);
    let mut more = first & 0x80 != 0;
    let mut shift = 4;
    while more {
        let byte = next()?;
        // 4 + 7 × 6 bits name far more than any bound; a longer number is an attack.
        if shift > 46 {
            return Err(PackError::Malformed("an object's size has too many bytes"));
        }
        size |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        more = byte & 0x80 != 0;
    }
    match (first >> 4) & 7 {
        1 => Ok((Kind::Commit, size)),
        2 => Ok((Kind::Tree, size)),
        3 => Ok((Kind::Blob, size)),
        kind => Err(PackError::ObjectKind { index, kind }),
    }
}
