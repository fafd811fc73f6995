//! The block store of a node: one crash-safe file, blocks checked on the way in and on the way out.

use std::error::Error;
use std::io;
use std::path::Path;

use cid::Cid;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::block::{BlockError, Blocks, canonical, identity_content, verify};

/// Blocks by the bytes of their CIDv1.
const BLOCKS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("blocks");
/// Pinned roots by name.
const PINS: TableDefinition<&str, &[u8]> = TableDefinition::new("pins");

/// Memory that the store may use to cache pages.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// A batch is made durable whenever this much has gathered, so that memory stays bounded.
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Longest name of a pin.
pub const MAX_PIN_NAME_BYTES: usize = 255;

/// Blocks and pins on disk. One process at a time opens a file; threads share one store.
pub struct BlockStore {
    db: Database,
}

impl std::fmt::Debug for BlockStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockStore")
    }
}

impl BlockStore {
    /// Opens the store in the file `path`, which is made if it isn't there.
    pub fn open(path: &Path) -> Result<Self, BlockError> {
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(failed("open"))?;
        let store = Self { db };
        store.write("open", |_, _| Ok(()))?;
        Ok(store)
    }

    /// Keeps all of `blocks` in one durable step: after a crash all of them are there or none.
    pub fn put_all<'a>(
        &self,
        blocks: impl IntoIterator<Item = (&'a Cid, &'a [u8])>,
    ) -> Result<(), BlockError> {
        self.write("put", |table, _| {
            for (cid, bytes) in blocks {
                insert(table, cid, bytes)?;
            }
            Ok(())
        })
    }

    /// Keeps a block without waiting for the disk: it is readable at once, and durable with the next
    /// durable step, which a pin is. For blocks that come one by one before they are pinned.
    pub fn put_later(&self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        self.commit("put", Durability::None, |table, _| {
            insert(table, cid, bytes)
        })
    }

    /// Gathers blocks and keeps them in durable steps of about [`BATCH_BYTES`].
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            store: self,
            pending: Vec::new(),
            bytes: 0,
        }
    }

    /// Size of the block in bytes, if it is held. It is not checked.
    pub fn size_of(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        let cid = canonical(cid)?;
        if let Some(content) = identity_content(&cid) {
            return Ok(Some(content.len()));
        }
        let read = self.db.begin_read().map_err(failed("get"))?;
        let table = read.open_table(BLOCKS).map_err(failed("get"))?;
        let held = table
            .get(cid.to_bytes().as_slice())
            .map_err(failed("get"))?;
        Ok(held.map(|held| held.value().len()))
    }

    /// Forgets blocks, pinned or not; says how many were held.
    pub fn remove(&self, cids: &[Cid]) -> Result<usize, BlockError> {
        self.write("remove", |table, _| {
            let mut removed = 0;
            for cid in cids {
                let key = canonical(cid)?.to_bytes();
                let held = table.remove(key.as_slice()).map_err(failed("remove"))?;
                removed += usize::from(held.is_some());
            }
            Ok(removed)
        })
    }

    /// Up to `limit` addresses held, in byte order after `after`: pages through the whole store.
    pub fn list(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<Cid>, BlockError> {
        use std::ops::Bound;
        let read = self.db.begin_read().map_err(failed("list"))?;
        let table = read.open_table(BLOCKS).map_err(failed("list"))?;
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
        use redb::ReadableTableMetadata;
        let read = self.db.begin_read().map_err(failed("count"))?;
        let table = read.open_table(BLOCKS).map_err(failed("count"))?;
        table.len().map_err(failed("count"))
    }

    /// Whether no block is held.
    pub fn is_empty(&self) -> Result<bool, BlockError> {
        Ok(self.len()? == 0)
    }

    /// Pins `root` under `name`; a name holds one root, the latest.
    pub fn pin(&self, name: &str, root: &Cid) -> Result<(), BlockError> {
        let root = canonical(root)?;
        if name.is_empty() || name.len() > MAX_PIN_NAME_BYTES {
            return Err(BlockError::Store {
                what: "pin",
                source: "the name of a pin has 1 to 255 bytes".into(),
            });
        }
        self.write("pin", |_, pins| {
            pins.insert(name, root.to_bytes().as_slice())
                .map_err(failed("pin"))?;
            Ok(())
        })
    }

    /// Drops the pin `name`; true if there was one. Its blocks stay until they are collected.
    pub fn unpin(&self, name: &str) -> Result<bool, BlockError> {
        self.write("unpin", |_, pins| {
            Ok(pins.remove(name).map_err(failed("unpin"))?.is_some())
        })
    }

    /// All pins by name.
    pub fn pins(&self) -> Result<Vec<(String, Cid)>, BlockError> {
        let read = self.db.begin_read().map_err(failed("list pins"))?;
        let table = read.open_table(PINS).map_err(failed("list pins"))?;
        let mut pins = Vec::new();
        for row in table.iter().map_err(failed("list pins"))? {
            let (name, cid) = row.map_err(failed("list pins"))?;
            let cid = Cid::try_from(cid.value()).map_err(failed("read a pin"))?;
            pins.push((name.value().to_owned(), cid));
        }
        Ok(pins)
    }

    /// One durable transaction: the data is on disk when this returns.
    fn write<T>(
        &self,
        what: &'static str,
        change: impl FnOnce(&mut BlockTable<'_>, &mut PinTable<'_>) -> Result<T, BlockError>,
    ) -> Result<T, BlockError> {
        self.commit(what, Durability::Immediate, change)
    }

    fn commit<T>(
        &self,
        what: &'static str,
        durability: Durability,
        change: impl FnOnce(&mut BlockTable<'_>, &mut PinTable<'_>) -> Result<T, BlockError>,
    ) -> Result<T, BlockError> {
        let mut write = self.db.begin_write().map_err(failed(what))?;
        write.set_durability(durability).map_err(failed(what))?;
        let result = {
            let mut blocks = write.open_table(BLOCKS).map_err(failed(what))?;
            let mut pins = write.open_table(PINS).map_err(failed(what))?;
            change(&mut blocks, &mut pins)?
        };
        write.commit().map_err(failed(what))?;
        Ok(result)
    }
}

type BlockTable<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;
type PinTable<'a> = redb::Table<'a, &'static str, &'static [u8]>;

fn insert(table: &mut BlockTable<'_>, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
    let cid = canonical(cid)?;
    verify(&cid, bytes)?;
    if identity_content(&cid).is_some() {
        return Ok(());
    }
    let key = cid.to_bytes();
    // Content under an address never changes; writing it again would only wear the disk. A copy
    // that went bad is replaced.
    let held = table.get(key.as_slice()).map_err(failed("get"))?;
    if held.is_some_and(|held| held.value() == bytes) {
        return Ok(());
    }
    table.insert(key.as_slice(), bytes).map_err(failed("put"))?;
    Ok(())
}

impl Blocks for BlockStore {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, BlockError> {
        let cid = canonical(cid)?;
        if let Some(content) = identity_content(&cid) {
            return Ok(Some(content.to_vec()));
        }
        let read = self.db.begin_read().map_err(failed("get"))?;
        let table = read.open_table(BLOCKS).map_err(failed("get"))?;
        let held = table
            .get(cid.to_bytes().as_slice())
            .map_err(failed("get"))?;
        let Some(held) = held else {
            return Ok(None);
        };
        let bytes = held.value().to_vec();
        verify(&cid, &bytes).map_err(|_| BlockError::Corrupt { cid })?;
        Ok(Some(bytes))
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
}

/// Blocks on their way into a store. What was not yet committed is forgotten when this is dropped.
#[derive(Debug)]
pub struct Batch<'a> {
    store: &'a BlockStore,
    pending: Vec<(Cid, Vec<u8>)>,
    bytes: usize,
}

impl Batch<'_> {
    /// Adds a block; every [`BATCH_BYTES`] or so the gathered ones become durable. The shape fits
    /// [`crate::add_file`].
    pub fn put(&mut self, cid: &Cid, bytes: &[u8]) -> io::Result<()> {
        self.pending.push((*cid, bytes.to_vec()));
        self.bytes += bytes.len();
        if self.bytes >= BATCH_BYTES {
            self.flush().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Makes the rest durable.
    pub fn commit(mut self) -> Result<(), BlockError> {
        self.flush()
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        let pending = std::mem::take(&mut self.pending);
        self.bytes = 0;
        self.store.put_many(&pending)
    }
}

fn failed<E: Into<Box<dyn Error + Send + Sync>>>(what: &'static str) -> impl Fn(E) -> BlockError {
    move |source| BlockError::Store {
        what,
        source: source.into(),
    }
}
