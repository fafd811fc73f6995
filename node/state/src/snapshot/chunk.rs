//! One chunk: its bytes, and what shows that they are the state's. `docs/formats/snapshots.md` has it in words.

use instar_attest::Digest;
use instar_chain::view::{MAX_VALUE_BYTES, is_key};
use jmt::KeyHash;
use jmt::storage::LeafNode;
use sha2::{Digest as _, Sha256};

use super::prefix::{HASH_BITS, Prefix, bit};
use crate::keys::{key_hash, value_hash};
use crate::tree::EMPTY_ROOT;

/// The first bytes of a chunk.
const MAGIC: &[u8; 16] = b"instar-chunk-v1\n";
/// The largest chunk: what any IPFS peer takes as one block. The largest value fits with the longest proof.
pub const MAX_CHUNK_BYTES: usize = 1 << 20;
/// The lengths before a key and a value.
pub(super) const LEAF_OVERHEAD: usize = 6;

/// A key and its value, as a chunk holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub hash: KeyHash,
    pub key: String,
    pub value: Vec<u8>,
}

impl Leaf {
    pub fn node(&self) -> LeafNode {
        LeafNode::new(self.hash, value_hash(&self.value))
    }

    /// Its bytes in a chunk.
    pub fn size(&self) -> usize {
        LEAF_OVERHEAD + self.key.len() + self.value.len()
    }
}

/// A chunk that was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    prefix: Prefix,
    leaves: Vec<Leaf>,
}

impl Chunk {
    /// The place of its subtree.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The keys and values, in the order of the keys' hashes: all that the state has below the place.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.leaves
            .iter()
            .map(|l| (l.key.as_str(), l.value.as_slice()))
    }

    pub(super) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }
}

/// Why a chunk proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// More than [`MAX_CHUNK_BYTES`].
    #[error("a chunk of {0} bytes, at most {MAX_CHUNK_BYTES} are read")]
    TooLarge(usize),
    /// It does not begin as a chunk does.
    #[error("it does not begin as a chunk does")]
    Magic,
    /// It ends too early, or goes on after its end.
    #[error("a chunk that breaks off, or goes on after its end")]
    Length,
    /// Its place is none.
    #[error("its prefix of {0} bits is none")]
    Prefix(u16),
    /// Only a state without keys has a chunk without keys.
    #[error("it has no keys")]
    Empty,
    /// Something that no state holds.
    #[error("{0:?} is not a state key")]
    Key(String),
    /// A value that no state holds.
    #[error("the value of {0} is too large")]
    Value(String),
    /// The order of key hashes makes a chunk's bytes unique; it also keeps keys from standing twice.
    #[error("{0} does not stand in the order of key hashes")]
    Order(String),
    /// A key of another subtree.
    #[error("{0} does not belong below its prefix")]
    Misplaced(String),
    /// The state of this root has another subtree there.
    #[error("the chunk leads to the root {got}, not to {expected}")]
    OtherRoot {
        /// The root that was asked for.
        expected: Digest,
        /// Where it leads.
        got: Digest,
    },
}

/// Proves a chunk: that the state with this root has exactly these keys and values below the chunk's place.
pub fn check(root: &Digest, bytes: &[u8]) -> Result<Chunk, ChunkError> {
    let (chunk, siblings) = read(bytes)?;
    let mut hash = subtree(&chunk.leaves, chunk.prefix.depth());
    for (depth, sibling) in (0..chunk.prefix.depth()).zip(&siblings).rev() {
        hash = match chunk.prefix.bit(depth) {
            true => inner(sibling, &hash),
            false => inner(&hash, sibling),
        };
    }
    let got = Digest::from_bytes(hash);
    if got != *root {
        return Err(ChunkError::OtherRoot {
            expected: *root,
            got,
        });
    }
    Ok(chunk)
}

/// Writes a chunk; `siblings` from the root down.
pub(super) fn write(prefix: &Prefix, siblings: &[[u8; 32]], leaves: &[Leaf]) -> Vec<u8> {
    let size: usize = leaves.iter().map(Leaf::size).sum();
    let mut out = Vec::with_capacity(MAGIC.len() + 64 + siblings.len() * 32 + size);
    out.extend_from_slice(MAGIC);
    out.extend(prefix.depth().to_be_bytes());
    out.extend_from_slice(prefix.bytes());
    out.extend(siblings.iter().flatten());
    let count = u32::try_from(leaves.len()).expect("a chunk is smaller than 4 GB");
    out.extend(count.to_be_bytes());
    for leaf in leaves {
        let key = u16::try_from(leaf.key.len()).expect("a key has at most 512 bytes");
        let value = u32::try_from(leaf.value.len()).expect("a value has at most half a MB");
        out.extend(key.to_be_bytes());
        out.extend_from_slice(leaf.key.as_bytes());
        out.extend(value.to_be_bytes());
        out.extend_from_slice(&leaf.value);
    }
    out
}

fn read(bytes: &[u8]) -> Result<(Chunk, Vec<[u8; 32]>), ChunkError> {
    if bytes.len() > MAX_CHUNK_BYTES {
        return Err(ChunkError::TooLarge(bytes.len()));
    }
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(ChunkError::Magic)?;
    let depth = u16::from_be_bytes(array(&mut rest)?);
    if depth > HASH_BITS {
        return Err(ChunkError::Prefix(depth));
    }
    let mut bits = [0; 32];
    let given = take(&mut rest, usize::from(depth).div_ceil(8))?;
    bits[..given.len()].copy_from_slice(given);
    let prefix = Prefix::new(depth, bits).ok_or(ChunkError::Prefix(depth))?;
    let siblings = (0..depth)
        .map(|_| array(&mut rest))
        .collect::<Result<Vec<[u8; 32]>, _>>()?;
    let count = u32::from_be_bytes(array(&mut rest)?);
    if count == 0 && depth > 0 {
        return Err(ChunkError::Empty);
    }
    let mut leaves: Vec<Leaf> = Vec::new();
    for _ in 0..count {
        let leaf = read_leaf(&mut rest)?;
        if leaves.last().is_some_and(|before| before.hash >= leaf.hash) {
            return Err(ChunkError::Order(leaf.key));
        }
        if !prefix.holds(&leaf.hash) {
            return Err(ChunkError::Misplaced(leaf.key));
        }
        leaves.push(leaf);
    }
    if !rest.is_empty() {
        return Err(ChunkError::Length);
    }
    Ok((Chunk { prefix, leaves }, siblings))
}

fn read_leaf(rest: &mut &[u8]) -> Result<Leaf, ChunkError> {
    let key_len = usize::from(u16::from_be_bytes(array(rest)?));
    let key = take(rest, key_len)?;
    let key = std::str::from_utf8(key)
        .ok()
        .filter(|key| is_key(key))
        .ok_or_else(|| ChunkError::Key(String::from_utf8_lossy(key).chars().take(80).collect()))?;
    let value_len = u32::from_be_bytes(array(rest)?) as usize;
    if value_len > MAX_VALUE_BYTES {
        return Err(ChunkError::Value(key.to_owned()));
    }
    let value = take(rest, value_len)?;
    Ok(Leaf {
        hash: key_hash(key),
        key: key.to_owned(),
        value: value.to_vec(),
    })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], ChunkError> {
    let (taken, after) = rest.split_at_checked(count).ok_or(ChunkError::Length)?;
    *rest = after;
    Ok(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ChunkError> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(ChunkError::Length)?;
    *rest = after;
    Ok(*taken)
}

/// The hash of a subtree that has exactly these leaves, as `docs/formats/state.md` defines it.
fn subtree(leaves: &[Leaf], depth: u16) -> [u8; 32] {
    match leaves {
        [] => EMPTY_ROOT,
        [leaf] => leaf.node().hash::<Sha256>(),
        _ => {
            // Two different hashes differ in a bit above the last, so the depth stays below the length of a hash.
            let (left, right) = leaves.split_at(leaves.partition_point(|l| !bit(&l.hash.0, depth)));
            inner(&subtree(left, depth + 1), &subtree(right, depth + 1))
        }
    }
}

/// An inner node of the binary tree.
pub(super) fn inner(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"JMT::IntrnalNode")
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}
