//! One block: bytes under a content address, and the seam behind which blocks are kept.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Mutex;

use cid::{Cid, Version};
use multihash_codetable::{Code, MultihashDigest};

/// No block is larger, read or served: what IPFS implementations take over bitswap. It bounds what
/// a peer can make us hold before we can check its hash.
pub const MAX_BLOCK_BYTES: usize = 2 * 1024 * 1024;

/// No block that is made here is larger. Stock importers stop here too, but for the few bytes that
/// a dag-pb node puts around a leaf of this size.
pub const MAX_MADE_BLOCK_BYTES: usize = 1024 * 1024;

/// Multicodec of a raw leaf.
pub const RAW: u64 = 0x55;
/// Multicodec of a dag-pb node.
pub const DAG_PB: u64 = 0x70;
/// Multihash code of sha2-256.
pub const SHA2_256: u64 = 0x12;
/// Multihash code of "the digest is the content".
pub const IDENTITY: u64 = 0x00;

/// Why a block was refused or couldn't be had.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The address uses a codec or hash that is not used here.
    #[error("block {cid}: {why}")]
    Unsupported {
        /// The address.
        cid: Cid,
        /// What about it is not supported.
        why: &'static str,
    },
    /// The block is over [`MAX_BLOCK_BYTES`].
    #[error("block {cid} has {bytes} bytes, over the limit of {MAX_BLOCK_BYTES}")]
    TooLarge {
        /// The address.
        cid: Cid,
        /// Size of what was offered.
        bytes: usize,
    },
    /// What was offered does not hash to the address.
    #[error("block {cid}: the offered {bytes} bytes have another hash")]
    Mismatch {
        /// The address.
        cid: Cid,
        /// Size of what was offered.
        bytes: usize,
    },
    /// What the store holds under the address does not hash to it any more.
    #[error("block {cid} is corrupt in the store")]
    Corrupt {
        /// The address.
        cid: Cid,
    },
    /// The store's quota is reached.
    #[error(
        "the block store has {stored_bytes} bytes, and its quota is {quota_bytes}; make room with `instar store gc`, or raise it with `instar store quota`"
    )]
    Quota {
        /// Most bytes that the store may have.
        quota_bytes: u64,
        /// Bytes that it has.
        stored_bytes: u64,
    },
    /// The disk is full. What was acknowledged before is kept.
    #[error(
        "block store: {what} failed, because the disk is full; what was kept before is safe. Make room and try again"
    )]
    Full {
        /// What was tried.
        what: &'static str,
    },
    /// Blocks are on their way in, so that nothing can be collected now.
    #[error("{leases} fetches or additions are under way; nothing is collected before they end")]
    Busy {
        /// How many.
        leases: usize,
    },
    /// Another process has the store open.
    #[error(
        "the block store {path} is in use by another process; ask that one (`--node`), or wait for it to end"
    )]
    InUse {
        /// The store's index.
        path: String,
    },
    /// The store itself failed.
    #[error("block store: {what} failed")]
    Store {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Where blocks are kept. Implementations return only bytes that hash to the address and take only
/// such bytes, so that code on top never sees a block that isn't what it says.
pub trait Blocks {
    /// The block, checked against its address, if it is held.
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, BlockError>;
    /// Whether the block is held. Its bytes are not read.
    fn has(&self, cid: &Cid) -> Result<bool, BlockError>;
    /// Keeps the block after checking it against its address.
    fn put(&self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError>;
    /// Keeps several blocks; a store on disk does it in one durable step.
    fn put_many(&self, blocks: &[(Cid, Vec<u8>)]) -> Result<(), BlockError> {
        for (cid, bytes) in blocks {
            self.put(cid, bytes)?;
        }
        Ok(())
    }
    /// While the lease is held, nothing that is here or arrives is collected.
    fn lease(&self) -> crate::store::Lease {
        crate::store::Lease::default()
    }
}

/// The CIDv1 of `bytes` under `codec` with sha2-256.
pub fn cid_of(codec: u64, bytes: &[u8]) -> Cid {
    Cid::new_v1(codec, Code::Sha2_256.digest(bytes))
}

/// The content of an identity CID, which carries it inside (at most 64 bytes, by the type).
pub fn identity_content(cid: &Cid) -> Option<&[u8]> {
    (cid.hash().code() == IDENTITY).then(|| cid.hash().digest())
}

/// The one form under which a block is kept: CIDv1, raw or dag-pb, sha2-256 or identity.
pub fn canonical(cid: &Cid) -> Result<Cid, BlockError> {
    let refuse = |why| Err(BlockError::Unsupported { cid: *cid, why });
    if cid.codec() != RAW && cid.codec() != DAG_PB {
        return refuse("its codec is neither raw nor dag-pb");
    }
    match (cid.hash().code(), cid.hash().size()) {
        (SHA2_256, 32) | (IDENTITY, _) => {}
        _ => return refuse("its hash is not a whole sha2-256"),
    }
    Ok(match cid.version() {
        Version::V0 => Cid::new_v1(cid.codec(), *cid.hash()),
        Version::V1 => *cid,
    })
}

/// Checks that `bytes` are the block `cid`; the bound comes before the hash.
pub fn verify(cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
    let cid = canonical(cid)?;
    if bytes.len() > MAX_BLOCK_BYTES {
        return Err(BlockError::TooLarge {
            cid,
            bytes: bytes.len(),
        });
    }
    let matches = match identity_content(&cid) {
        Some(content) => content == bytes,
        None => Code::Sha2_256.digest(bytes).digest() == cid.hash().digest(),
    };
    if !matches {
        return Err(BlockError::Mismatch {
            cid,
            bytes: bytes.len(),
        });
    }
    Ok(())
}

/// Blocks in memory: for small things and for tests.
#[derive(Debug, Default)]
pub struct MemoryBlocks {
    blocks: Mutex<HashMap<Cid, Vec<u8>>>,
}

impl MemoryBlocks {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Cid, Vec<u8>>> {
        // A panic elsewhere can't leave the map half changed: every change is one insertion.
        self.blocks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Forgets a block; true if it was held.
    pub fn remove(&self, cid: &Cid) -> bool {
        self.lock().remove(cid).is_some()
    }

    /// How many blocks are held.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no block is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Blocks for MemoryBlocks {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, BlockError> {
        let cid = canonical(cid)?;
        if let Some(content) = identity_content(&cid) {
            return Ok(Some(content.to_vec()));
        }
        Ok(self.lock().get(&cid).cloned())
    }

    fn has(&self, cid: &Cid) -> Result<bool, BlockError> {
        let cid = canonical(cid)?;
        Ok(identity_content(&cid).is_some() || self.lock().contains_key(&cid))
    }

    fn put(&self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        let cid = canonical(cid)?;
        verify(&cid, bytes)?;
        self.lock().insert(cid, bytes.to_vec());
        Ok(())
    }
}
