//! The state file: one durable transaction a block, in which values, tree and head move together.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use instar_attest::Digest;
use instar_chain::view::Writes;
use instar_ledger::Oid;
use jmt::storage::TreeUpdateBatch;
use redb::{Database, ReadableDatabase, ReadableTable, TableHandle, WriteTransaction};

use crate::StoreError;
use crate::fork::Fork;
use crate::keys::{key_hash, split_row, value_row};
use crate::rows::{
    decode_computed, decode_head, decode_height, encode_head, read_floor, stale_row,
};
use crate::tables::{
    COMPUTED, DELETED, FORMAT, HEIGHTS, KEYS, META, NODES, PRESENT, STALE_NODES, STALE_VALUES,
    VALUES,
};
use crate::tree::{NodeCache, Nodes, encode_node, node_row, root_key, update};
use crate::view::{Export, View};

/// How far below the head what was computed for a block is kept: long enough to explain a disagreement.
pub const COMPUTED_KEPT_HEIGHTS: u64 = 256;

/// How often, in heights, old records of what was computed are thrown out.
const COMPUTED_SWEEP_HEIGHTS: u64 = 64;

/// How much memory redb may use for pages: a Pi has to live with it. The kernel has the file in its own cache, which it can take
/// back; more here makes no block faster.
const CACHE_BYTES: usize = 256 << 10;

/// The newest final block in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its height; 0 is genesis.
    pub height: u64,
    /// Its commit id; at height 0 the genesis commit.
    pub block: Oid,
    /// The state root after it.
    pub root: Digest,
    /// The certificate that made it final, as the caller encodes it; empty at height 0.
    pub certificate: Vec<u8>,
}

/// What this node itself computed for a block before it voted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Computed {
    /// The block's height.
    pub height: u64,
    /// The state root after the block.
    pub root: Digest,
    /// SHA-256 of the block's receipts.
    pub receipts: Digest,
}

/// The authenticated state in one file. Shared between threads by reference: reads run beside each other and beside
/// one writer.
pub struct StateStore {
    database: Database,
    path: PathBuf,
    cache: Arc<NodeCache>,
    /// Held while a block is committed, so that the head can't move between reading and writing it.
    writer: Mutex<()>,
    /// What [`StateStore::root_of`] worked out last. A block that is voted for is mostly the one committed next.
    prepared: Mutex<Option<Prepared>>,
}

/// A tree update that is worked out but not written.
struct Prepared {
    base: u64,
    writes: Writes,
    root: Digest,
    batch: TreeUpdateBatch,
}

impl StateStore {
    /// Opens the file, or makes it. Another process that has it open is an error, not a reason to wait.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)?;
        let store = Self {
            database,
            path: path.to_owned(),
            cache: Arc::new(NodeCache::default()),
            writer: Mutex::new(()),
            prepared: Mutex::new(None),
        };
        let found = {
            let txn = store.database.begin_read()?;
            match txn.open_table(META) {
                Ok(meta) => meta.get("format")?.map(|v| v.value().to_vec()),
                Err(redb::TableError::TableDoesNotExist(_)) => None,
                Err(error) => return Err(error.into()),
            }
        };
        match found {
            Some(format) if format == FORMAT.as_bytes() => store.fill_keys()?,
            Some(other) => {
                return Err(StoreError::Format {
                    found: String::from_utf8_lossy(&other).into_owned(),
                    expected: FORMAT,
                });
            }
            None => store.create_tables()?,
        }
        Ok(store)
    }

    fn create_tables(&self) -> Result<(), StoreError> {
        let txn = self.begin_write()?;
        txn.open_table(META)?.insert("format", FORMAT.as_bytes())?;
        txn.open_table(NODES)?;
        txn.open_table(VALUES)?;
        txn.open_table(KEYS)?;
        txn.open_table(HEIGHTS)?;
        txn.open_table(COMPUTED)?;
        txn.open_table(STALE_NODES)?;
        txn.open_table(STALE_VALUES)?;
        txn.commit()?;
        Ok(())
    }

    /// Writes the table of keys into a file from before there was one.
    fn fill_keys(&self) -> Result<(), StoreError> {
        let txn = self.begin_write()?;
        if txn.list_tables()?.any(|table| table.name() == KEYS.name()) {
            return Ok(());
        }
        {
            let mut keys = txn.open_table(KEYS)?;
            for row in txn.open_table(VALUES)?.iter()? {
                let (row, _) = row?;
                let (key, _) = split_row(row.value())
                    .ok_or_else(|| StoreError::Damaged("a value's row has no key".to_owned()))?;
                keys.insert(key_hash(key).0.as_slice(), key)?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the genesis state as height 0. Doing it again with the same genesis changes nothing.
    pub fn init(&self, genesis: Oid, writes: &Writes) -> Result<Digest, StoreError> {
        let guard = self.lock();
        let nodes = Nodes(|_: &_| Ok(None));
        let (root, batch) = update(&nodes, 0, writes)?;
        let root = Digest::from_bytes(root);
        if self.head()?.is_some() {
            let (block, there) = self.height_row(0)?.ok_or(StoreError::OtherGenesis)?;
            if block != genesis || there != root {
                return Err(StoreError::OtherGenesis);
            }
            return Ok(root);
        }
        let head = Head {
            height: 0,
            block: genesis,
            root,
            certificate: Vec::new(),
        };
        self.write_block(&guard, &head, writes, &batch, None)?;
        Ok(root)
    }

    /// The newest final block, or `None` before [`StateStore::init`].
    pub fn head(&self) -> Result<Option<Head>, StoreError> {
        let meta = self.database.begin_read()?.open_table(META)?;
        let row = meta.get("head")?;
        row.map(|row| decode_head(row.value())).transpose()
    }

    /// The block and the state root at a height, if it is there. Kept for every height, also pruned ones.
    pub fn height_row(&self, height: u64) -> Result<Option<(Oid, Digest)>, StoreError> {
        let heights = self.database.begin_read()?.open_table(HEIGHTS)?;
        let row = heights.get(height)?;
        row.map(|row| decode_height(row.value())).transpose()
    }

    /// The state at the head.
    pub fn view(&self) -> Result<View, StoreError> {
        self.view_in(None)
    }

    /// The state after the block at `height`.
    pub fn view_at(&self, height: u64) -> Result<View, StoreError> {
        self.view_in(Some(height))
    }

    /// As [`StateStore::view_at`], for walks over everything: what such a walk reads does not push the nodes out of memory
    /// that blocks need.
    pub fn view_aside(&self, height: u64) -> Result<View, StoreError> {
        self.view_with(Some(height), Arc::default())
    }

    /// The lowest height that can be read.
    pub fn floor(&self) -> Result<u64, StoreError> {
        read_floor(&self.database.begin_read()?.open_table(META)?)
    }

    fn view_in(&self, height: Option<u64>) -> Result<View, StoreError> {
        self.view_with(height, self.cache.clone())
    }

    fn view_with(&self, height: Option<u64>, cache: Arc<NodeCache>) -> Result<View, StoreError> {
        // Everything is read in one snapshot: the head may move meanwhile.
        let txn = self.database.begin_read()?;
        let meta = txn.open_table(META)?;
        let head = match meta.get("head")? {
            Some(row) => decode_head(row.value())?.height,
            None => return Err(StoreError::Uninitialised),
        };
        let floor = read_floor(&meta)?;
        let height = height.unwrap_or(head);
        if height > head {
            return Err(StoreError::Future { height, head });
        }
        if height < floor {
            return Err(StoreError::Pruned { height, floor });
        }
        let row = txn
            .open_table(HEIGHTS)?
            .get(height)?
            .map(|row| decode_height(row.value()));
        let (_, root) =
            row.ok_or_else(|| StoreError::Damaged(format!("height {height} is missing")))??;
        View::new(&txn, cache, height, *root.as_bytes())
    }

    /// The root that a block at `base + 1` with these writes would have. Nothing is kept.
    pub fn root_of(&self, base: u64, writes: &Writes) -> Result<Digest, StoreError> {
        let view = self.view_at(base)?;
        let (root, batch) = compute(&view, writes)?;
        let root = Digest::from_bytes(root);
        let prepared = Prepared {
            base,
            writes: writes.clone(),
            root,
            batch,
        };
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = Some(prepared);
        Ok(root)
    }

    /// The update that was worked out last, if it is this one.
    fn take_prepared(&self, base: u64, writes: &Writes) -> Option<(Digest, TreeUpdateBatch)> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        // Old states never change, so what was worked out on one stays right.
        let fits = prepared
            .as_ref()
            .is_some_and(|p| p.base == base && p.writes == *writes);
        fits.then(|| prepared.take().map(|p| (p.root, p.batch)))
            .flatten()
    }

    /// A fork of the state at `base` in memory, for trying out blocks.
    pub fn fork(&self, base: u64) -> Result<Fork, StoreError> {
        Ok(Fork::on(self.view_at(base)?))
    }

    /// All keys and values at a height, in key order and checked. It may run long and blocks no commit.
    pub fn export(&self, height: u64) -> Result<Export, StoreError> {
        Ok(self.view_at(height)?.export())
    }

    /// Makes a block final: writes, tree and head in one transaction that is on disk when this returns. Doing it again
    /// for the head changes nothing, so that a caller that was killed can simply go on.
    pub fn commit(
        &self,
        height: u64,
        block: Oid,
        certificate: &[u8],
        writes: &Writes,
    ) -> Result<Digest, StoreError> {
        let guard = self.lock();
        let head = self.head()?.ok_or(StoreError::Uninitialised)?;
        if head.height == height && head.block == block {
            return Ok(head.root);
        }
        if head.height + 1 != height {
            return Err(StoreError::NotNext {
                height,
                head: head.height,
            });
        }
        let view = self.view_at(head.height)?;
        let (root, batch) = match self.take_prepared(head.height, writes) {
            Some(prepared) => prepared,
            None => {
                let (root, batch) = compute(&view, writes)?;
                (Digest::from_bytes(root), batch)
            }
        };
        let head = Head {
            height,
            block,
            root,
            certificate: certificate.to_vec(),
        };
        self.write_block(&guard, &head, writes, &batch, Some(&view))?;
        Ok(root)
    }

    /// Keeps what this node computed for a block; it is on disk when this returns, so a vote may follow.
    pub fn record_computed(&self, block: Oid, computed: &Computed) -> Result<(), StoreError> {
        let mut row = computed.height.to_be_bytes().to_vec();
        row.extend_from_slice(computed.root.as_bytes());
        row.extend_from_slice(computed.receipts.as_bytes());
        let txn = self.begin_write()?;
        txn.open_table(COMPUTED)?
            .insert(block.as_bytes().as_slice(), row.as_slice())?;
        txn.commit()?;
        Ok(())
    }

    /// What this node computed for a block, if that is recent.
    pub fn computed(&self, block: Oid) -> Result<Option<Computed>, StoreError> {
        let table = self.database.begin_read()?.open_table(COMPUTED)?;
        let row = table.get(block.as_bytes().as_slice())?;
        row.map(|row| decode_computed(row.value())).transpose()
    }

    pub(crate) fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let mut txn = self.database.begin_write()?;
        txn.set_durability(redb::Durability::Immediate)?;
        Ok(txn)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        // A panic while it was held left no half transaction behind, so the lock is as good as new.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_block(
        &self,
        _writer: &MutexGuard<'_, ()>,
        head: &Head,
        writes: &Writes,
        batch: &TreeUpdateBatch,
        before: Option<&View>,
    ) -> Result<(), StoreError> {
        let version = head.height;
        let txn = self.begin_write()?;
        {
            let mut nodes = txn.open_table(NODES)?;
            for (key, node) in batch.node_batch.nodes() {
                let row = node_row(key);
                nodes.insert(row.as_slice(), encode_node(&row, node).as_slice())?;
            }
            let mut stale = txn.open_table(STALE_NODES)?;
            for index in &batch.stale_node_index_batch {
                stale.insert(
                    stale_row(version, &node_row(&index.node_key)).as_slice(),
                    (),
                )?;
            }
            if let Some(before) = before {
                // A block without effect copies the root node to its version, and jmt does not call the old one stale.
                let old = node_row(&root_key(before.height()));
                stale.insert(stale_row(version, &old).as_slice(), ())?;
            }
            write_values(&txn, version, writes, before)?;
            let mut row = head.block.as_bytes().to_vec();
            row.extend_from_slice(head.root.as_bytes());
            txn.open_table(HEIGHTS)?.insert(version, row.as_slice())?;
            txn.open_table(META)?
                .insert("head", encode_head(head).as_slice())?;
            if version.is_multiple_of(COMPUTED_SWEEP_HEIGHTS) {
                let oldest = version.saturating_sub(COMPUTED_KEPT_HEIGHTS);
                txn.open_table(COMPUTED)?
                    .retain(|_, row| decode_computed(row).is_ok_and(|c| c.height >= oldest))?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}

fn write_values(
    txn: &WriteTransaction,
    version: u64,
    writes: &Writes,
    before: Option<&View>,
) -> Result<(), StoreError> {
    let mut values = txn.open_table(VALUES)?;
    let mut stale = txn.open_table(STALE_VALUES)?;
    let mut keys = txn.open_table(KEYS)?;
    for (key, value) in writes {
        let old = match before {
            Some(view) => view.newest_version(key)?,
            None => None,
        };
        let was_there = old.is_some_and(|(_, there)| there);
        if value.is_none() && !was_there {
            continue;
        }
        if old.is_none() {
            keys.insert(key_hash(key).0.as_slice(), key.as_str())?;
        }
        if let Some((old, _)) = old {
            stale.insert(stale_row(version, &value_row(key, old)).as_slice(), ())?;
        }
        let row = value_row(key, version);
        match value {
            Some(value) => {
                let mut bytes = Vec::with_capacity(value.len() + 1);
                bytes.push(PRESENT);
                bytes.extend_from_slice(value);
                values.insert(row.as_slice(), bytes.as_slice())?;
            }
            None => {
                values.insert(row.as_slice(), DELETED)?;
                // Below a deletion there is nothing to find, so the mark itself may go: one version after what it hides,
                // so that no half-done pruning brings that back.
                stale.insert(stale_row(version + 1, &row).as_slice(), ())?;
            }
        }
    }
    Ok(())
}

/// The tree on top of a view: the new root, and what has to be written for it.
pub(crate) fn compute(
    view: &View,
    writes: &Writes,
) -> Result<([u8; 32], TreeUpdateBatch), StoreError> {
    view.check_paths(writes.keys())?;
    update(
        &Nodes(|key: &_| view.raw_node(key)),
        view.height() + 1,
        writes,
    )
}
