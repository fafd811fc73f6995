//! States that are tried out in memory: rehearsals, and roots of snapshots.

use std::collections::{BTreeMap, HashMap};

use instar_attest::Digest;
use instar_chain::view::{StateError, StateView, Writes};
use jmt::storage::{Node, NodeKey, TreeUpdateBatch};

use crate::StoreError;
use crate::tree::{EMPTY_ROOT, Nodes, update};
use crate::view::{View, overlay};

/// A state in memory on top of a view of the store, or of nothing. Blocks are applied to it one after another and
/// have the roots that the store would give them; the store never hears of it.
pub struct Fork {
    base: Option<View>,
    /// The version of the newest state; `None` before the first one.
    version: Option<u64>,
    root: [u8; 32],
    nodes: HashMap<NodeKey, Node>,
    values: BTreeMap<String, Option<Vec<u8>>>,
}

impl Fork {
    /// A fork of what `base` sees.
    pub fn on(base: View) -> Self {
        Self {
            version: Some(base.height()),
            root: *base.root().as_bytes(),
            base: Some(base),
            nodes: HashMap::new(),
            values: BTreeMap::new(),
        }
    }

    /// A state without keys.
    pub fn empty() -> Self {
        Self {
            base: None,
            version: None,
            root: EMPTY_ROOT,
            nodes: HashMap::new(),
            values: BTreeMap::new(),
        }
    }

    /// A state of these keys and values, as an export gives them.
    pub fn from_snapshot<E: Into<StoreError>>(
        pairs: impl IntoIterator<Item = Result<(String, Vec<u8>), E>>,
    ) -> Result<Self, StoreError> {
        let mut writes = Writes::new();
        for pair in pairs {
            let (key, value) = pair.map_err(Into::into)?;
            if let Some(_twice) = writes.insert(key.clone(), Some(value)) {
                return Err(StoreError::Duplicate(key));
            }
        }
        let mut fork = Self::empty();
        fork.apply(&writes)?;
        Ok(fork)
    }

    /// The root that a block with these writes would have. Nothing is kept.
    pub fn root_of(&self, writes: &Writes) -> Result<Digest, StoreError> {
        Ok(Digest::from_bytes(self.updated(writes)?.0))
    }

    fn updated(&self, writes: &Writes) -> Result<([u8; 32], TreeUpdateBatch), StoreError> {
        if let Some(base) = &self.base {
            base.check_paths(writes.keys())?;
        }
        let version = self.version.map_or(0, |v| v + 1);
        let nodes = Nodes(|key: &NodeKey| match (self.nodes.get(key), &self.base) {
            (Some(node), _) => Ok(Some(node.clone())),
            (None, Some(base)) => base.raw_node(key),
            (None, None) => Ok(None),
        });
        update(&nodes, version, writes)
    }

    /// Applies a block's writes and returns the new root.
    pub fn apply(&mut self, writes: &Writes) -> Result<Digest, StoreError> {
        let version = self.version.map_or(0, |v| v + 1);
        let (root, batch) = self.updated(writes)?;
        for index in &batch.stale_node_index_batch {
            self.nodes.remove(&index.node_key);
        }
        let nodes = batch.node_batch.nodes();
        self.nodes
            .extend(nodes.iter().map(|(key, node)| (key.clone(), node.clone())));
        self.values.extend(
            writes
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        self.version = Some(version);
        self.root = root;
        Ok(self.root())
    }

    /// The root of the newest state.
    pub fn root(&self) -> Digest {
        Digest::from_bytes(self.root)
    }

    /// What the fork changed so far, for showing how two runs differ.
    pub fn changes(&self) -> &BTreeMap<String, Option<Vec<u8>>> {
        &self.values
    }
}

impl StateView for Fork {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        match (self.values.get(key), &self.base) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(base)) => base.get(key),
            (None, None) => Ok(None),
        }
    }

    fn range(&self, prefix: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let changes = || {
            self.values
                .range::<str, _>((
                    std::ops::Bound::Included(prefix),
                    std::ops::Bound::Unbounded,
                ))
                .take_while(|(key, _)| key.starts_with(prefix))
        };
        let base = match &self.base {
            // Deletions may hide some of what the base gives, so that many more are asked for.
            Some(base) => {
                let hidden = changes().filter(|(_, value)| value.is_none()).count();
                base.range(prefix, limit.saturating_add(hidden))?
            }
            None => Vec::new(),
        };
        Ok(overlay(
            base,
            changes().map(|(k, v)| (k.clone(), v.clone())),
            limit,
        ))
    }
}

/// The root of a state with exactly these keys and values. It depends on nothing else.
pub fn root_of_snapshot<E: Into<StoreError>>(
    pairs: impl IntoIterator<Item = Result<(String, Vec<u8>), E>>,
) -> Result<Digest, StoreError> {
    Ok(Fork::from_snapshot(pairs)?.root())
}
