//! Blocks on their way into a store.

use std::collections::HashMap;
use std::io;

use cid::Cid;
use redb::{Durability, ReadableTable};

use super::gate::Lease;
use super::pack::{Fate, Packed, Record};
use super::record::{HEAD_BYTES, KEY_BYTES, LOCATION_BYTES, Location};
use super::{BATCH_BYTES, BlockStore, REFRESH_MINUTES, failed, now_minutes};
use crate::block::{BlockError, canonical, identity_content, verify};

/// Blocks that may wait for the index: what bounds the memory of a large addition.
const MAX_PENDING: usize = 16 * 1024;

/// An address as the index has it: CIDv1, raw or dag-pb, sha2-256. Nothing else is stored.
pub(super) type Key = [u8; KEY_BYTES];

pub(super) fn key_of(cid: &Cid) -> io::Result<Key> {
    let mut key = [0; KEY_BYTES];
    let mut room = key.as_mut_slice();
    cid.write_bytes(&mut room).map_err(io::Error::other)?;
    match room {
        [] => Ok(key),
        _ => Err(io::Error::other("the address has another length")),
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
    pending: HashMap<Key, [u8; LOCATION_BYTES]>,
    quota: Option<Option<u64>>,
    /// Room for the record of a single block.
    single: Packed,
}

impl<'a> Append<'a> {
    pub(super) fn new(store: &'a BlockStore) -> Self {
        Self {
            store,
            _lease: store.gate.lease(),
            pending: HashMap::new(),
            quota: None,
            single: Packed::default(),
        }
    }

    /// Adds a block after checking it against its address.
    pub fn put(&mut self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        let cid = canonical(cid)?;
        verify(&cid, bytes)?;
        if identity_content(&cid).is_some() {
            return Ok(());
        }
        let key = key_of(&cid).map_err(failed("put"))?;
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
        self.write(key, bytes)
    }

    /// Adds a block whose address was made from its bytes just now. What is held is not compared.
    pub(super) fn put_made(&mut self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        let key = key_of(cid).map_err(failed("put"))?;
        if self.pending.contains_key(&key) {
            return Ok(());
        }
        if let Some(held) = self.store.locate(cid)? {
            self.refresh(key, held);
            return self.step();
        }
        self.write(key, bytes)
    }

    /// Adds blocks that were packed, in the order of `cids`.
    pub(super) fn put_packed<'b>(
        &mut self,
        cids: impl Iterator<Item = &'b Cid>,
        packed: &Packed,
    ) -> Result<(), BlockError> {
        let mut run = Vec::new();
        for (cid, fate) in cids.zip(&packed.fates) {
            let key = key_of(cid).map_err(failed("put"))?;
            match fate {
                Fate::Again => {}
                // It came in a parcel before, of which the index doesn't know yet.
                _ if self.pending.contains_key(&key) => self.write_run(packed, &mut run)?,
                Fate::Held(held) => self.refresh(key, *held),
                Fate::Fresh(record) => run.push((key, *record)),
            }
        }
        self.write_run(packed, &mut run)?;
        self.step()
    }

    fn refresh(&mut self, key: Key, held: Location) {
        let minutes = now_minutes();
        if minutes.saturating_sub(held.minutes) >= REFRESH_MINUTES {
            let fresh = Location { minutes, ..held };
            self.pending.insert(key, fresh.encode());
        }
    }

    fn write(&mut self, key: Key, bytes: &[u8]) -> Result<(), BlockError> {
        let mut single = std::mem::take(&mut self.single);
        let record = single.push(&key, bytes);
        let written = self.write_run(&single, &mut vec![(key, record)]);
        single.clear();
        self.single = single;
        written?;
        self.step()
    }

    /// Writes records that follow each other, in one write, and empties the list.
    fn write_run(
        &mut self,
        packed: &Packed,
        run: &mut Vec<(Key, Record)>,
    ) -> Result<(), BlockError> {
        let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else {
            return Ok(());
        };
        let bytes = packed.bytes(first, last);
        let quota = match self.quota {
            Some(quota) => quota,
            None => *self.quota.insert(self.store.quota()?),
        };
        let mut tail = self.store.segments.tail();
        if let Some(quota_bytes) = quota
            && tail.total.saturating_add(bytes.len() as u64) > quota_bytes
        {
            return Err(BlockError::Quota {
                quota_bytes,
                stored_bytes: tail.total,
            });
        }
        let (segment, begin) = self
            .store
            .segments
            .append(&mut tail, bytes)
            .map_err(failed("write blocks"))?;
        drop(tail);
        let minutes = now_minutes();
        let origin = first.start;
        for (key, record) in run.drain(..) {
            let location = Location {
                segment,
                offset: begin + (record.start - origin + HEAD_BYTES) as u64,
                // Both are at most the size of a block, two mebibytes.
                stored: record.stored as u32,
                length: record.length as u32,
                kind: record.kind,
                minutes,
            };
            self.pending.insert(key, location.encode());
        }
        Ok(())
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
