//! The block store of a node: an index in one transactional file, the blocks compressed in
//! append-only segments beside it; blocks checked on the way in and on the way out.
//!
//! The order is always: blocks to the segment, segment synced, index committed. So the index never
//! names what isn't there, a crash or a full disk loses only what was not acknowledged, and what a
//! failed write left behind the end of a segment is cut off when the store opens.

mod append;
mod gate;
mod gc;
mod pack;
mod pins;
mod record;
mod segments;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cid::Cid;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageBackend, StorageError, TableDefinition,
};

use crate::block::{BlockError, Blocks, canonical, identity_content, verify};

pub use append::{Append, Batch};
pub use gate::Lease;
pub use gc::{GcReport, VerifyReport};
pub use pins::MAX_PIN_NAME_BYTES;
use record::Location;
use segments::{Segments, Tail};

/// Locations by the bytes of the CIDv1.
const INDEX: TableDefinition<&[u8], &[u8]> = TableDefinition::new("index");
/// How far each segment is used.
const ENDS: TableDefinition<u32, u64> = TableDefinition::new("segments");
/// Pinned roots by name.
const PINS: TableDefinition<&str, &[u8]> = TableDefinition::new("pins");
/// Numbers that belong to the store: its quota.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Memory that the index may use to cache pages.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// A batch is made durable whenever this much has gathered, so that memory stays bounded.
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// A block that is put again counts as young again, noted at most this often.
const REFRESH_MINUTES: u32 = 10;

/// Times that a read looks again when a collection moved the block under it.
const MAX_LOOKUPS: usize = 8;

/// Blocks and pins on disk. One process at a time opens a store; threads share it.
pub struct BlockStore {
    db: Database,
    segments: Segments,
    gate: gate::Gate,
}

impl std::fmt::Debug for BlockStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockStore")
    }
}

/// What a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub block_bytes: u64,
    /// Bytes of the segments on disk: compressed, with heads and what waits for collection.
    pub stored_bytes: u64,
    /// Bytes of the index file.
    pub index_bytes: u64,
    /// Pins.
    pub pins: u64,
    /// Most bytes that the segments may have.
    pub quota_bytes: Option<u64>,
}

impl BlockStore {
    /// Opens the store whose index is the file `path`; it is made if it isn't there. The segments
    /// lie beside it, in a folder of the same name with the ending `.segments`.
    pub fn open(path: &Path) -> Result<Self, BlockError> {
        let db = builder().create(path).map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => BlockError::InUse {
                path: path.display().to_string(),
            },
            other => failed("open")(other),
        })?;
        Self::over(db, &segments_of(path))
    }

    /// As [`BlockStore::open`], with an index that lies in something else than a file, such as one
    /// that remembers in what order it was written.
    pub fn open_on(index: impl StorageBackend, segments: &Path) -> Result<Self, BlockError> {
        let db = builder().create_with_backend(index);
        Self::over(db.map_err(failed("open"))?, segments)
    }

    fn over(db: Database, segments: &Path) -> Result<Self, BlockError> {
        let write = db.begin_write().map_err(failed("open"))?;
        let mut ends = BTreeMap::new();
        {
            write.open_table(INDEX).map_err(failed("open"))?;
            write.open_table(PINS).map_err(failed("open"))?;
            write.open_table(META).map_err(failed("open"))?;
            let table = write.open_table(ENDS).map_err(failed("open"))?;
            for row in table.iter().map_err(failed("open"))? {
                let (segment, end) = row.map_err(failed("open"))?;
                ends.insert(segment.value(), end.value());
            }
        }
        write.commit().map_err(failed("open"))?;
        let segments = Segments::open(segments, &ends).map_err(failed("open the segments"))?;
        Ok(Self {
            db,
            segments,
            gate: gate::Gate::default(),
        })
    }

    /// Keeps all of `blocks` in one durable step: after a crash all of them are there or none.
    pub fn put_all<'a>(
        &self,
        blocks: impl IntoIterator<Item = (&'a Cid, &'a [u8])>,
    ) -> Result<(), BlockError> {
        let mut append = self.append();
        for (cid, bytes) in blocks {
            append.put(cid, bytes)?;
        }
        append.commit()
    }

    /// Keeps a block without waiting for the disk: it is readable at once, and durable with the next
    /// durable step, which a pin is. For blocks that come one by one before they are pinned.
    pub fn put_later(&self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        let mut append = self.append();
        append.put(cid, bytes)?;
        append.commit_later()
    }

    /// Gathers blocks and keeps them in durable steps of about [`BATCH_BYTES`].
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }

    /// Appends blocks that are made durable together, however many.
    pub fn append(&self) -> Append<'_> {
        Append::new(self)
    }

    /// Size of the block in bytes, if it is held. It is not checked.
    pub fn size_of(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        let cid = canonical(cid)?;
        if let Some(content) = identity_content(&cid) {
            return Ok(Some(content.len()));
        }
        Ok(self.locate(&cid)?.map(|held| held.length as usize))
    }

    fn locate(&self, cid: &Cid) -> Result<Option<Location>, BlockError> {
        let read = self.db.begin_read().map_err(failed("get"))?;
        let table = read.open_table(INDEX).map_err(failed("get"))?;
        let held = table
            .get(cid.to_bytes().as_slice())
            .map_err(failed("get"))?;
        held.map(|held| Location::decode(held.value()).ok_or(BlockError::Corrupt { cid: *cid }))
            .transpose()
    }

    /// The block at `held`, checked; `None` if its segment is gone, because it was moved.
    fn read_at(&self, cid: &Cid, held: &Location) -> Result<Option<Vec<u8>>, BlockError> {
        let Some(file) = self.segments.file(held.segment) else {
            return Ok(None);
        };
        let corrupt = || BlockError::Corrupt { cid: *cid };
        if held.stored as usize > crate::MAX_BLOCK_BYTES {
            return Err(corrupt());
        }
        let mut stored = vec![0; held.stored as usize];
        match file.read_exact_at(&mut stored, held.offset) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(corrupt()),
            Err(e) => return Err(failed("read a block")(e)),
        }
        let bytes = record::unsqueeze(cid, held.kind, stored, held.length)?;
        verify(cid, &bytes).map_err(|_| corrupt())?;
        Ok(Some(bytes))
    }

    /// Forgets blocks, pinned or not; says how many were held. Their bytes stay on disk until
    /// they are collected.
    pub fn remove(&self, cids: &[Cid]) -> Result<usize, BlockError> {
        self.write("remove", |tables| {
            let mut removed = 0;
            for cid in cids {
                let key = canonical(cid)?.to_bytes();
                let held = tables.index.remove(key.as_slice());
                removed += usize::from(held.map_err(failed("remove"))?.is_some());
            }
            Ok(removed)
        })
    }

    /// Up to `limit` addresses held, in byte order after `after`: pages through the whole store.
    pub fn list(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<Cid>, BlockError> {
        use std::ops::Bound;
        let read = self.db.begin_read().map_err(failed("list"))?;
        let table = read.open_table(INDEX).map_err(failed("list"))?;
        let after = after.map(Cid::to_bytes);
        let start: Bound<&[u8]> = match &after {
            Some(key) => Bound::Excluded(key.as_slice()),
            None => Bound::Unbounded,
        };
        let mut cids = Vec::new();
        let range = table
            .range::<&[u8]>((start, Bound::Unbounded))
            .map_err(failed("list"))?;
        for row in range.take(limit) {
            let (key, _) = row.map_err(failed("list"))?;
            cids.push(Cid::try_from(key.value()).map_err(failed("read a key"))?);
        }
        Ok(cids)
    }

    /// Number of blocks held.
    pub fn len(&self) -> Result<u64, BlockError> {
        let read = self.db.begin_read().map_err(failed("count"))?;
        let table = read.open_table(INDEX).map_err(failed("count"))?;
        table.len().map_err(failed("count"))
    }

    /// Whether no block is held.
    pub fn is_empty(&self) -> Result<bool, BlockError> {
        Ok(self.len()? == 0)
    }

    /// What the store holds. Looks at every entry of the index.
    pub fn stat(&self) -> Result<Stat, BlockError> {
        let what = "stat";
        let read = self.db.begin_read().map_err(failed(what))?;
        let index = read.open_table(INDEX).map_err(failed(what))?;
        let pins = read.open_table(PINS).map_err(failed(what))?;
        let mut block_bytes = 0;
        for row in index.iter().map_err(failed(what))? {
            let (_, held) = row.map_err(failed(what))?;
            block_bytes += Location::decode(held.value()).map_or(0, |l| u64::from(l.length));
        }
        let stats = index.stats().map_err(failed(what))?;
        Ok(Stat {
            blocks: index.len().map_err(failed(what))?,
            block_bytes,
            stored_bytes: self.segments.total(),
            index_bytes: stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes(),
            pins: pins.len().map_err(failed(what))?,
            quota_bytes: self.quota()?,
        })
    }

    /// One durable transaction: the data is on disk when this returns.
    fn write<T>(
        &self,
        what: &'static str,
        change: impl FnOnce(&mut Tables<'_>) -> Result<T, BlockError>,
    ) -> Result<T, BlockError> {
        let mut tail = self.segments.tail();
        self.commit(what, Durability::Immediate, &mut tail, change)
    }

    /// The one place where the index changes. The tail is held, so that what a commit names was
    /// synced before it, and so that how far segments are used is written down with it.
    fn commit<T>(
        &self,
        what: &'static str,
        durability: Durability,
        tail: &mut Tail,
        change: impl FnOnce(&mut Tables<'_>) -> Result<T, BlockError>,
    ) -> Result<T, BlockError> {
        if matches!(durability, Durability::Immediate) {
            // A durable commit also makes those durable that waited for one.
            self.segments.sync(tail).map_err(failed("sync"))?;
        }
        let mut write = self.db.begin_write().map_err(failed(what))?;
        write.set_durability(durability).map_err(failed(what))?;
        let result = {
            let mut tables = Tables {
                index: write.open_table(INDEX).map_err(failed(what))?,
                ends: write.open_table(ENDS).map_err(failed(what))?,
                pins: write.open_table(PINS).map_err(failed(what))?,
                meta: write.open_table(META).map_err(failed(what))?,
            };
            change(&mut tables)?
        };
        write.commit().map_err(failed(what))?;
        Ok(result)
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// The folder of segments that belongs to an index.
fn segments_of(index: &Path) -> PathBuf {
    index.with_extension("segments")
}

/// Deletes a store, index and segments; what isn't there is no error.
pub fn remove_store(index: &Path) -> io::Result<()> {
    let absent = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(e),
    };
    fs::remove_file(index).or_else(absent)?;
    fs::remove_dir_all(segments_of(index)).or_else(absent)
}

struct Tables<'a> {
    index: redb::Table<'a, &'static [u8], &'static [u8]>,
    ends: redb::Table<'a, u32, u64>,
    pins: redb::Table<'a, &'static str, &'static [u8]>,
    meta: redb::Table<'a, &'static str, u64>,
}

fn now_minutes() -> u32 {
    // A clock before 1970 makes blocks look old; the pins keep what matters.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u32::try_from(since.as_secs() / 60).unwrap_or(u32::MAX)
    })
}

impl Blocks for BlockStore {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, BlockError> {
        let cid = canonical(cid)?;
        if let Some(content) = identity_content(&cid) {
            return Ok(Some(content.to_vec()));
        }
        for _ in 0..MAX_LOOKUPS {
            let Some(held) = self.locate(&cid)? else {
                return Ok(None);
            };
            if let Some(bytes) = self.read_at(&cid, &held)? {
                return Ok(Some(bytes));
            }
        }
        // Its segment is not there at all: somebody deleted it.
        Err(BlockError::Corrupt { cid })
    }

    fn has(&self, cid: &Cid) -> Result<bool, BlockError> {
        Ok(self.size_of(cid)?.is_some())
    }

    fn put(&self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        self.put_all([(cid, bytes)])
    }

    fn put_many(&self, blocks: &[(Cid, Vec<u8>)]) -> Result<(), BlockError> {
        self.put_all(blocks.iter().map(|(cid, bytes)| (cid, bytes.as_slice())))
    }

    fn lease(&self) -> Lease {
        self.gate.lease()
    }
}

fn failed<E: Into<Box<dyn Error + Send + Sync>>>(what: &'static str) -> impl Fn(E) -> BlockError {
    move |source| {
        let source: Box<dyn Error + Send + Sync> = source.into();
        let io = source.downcast_ref::<io::Error>().or_else(|| {
            match source.downcast_ref::<StorageError>() {
                Some(StorageError::Io(io)) => Some(io),
                _ => None,
            }
        });
        if io.is_some_and(|io| io.kind() == io::ErrorKind::StorageFull) {
            return BlockError::Full { what };
        }
        BlockError::Store { what, source }
    }
}
