//! Chunks made ready for a segment on any thread: looked up, compressed, and laid out as records
//! one after the other, so that the one thread that writes has one long write for many of them.

use std::collections::HashSet;

use cid::Cid;

use super::append::{Append, Key, key_of};
use super::record::{self, HEAD_BYTES, Kind, Location};
use super::{BlockStore, failed};
use crate::block::BlockError;
use crate::import::{Content, ImportError, ImportOptions, Imported, Keep, import};

/// Chunks on their way; memory that is used again and again.
#[derive(Debug, Default)]
pub struct Packed {
    /// Records, up to `end`; behind it is room for the next ones.
    buffer: Vec<u8>,
    end: usize,
    pub(super) fates: Vec<Fate>,
    seen: HashSet<Key>,
}

/// What becomes of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// It stands among the records.
    Fresh(Record),
    /// The store holds it.
    Held(Location),
    /// It came before.
    Again,
}

/// Where a record lies in [`Packed`], and what is in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub start: usize,
    /// Bytes behind the head.
    pub stored: usize,
    pub length: usize,
    pub kind: Kind,
}

impl Record {
    /// One past its last byte.
    pub fn end(&self) -> usize {
        self.start + HEAD_BYTES + self.stored
    }
}

impl Packed {
    /// Adds the record of a block.
    pub(super) fn push(&mut self, key: &Key, bytes: &[u8]) -> Record {
        let start = self.end;
        let body = start + HEAD_BYTES;
        if self.buffer.len() < body + bytes.len() {
            self.buffer.resize(body + bytes.len(), 0);
        }
        let room = &mut self.buffer[body..body + bytes.len()];
        let (kind, stored) = match record::squeeze(bytes, room) {
            Some(stored) => (Kind::Zstd, stored),
            None => {
                room.copy_from_slice(bytes);
                (Kind::Plain, bytes.len())
            }
        };
        let head = record::head(key, kind, bytes.len(), stored);
        self.buffer[start..body].copy_from_slice(&head);
        let record = Record {
            start,
            stored,
            length: bytes.len(),
            kind,
        };
        self.end = record.end();
        record
    }

    /// The bytes of records that follow each other.
    pub(super) fn bytes(&self, first: &Record, last: &Record) -> &[u8] {
        &self.buffer[first.start..last.end()]
    }

    pub(super) fn clear(&mut self) {
        self.end = 0;
        self.fates.clear();
        self.seen.clear();
    }
}

impl BlockStore {
    /// Does the costly part of keeping a block whose address was made from its bytes just now.
    fn pack(&self, cid: &Cid, bytes: &[u8], packed: &mut Packed) -> Result<(), BlockError> {
        let key = key_of(cid).map_err(failed("put"))?;
        let fate = if !packed.seen.insert(key) {
            Fate::Again
        } else if let Some(held) = self.locate(cid)? {
            Fate::Held(held)
        } else {
            Fate::Fresh(packed.push(&key, bytes))
        };
        packed.fates.push(fate);
        Ok(())
    }

    /// Adds `content` and, if a name is given, pins it: all of it is durable when this returns.
    pub fn import(
        &self,
        content: Content<'_>,
        options: &ImportOptions,
        pin: Option<&str>,
    ) -> Result<Imported, ImportError> {
        let mut append = self.append();
        let ready = |cid: &Cid, bytes: &[u8], packed: &mut Packed| self.pack(cid, bytes, packed);
        let imported = import(content, options, &ready, &mut append)?;
        let root = imported.cid.to_string();
        match pin {
            Some("") => append.commit_pinned(&root, &imported.cid),
            Some(name) => append.commit_pinned(name, &imported.cid),
            None => append.commit(),
        }
        .map_err(ImportError::Keep)?;
        Ok(imported)
    }
}

impl Keep<Packed> for Append<'_> {
    fn chunks(&mut self, chunks: &[(Cid, &[u8])], made: &mut Packed) -> Result<(), BlockError> {
        let cids = chunks.iter().map(|(cid, _)| cid);
        let kept = self.put_packed(cids, made);
        made.clear();
        kept
    }

    fn node(&mut self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        self.put_made(cid, bytes)
    }
}
