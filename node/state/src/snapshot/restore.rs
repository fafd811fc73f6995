//! A state file from chunks, in any order, over any number of runs: each chunk is proven, and then durable.

use std::collections::BTreeSet;
use std::path::Path;

use instar_attest::Digest;
use redb::{ReadableTable, TableDefinition};

use super::build::{self, Top};
use super::chunk::{self, ChunkError};
use super::prefix::Prefix;
use crate::StoreError;
use crate::keys::value_row;
use crate::rows::{damaged, decode_head, encode_head};
use crate::store::{Head, StateStore};
use crate::tables::{HEIGHTS, KEYS, META, NODES, PRESENT, VALUES};
use crate::tree::{EMPTY_ROOT, encode_node, node_row, root_key};

/// The head that a file will have; a row of the table of facts as long as it is not whole.
const TARGET: &str = "restoring";
/// The tops of each chunk that is there, by its place: depth (u16 BE), bits (32).
const CHUNKS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("chunks");

/// Why a restore does not go on.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The chunk proves nothing.
    #[error("the chunk does not prove: {0}")]
    Chunk(#[from] ChunkError),
    /// What it has is there already, or it is a part of it: it was cut in another way.
    #[error("the chunk at {new:?} overlaps the one at {there:?}", new = new.to_string(), there = there.to_string())]
    Overlap {
        /// The new one's place.
        new: Prefix,
        /// The place of the one that is there.
        there: Prefix,
    },
    /// Chunks are missing.
    #[error("with {chunks} chunks the root is {got}, not {expected}: chunks are missing")]
    Incomplete {
        /// How many there are.
        chunks: usize,
        /// The root of what is there.
        got: Digest,
        /// The root that it should have.
        expected: Digest,
    },
    /// The file has a state, or is on the way to another one.
    #[error("the state file is at height {there}, not on the way to height {wanted}")]
    OtherTarget {
        /// Where it is, or is going.
        there: u64,
        /// What was wanted.
        wanted: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

macro_rules! from_redb {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for RestoreError {
            fn from(error: redb::$kind) -> Self {
                Self::Store(error.into())
            }
        }
    )*};
}
from_redb!(CommitError, StorageError, TableError, TransactionError);

/// A state file that is being made of chunks.
pub struct Restore {
    store: StateStore,
    target: Head,
    done: BTreeSet<Prefix>,
}

impl Restore {
    /// Begins a state file, or goes on with one whose target is the same head.
    pub fn open(path: &Path, target: &Head) -> Result<Self, RestoreError> {
        let store = StateStore::open(path)?;
        let other = |there: &Head| RestoreError::OtherTarget {
            there: there.height,
            wanted: target.height,
        };
        if let Some(head) = store.head()? {
            return Err(other(&head));
        }
        let txn = store.begin_write()?;
        let there = {
            let mut meta = txn.open_table(META)?;
            let there = meta
                .get(TARGET)?
                .map(|row| decode_head(row.value()))
                .transpose()?;
            if there.is_none() {
                meta.insert(TARGET, encode_head(target).as_slice())?;
            }
            there
        };
        if let Some(there) = there.filter(|there| there != target) {
            return Err(other(&there));
        }
        let mut done = BTreeSet::new();
        for row in txn.open_table(CHUNKS)?.iter()? {
            done.insert(place_of(row?.0.value())?);
        }
        txn.commit()?;
        Ok(Self {
            store,
            target: target.clone(),
            done,
        })
    }

    /// Whether the chunk of this place is there.
    pub fn has(&self, prefix: &Prefix) -> bool {
        self.done.contains(prefix)
    }

    /// How many chunks are there.
    pub fn count(&self) -> usize {
        self.done.len()
    }

    /// Proves a chunk and takes it in; it is on disk when this returns. Its place, and how many keys it has. One that is
    /// there already changes nothing.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(Prefix, usize), RestoreError> {
        let chunk = chunk::check(&self.target.root, bytes)?;
        let (prefix, leaves) = (*chunk.prefix(), chunk.leaves());
        if self.has(&prefix) {
            return Ok((prefix, leaves.len()));
        }
        // In the order of places only the neighbours can overlap.
        let before = self.done.range(..&prefix).next_back();
        let after = self.done.range(&prefix..).next();
        let overlap = before
            .filter(|b| b.contains(&prefix))
            .or(after.filter(|a| prefix.contains(a)));
        if let Some(there) = overlap {
            return Err(RestoreError::Overlap {
                new: prefix,
                there: *there,
            });
        }
        let version = self.target.height;
        let txn = self.store.begin_write()?;
        {
            let (mut values, mut keys) = (txn.open_table(VALUES)?, txn.open_table(KEYS)?);
            for leaf in leaves {
                let mut value = Vec::with_capacity(leaf.value.len() + 1);
                value.push(PRESENT);
                value.extend_from_slice(&leaf.value);
                values.insert(value_row(&leaf.key, version).as_slice(), value.as_slice())?;
                keys.insert(leaf.hash.0.as_slice(), leaf.key.as_str())?;
            }
            let mut nodes = txn.open_table(NODES)?;
            let depth = usize::from(prefix.depth()).div_ceil(4);
            let tops = build::below(version, leaves, depth, &mut |key, node| {
                let row = node_row(&key);
                nodes.insert(row.as_slice(), encode_node(&row, &node).as_slice())?;
                Ok(())
            })?;
            let mut row = Vec::new();
            tops.iter().for_each(|top| top.write(&mut row));
            txn.open_table(CHUNKS)?
                .insert(place_row(&prefix).as_slice(), row.as_slice())?;
        }
        txn.commit()?;
        self.done.insert(prefix);
        Ok((prefix, leaves.len()))
    }

    /// Makes the rest of the tree and, if its root is the target's, the file a state like any other, readable from the
    /// target's height on.
    pub fn finish(self) -> Result<StateStore, RestoreError> {
        let version = self.target.height;
        let txn = self.store.begin_write()?;
        let got = {
            let mut tops = Vec::new();
            for row in txn.open_table(CHUNKS)?.iter()? {
                tops.extend(Top::read_all(row?.1.value())?);
            }
            tops.sort_by(|a, b| a.path.cmp(&b.path));
            let mut nodes = txn.open_table(NODES)?;
            let mut write = |key: jmt::storage::NodeKey, node: jmt::storage::Node| {
                let row = node_row(&key);
                nodes.insert(row.as_slice(), encode_node(&row, &node).as_slice())?;
                Ok::<_, StoreError>(())
            };
            if tops.is_empty() {
                write(root_key(version), jmt::storage::Node::Null)?;
                EMPTY_ROOT
            } else {
                build::above(version, Vec::new(), &tops, &mut write)?.hash
            }
        };
        let got = Digest::from_bytes(got);
        if got != self.target.root {
            return Err(RestoreError::Incomplete {
                chunks: self.done.len(),
                got,
                expected: self.target.root,
            });
        }
        txn.delete_table(CHUNKS)?;
        {
            let mut row = self.target.block.as_bytes().to_vec();
            row.extend_from_slice(self.target.root.as_bytes());
            txn.open_table(HEIGHTS)?.insert(version, row.as_slice())?;
            let mut meta = txn.open_table(META)?;
            meta.remove(TARGET)?;
            meta.insert("floor", version.to_be_bytes().as_slice())?;
            meta.insert("head", encode_head(&self.target).as_slice())?;
        }
        txn.commit()?;
        Ok(self.store)
    }
}

fn place_row(prefix: &Prefix) -> Vec<u8> {
    let mut row = prefix.depth().to_be_bytes().to_vec();
    row.extend_from_slice(prefix.bytes());
    row.resize(34, 0);
    row
}

fn place_of(row: &[u8]) -> Result<Prefix, StoreError> {
    let parse = || {
        let (depth, bits) = row.split_first_chunk::<2>()?;
        Prefix::new(u16::from_be_bytes(*depth), bits.try_into().ok()?)
    };
    parse().ok_or_else(|| damaged("a chunk's place is none"))
}
