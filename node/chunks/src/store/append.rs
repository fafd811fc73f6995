//! Blocks on their way into a store.

use std::collections::HashMap;
use std::io;

use cid::Cid;
use redb::{Durability, ReadableTable};

use super::gate::Lease;
use super::record::{self, Kind, LOCATION_BYTES, Location};
use super::{BATCH_BYTES, BlockStore, REFRESH_MINUTES, failed, now_minutes};
use crate::block::{BlockError, canonical, identity_content, verify};

/// Blocks that may wait for the index: what bounds the memory of a large addition.
const MAX_PENDING: usize = 16 * 1024;

/// A block made ready for the store on any thread; see [`BlockStore::ready`].
#[derive(Debug)]
pub struct Ready {
    /// Bytes of it that will be stored: compressed, or as they are.
    squeezed: Option<Vec<u8>>,
    /// It is held already; nothing was compressed.
    held: bool,
}

impl BlockStore {
    /// Does the costly part of keeping a block, on whatever thread: looks whether it is held, and
    /// compresses it if not. The caller made `cid` from `bytes` just now.
    pub fn ready(&self, cid: &Cid, bytes: &[u8]) -> Result<Ready, BlockError> {
        let held = self.locate(cid)?.is_some();
        let squeezed = (!held).then(|| record::squeeze(bytes)).flatten();
        Ok(Ready { squeezed, held })
    }
}

/// Appends blocks. They count when [`Append::commit`] returns; what was not committed may be
/// forgotten when this is dropped, and is after a crash. Memory stays bounded however many there
/// are, because the index is told in between, in steps that are not durable and become so together.
/// Nothing is collected meanwhile: a segment that looks unused may hold what the index is told next.
#[derive(Debug)]
pub struct Append<'a> {
    store: &'a BlockStore,
    _lease: Lease,
    pending: HashMap<Vec<u8>, [u8; LOCATION_BYTES]>,
    quota: Option<Option<u64>>,
}

impl<'a> Append<'a> {
    pub(super) fn new(store: &'a BlockStore) -> Self {
        Self {
            store,
            _lease: store.gate.lease(),
            pending: HashMap::new(),
            quota: None,
        }
    }

    /// Adds a block after checking it against its address.
    pub fn put(&mut self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        let cid = canonical(cid)?;
        verify(&cid, bytes)?;
        if identity_content(&cid).is_some() {
            return Ok(());
        }
        let key = cid.to_bytes();
        if self.pending.contains_key(&key) {
            return Ok(());
        }
        // Content under an address never changes; writing it again would only wear the disk. A
        // copy that went bad is replaced.
        if let Some(held) = self.store.locate(&cid)?
            && let Ok(Some(_)) = self.store.read_at(&cid, &held)
        {
            self.refresh(key, held);
            return self.step();
        }
        self.write(key, bytes, record::squeeze(bytes))
    }

    /// Adds a block whose address was made from its bytes just now, and that was made ready.
    pub fn put_ready(&mut self, cid: &Cid, bytes: &[u8], ready: Ready) -> Result<(), BlockError> {
        let key = cid.to_bytes();
        if self.pending.contains_key(&key) {
            return Ok(());
        }
        if ready.held {
            let Some(held) = self.store.locate(cid)? else {
                return self.write(key, bytes, record::squeeze(bytes));
            };
            self.refresh(key, held);
            return self.step();
        }
        self.write(key, bytes, ready.squeezed)
    }

    fn refresh(&mut self, key: Vec<u8>, held: Location) {
        let minutes = now_minutes();
        if minutes.saturating_sub(held.minutes) >= REFRESH_MINUTES {
            let fresh = Location { minutes, ..held };
            self.pending.insert(key, fresh.encode());
        }
    }

    fn write(
        &mut self,
        key: Vec<u8>,
        bytes: &[u8],
        squeezed: Option<Vec<u8>>,
    ) -> Result<(), BlockError> {
        let quota = match self.quota {
            Some(quota) => quota,
            None => *self.quota.insert(self.store.quota()?),
        };
        let (kind, stored) = match &squeezed {
            Some(squeezed) => (Kind::Zstd, squeezed.as_slice()),
            None => (Kind::Plain, bytes),
        };
        let head = record::head(&key, kind, bytes.len(), stored.len());
        let mut tail = self.store.segments.tail();
        let wanted = (head.len() + stored.len()) as u64;
        if let Some(quota_bytes) = quota
            && tail.total.saturating_add(wanted) > quota_bytes
        {
            return Err(BlockError::Quota {
                quota_bytes,
                stored_bytes: tail.total,
            });
        }
        let (segment, offset) = self
            .store
            .segments
            .append(&mut tail, &[&head, stored])
            .map_err(failed("write a block"))?;
        drop(tail);
        let location = Location {
            segment,
            offset: offset + head.len() as u64,
            stored: stored.len() as u32,
            length: bytes.len() as u32,
            kind,
            minutes: now_minutes(),
        };
        self.pending.insert(key, location.encode());
        self.step()
    }

    fn step(&mut self) -> Result<(), BlockError> {
        if self.pending.len() < MAX_PENDING {
            return Ok(());
        }
        self.tell(Durability::None)
    }

    fn tell(&mut self, durability: Durability) -> Result<(), BlockError> {
        let mut tail = self.store.segments.tail();
        let end = (tail.segment, tail.end);
        self.store.commit("put", durability, &mut tail, |tables| {
            // Sorted keys touch each page of the index once.
            let mut pending: Vec<_> = self.pending.iter().collect();
            pending.sort_unstable();
            for (key, location) in pending {
                // How far the segments before the last are used: they were full, or are named here.
                if let Some(held) = Location::decode(location) {
                    let reach = held.offset + u64::from(held.stored);
                    let known = tables.ends.get(held.segment).map_err(failed("put"))?;
                    if known.is_none_or(|known| known.value() < reach) {
                        tables
                            .ends
                            .insert(held.segment, reach)
                            .map_err(failed("put"))?;
                    }
                }
                tables
                    .index
                    .insert(key.as_slice(), location.as_slice())
                    .map_err(failed("put"))?;
            }
            let known = tables.ends.get(end.0).map_err(failed("put"))?;
            if known.is_some_and(|known| known.value() < end.1) {
                tables.ends.insert(end.0, end.1).map_err(failed("put"))?;
            }
            Ok(())
        })?;
        self.pending.clear();
        Ok(())
    }

    /// Makes everything durable: all of it is on disk when this returns.
    pub fn commit(mut self) -> Result<(), BlockError> {
        self.tell(Durability::Immediate)
    }

    /// Makes everything readable, and durable with the next durable step.
    pub fn commit_later(mut self) -> Result<(), BlockError> {
        self.tell(Durability::None)
    }

    /// As [`Append::commit`], and pins `root` under `name`.
    pub fn commit_pinned(self, name: &str, root: &Cid) -> Result<(), BlockError> {
        // The pin is durable, and everything before it with it; the lease lasts as long.
        let (store, _lease) = (self.store, self.store.gate.lease());
        self.commit_later()?;
        store.pin(name, root)
    }
}

/// Blocks on their way into a store, in durable steps.
#[derive(Debug)]
pub struct Batch<'a> {
    store: &'a BlockStore,
    append: Append<'a>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(store: &'a BlockStore) -> Self {
        Self {
            store,
            append: store.append(),
            bytes: 0,
        }
    }

    /// Adds a block; every [`BATCH_BYTES`] or so the gathered ones become durable. The shape fits
    /// [`crate::add_file`].
    pub fn put(&mut self, cid: &Cid, bytes: &[u8]) -> io::Result<()> {
        self.append.put(cid, bytes).map_err(io::Error::other)?;
        self.bytes += bytes.len();
        if self.bytes >= BATCH_BYTES {
            self.bytes = 0;
            let full = std::mem::replace(&mut self.append, self.store.append());
            full.commit().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Makes the rest durable.
    pub fn commit(self) -> Result<(), BlockError> {
        self.append.commit()
    }
}
