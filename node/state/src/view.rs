//! Reading the state at one height. Every value is checked against the tree before it is given out.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use instar_attest::Digest;
use instar_chain::view::{StateError, StateView, is_key};
use jmt::KeyHash;
use jmt::storage::{LeafNode, Node, NodeKey};
use redb::{ReadOnlyTable, ReadTransaction};
use sha2::Sha256;

use crate::StoreError;
use crate::error::chain_of;
use crate::keys::{after_key, after_prefix, key_hash, split_row, value_hash, value_row};
use crate::tables::{DELETED, KEYS, NODES, PRESENT, VALUES};
use crate::tree::{
    EMPTY_ROOT, NodeCache, decode_node, nibble, node_hash, node_row, path_key, root_key,
};

/// How many rows an export reads at a time.
const EXPORT_PAGE: usize = 256;

/// The state at one height, as it was when the view was made: later commits don't change it, and it blocks none.
pub struct View {
    nodes: ReadOnlyTable<&'static [u8], &'static [u8]>,
    values: ReadOnlyTable<&'static [u8], &'static [u8]>,
    keys: ReadOnlyTable<&'static [u8], &'static str>,
    cache: Arc<NodeCache>,
    height: u64,
    root: [u8; 32],
}

impl View {
    pub(crate) fn new(
        txn: &ReadTransaction,
        cache: Arc<NodeCache>,
        height: u64,
        root: [u8; 32],
    ) -> Result<Self, StoreError> {
        Ok(Self {
            nodes: txn.open_table(NODES)?,
            values: txn.open_table(VALUES)?,
            keys: txn.open_table(KEYS)?,
            cache,
            height,
            root,
        })
    }

    /// The height that is read.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The state root at this height.
    pub fn root(&self) -> Digest {
        Digest::from_bytes(self.root)
    }

    /// All keys and values in key order, each checked against the tree. The iterator keeps the view's snapshot, so it
    /// may take as long as it likes.
    pub fn export(self) -> Export {
        Export {
            view: self,
            next: Some(Vec::new()),
            page: Vec::new().into_iter(),
        }
    }

    /// Walks the whole tree and all values and compares them: that every stored value is the one that the tree has,
    /// and that none is missing. Returns the number of keys. Costs a read of everything.
    pub fn verify_all(&self) -> Result<u64, StateError> {
        let mut keys = 0;
        let mut from = Some(Vec::new());
        while let Some(start) = from {
            let (page, next) = self.page(start, None, EXPORT_PAGE)?;
            keys += page.len() as u64;
            from = next;
        }
        let leaves = match self.root {
            EMPTY_ROOT => 0,
            root => match &*self.checked_node(root_key(self.height), root, "")? {
                Node::Null => 0,
                Node::Leaf(_) => 1,
                Node::Internal(node) => node.leaf_count() as u64,
            },
        };
        if keys != leaves {
            // Every value found is in the tree, so the difference is values that are missing.
            return Err(StateError::Corrupt {
                key: String::new(),
                why: format!("the tree has {leaves} keys, but only {keys} values are stored"),
            });
        }
        Ok(keys)
    }

    /// A node as it stands in the table, unchecked: for building on it. What comes out has another root if it is false.
    pub(crate) fn raw_node(&self, key: &NodeKey) -> Result<Option<Node>, StoreError> {
        if let Some(node) = self.cache.get(key) {
            return Ok(Some((*node).clone()));
        }
        let at = node_row(key);
        let Some(row) = self.nodes.get(at.as_slice())? else {
            return Ok(None);
        };
        decode_node(&at, row.value())
            .map(Some)
            .ok_or_else(|| StoreError::Damaged(format!("tree node {key:?} can't be decoded")))
    }

    /// A node whose hash is `expected`. `for_key` is whose path is walked, for the error.
    pub(crate) fn checked_node(
        &self,
        key: NodeKey,
        expected: [u8; 32],
        for_key: &str,
    ) -> Result<Arc<Node>, StateError> {
        if let Some(node) = self.cache.get(&key) {
            return Ok(node);
        }
        let corrupt = |why: String| StateError::Corrupt {
            key: for_key.to_owned(),
            why,
        };
        let at = node_row(&key);
        let row = self.nodes.get(at.as_slice()).map_err(io)?;
        let row = row.ok_or_else(|| corrupt(format!("tree node {key:?} is missing")))?;
        let node = decode_node(&at, row.value())
            .filter(|node| node_hash(node) == expected)
            .ok_or_else(|| {
                corrupt(format!(
                    "tree node {key:?} is not what its parent commits to"
                ))
            })?;
        let node = Arc::new(node);
        self.cache.put(key, node.clone());
        Ok(node)
    }

    /// Walks from the root towards a key and returns the leaf there: its hash and where its node stands. It may be the
    /// leaf of another key, alone in this part of the tree. Each step is checked.
    fn leaf(
        &self,
        hash: &KeyHash,
        for_key: &str,
    ) -> Result<Option<([u8; 32], NodeKey)>, StateError> {
        if self.root == EMPTY_ROOT {
            return Ok(None);
        }
        let mut key = root_key(self.height);
        let mut expected = self.root;
        // A path has 64 nibbles; only damage could lead deeper, and that shows as a hash.
        for depth in 0..64 {
            match &*self.checked_node(key.clone(), expected, for_key)? {
                Node::Null => return Ok(None),
                Node::Leaf(_) => return Ok(Some((expected, key))),
                Node::Internal(node) => {
                    let Some(child) = node.child(nibble(hash, depth).into()) else {
                        return Ok(None);
                    };
                    expected = child.hash;
                    key = path_key(child.version, hash, depth + 1);
                    if child.is_leaf() {
                        return Ok(Some((expected, key)));
                    }
                }
            }
        }
        Err(StateError::Corrupt {
            key: for_key.to_owned(),
            why: "the tree is deeper than a key is long".to_owned(),
        })
    }

    /// Checks the tree along the paths of these keys, so that nothing is built on a damaged node unnoticed.
    pub(crate) fn check_paths<'k>(
        &self,
        keys: impl Iterator<Item = &'k String>,
    ) -> Result<(), StateError> {
        for key in keys {
            if let Some((expected, node_key)) = self.leaf(&key_hash(key), key)? {
                self.checked_node(node_key, expected, key)?;
            }
        }
        Ok(())
    }

    /// Checks what the table says of a key against the tree.
    pub(crate) fn check(&self, key: &str, stored: Option<&[u8]>) -> Result<(), StateError> {
        let hash = key_hash(key);
        let leaf = self.leaf(&hash, key)?;
        let corrupt = |why: &str| {
            Err(StateError::Corrupt {
                key: key.to_owned(),
                why: why.to_owned(),
            })
        };
        match (stored, leaf) {
            (None, None) => Ok(()),
            (Some(_), None) => corrupt("a value is stored that the tree does not have"),
            (Some(value), Some((expected, _))) => {
                if LeafNode::new(hash, value_hash(value)).hash::<Sha256>() == expected {
                    return Ok(());
                }
                corrupt("the stored value is not the one in the tree")
            }
            (None, Some((expected, node_key))) => {
                match &*self.checked_node(node_key, expected, key)? {
                    Node::Leaf(leaf) if leaf.key_hash() == hash => {
                        corrupt("the tree has a value that is not stored")
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// The key behind a key hash, if it was in the state once.
    pub(crate) fn key_of(&self, hash: &KeyHash) -> Result<Option<String>, StoreError> {
        let row = self.keys.get(hash.0.as_slice())?;
        Ok(row.map(|key| key.value().to_owned()))
    }

    /// The newest row of a key at or below this height.
    pub(crate) fn stored(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        let (start, end) = (value_row(key, self.height), after_key(key));
        let mut rows = self
            .values
            .range(start.as_slice()..end.as_slice())
            .map_err(io)?;
        match rows.next() {
            None => Ok(None),
            Some(row) => present(key, row.map_err(io)?.1.value()),
        }
    }

    /// Whether the newest row of a key below this view's height says that it is there, and that row's version.
    pub(crate) fn newest_version(&self, key: &str) -> Result<Option<(u64, bool)>, StoreError> {
        let (start, end) = (value_row(key, self.height), after_key(key));
        let mut rows = self.values.range(start.as_slice()..end.as_slice())?;
        let Some(row) = rows.next() else {
            return Ok(None);
        };
        let (row, value) = row?;
        let (_, version) = split_row(row.value())
            .ok_or_else(|| StoreError::Damaged(format!("a value row of {key}")))?;
        Ok(Some((version, value.value() != DELETED)))
    }

    /// Up to `limit` checked values from `start` on, and where the next page begins if there may be one.
    #[allow(clippy::type_complexity)]
    fn page(
        &self,
        start: Vec<u8>,
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<(String, Vec<u8>)>, Option<Vec<u8>>), StateError> {
        let mut found = Vec::new();
        let mut from = start;
        // Each round finds one key: its newest row at or below our height, wherever its history begins.
        loop {
            if found.len() == limit {
                return Ok((found, Some(from)));
            }
            let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
            let bounds = (Bound::Included(from.as_slice()), upper);
            let mut rows = self.values.range::<&[u8]>(bounds).map_err(io)?;
            let Some(row) = rows.next() else {
                return Ok((found, None));
            };
            let (row, value) = row.map_err(io)?;
            let (key, version) = split_row(row.value()).ok_or_else(|| {
                StateError::Io("a row in the table of values has no key".to_owned())
            })?;
            let value = if version <= self.height {
                present(key, value.value())?
            } else {
                self.stored(key)?
            };
            if let Some(value) = value {
                self.check(key, Some(&value))?;
                found.push((key.to_owned(), value));
            }
            from = after_key(key);
        }
    }
}

impl StateView for View {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        // What is no key can't be in the state; a dapp may well ask for it.
        if !is_key(key) {
            return Ok(None);
        }
        let stored = self.stored(key)?;
        self.check(key, stored.as_deref())?;
        Ok(stored)
    }

    fn range(&self, prefix: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        if !prefix.is_empty() && !is_key(prefix) {
            return Ok(Vec::new());
        }
        let end = after_prefix(prefix);
        let (found, _) = self.page(prefix.as_bytes().to_vec(), end.as_deref(), limit)?;
        Ok(found)
    }
}

/// All keys and values of one height, see [`View::export`].
pub struct Export {
    view: View,
    next: Option<Vec<u8>>,
    page: std::vec::IntoIter<(String, Vec<u8>)>,
}

impl Iterator for Export {
    type Item = Result<(String, Vec<u8>), StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(pair) = self.page.next() {
                return Some(Ok(pair));
            }
            let start = self.next.take()?;
            match self.view.page(start, None, EXPORT_PAGE) {
                Ok((page, next)) => (self.page, self.next) = (page.into_iter(), next),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Pairs of a base under changes laid over it, in key order.
pub(crate) fn overlay(
    base: Vec<(String, Vec<u8>)>,
    changes: impl Iterator<Item = (String, Option<Vec<u8>>)>,
    limit: usize,
) -> Vec<(String, Vec<u8>)> {
    let mut all: BTreeMap<String, Vec<u8>> = base.into_iter().collect();
    for (key, value) in changes {
        match value {
            Some(value) => all.insert(key, value),
            None => all.remove(&key),
        };
    }
    all.into_iter().take(limit).collect()
}

fn present(key: &str, row: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
    match row.split_first() {
        Some((&PRESENT, value)) => Ok(Some(value.to_vec())),
        _ if row == DELETED => Ok(None),
        _ => Err(StateError::Corrupt {
            key: key.to_owned(),
            why: "the stored row is neither a value nor a deletion".to_owned(),
        }),
    }
}

fn io(error: redb::StorageError) -> StateError {
    StateError::Io(chain_of(&error))
}
