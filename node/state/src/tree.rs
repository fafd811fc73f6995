//! Between jmt and the tables: encodings of nodes, and one update of the tree.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use instar_chain::view::{MAX_VALUE_BYTES, Writes};
use jmt::storage::{LeafNode, NibblePath, Node, NodeKey, TreeReader, TreeUpdateBatch};
use jmt::{JellyfishMerkleTree, KeyHash, OwnedValue};
use sha2::{Digest as _, Sha256};

use crate::StoreError;
use crate::error::chain_of;
use crate::keys::{check_key, key_hash};

/// The root of a tree without keys.
pub(crate) const EMPTY_ROOT: [u8; 32] = *b"SPARSE_MERKLE_PLACEHOLDER_HASH__";

/// How many checked nodes stay in memory: the upper levels of any tree, a few MB.
const CACHED_NODES: usize = 2 * 1024;

/// Enough against damage; against a forger there are the hashes.
const CHECKSUM_BYTES: usize = 8;

/// The key of the root node at a version.
pub(crate) fn root_key(version: u64) -> NodeKey {
    NodeKey::new(version, NibblePath::from_iter(std::iter::empty()))
}

/// The key of a node under the first `depth` nibbles of a key hash.
pub(crate) fn path_key(version: u64, hash: &KeyHash, depth: usize) -> NodeKey {
    NodeKey::new(
        version,
        (0..depth).map(|i| nibble(hash, i).into()).collect(),
    )
}

/// The `i`-th nibble of a key hash.
pub(crate) fn nibble(hash: &KeyHash, i: usize) -> u8 {
    let byte = hash.0[i / 2];
    if i.is_multiple_of(2) {
        byte >> 4
    } else {
        byte & 15
    }
}

/// The row of a node, see [`crate::tables::NODES`].
pub(crate) fn node_row(key: &NodeKey) -> Vec<u8> {
    let path = key.nibble_path();
    let count = path.num_nibbles();
    let mut row = Vec::with_capacity(9 + count.div_ceil(2));
    row.extend_from_slice(&key.version().to_be_bytes());
    row.push(u8::try_from(count).expect("a path has at most 64 nibbles"));
    let mut high = None;
    for n in path.nibbles() {
        let n = u8::from(n);
        match high.take() {
            None => high = Some(n << 4),
            Some(h) => row.push(h | n),
        }
    }
    row.extend(high);
    row
}

/// The value of a node's row. Node hashes don't cover the versions, kinds and leaf counts of children, on which jmt
/// relies; a checksum over key and value does.
pub(crate) fn encode_node(row: &[u8], node: &Node) -> Vec<u8> {
    let mut bytes = borsh::to_vec(node).expect("writing to memory can't fail");
    let sum = checksum(row, &bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// The node in a row, unless the row is damaged.
pub(crate) fn decode_node(row: &[u8], bytes: &[u8]) -> Option<Node> {
    let (node, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if checksum(row, node) != *sum {
        return None;
    }
    borsh::from_slice(node).ok()
}

fn checksum(row: &[u8], node: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(row)
        .chain_update(node)
        .finalize()
        .into();
    *hash
        .first_chunk()
        .expect("a checksum is shorter than a hash")
}

/// What a node hashes to: the value that its parent, or the root, commits to.
pub(crate) fn node_hash(node: &Node) -> [u8; 32] {
    match node {
        Node::Null => EMPTY_ROOT,
        Node::Internal(node) => node.hash::<Sha256>(),
        Node::Leaf(node) => node.hash::<Sha256>(),
    }
}

/// Nodes that were read and whose hash was right. A node never changes under its key, so nothing here gets old.
#[derive(Default)]
pub(crate) struct NodeCache(Mutex<HashMap<NodeKey, Arc<Node>>>);

impl NodeCache {
    pub(crate) fn get(&self, key: &NodeKey) -> Option<Arc<Node>> {
        self.lock().get(key).cloned()
    }

    pub(crate) fn put(&self, key: NodeKey, node: Arc<Node>) {
        let mut map = self.lock();
        if map.len() >= CACHED_NODES {
            map.clear();
        }
        map.insert(key, node);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeKey, Arc<Node>>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What jmt needs to read: nodes only, since we keep values ourselves.
pub(crate) struct Nodes<F>(pub(crate) F);

impl<F: Fn(&NodeKey) -> Result<Option<Node>, StoreError>> TreeReader for Nodes<F> {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        (self.0)(key).map_err(anyhow::Error::new)
    }

    fn get_value_option(&self, _: u64, key: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        anyhow::bail!("values are not read through the tree ({key:?})")
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        anyhow::bail!("only a restore asks for the rightmost leaf")
    }
}

/// The tree after `writes` at `version`, on top of the version before it.
pub(crate) fn update(
    nodes: &impl TreeReader,
    version: u64,
    writes: &Writes,
) -> Result<([u8; 32], TreeUpdateBatch), StoreError> {
    for (key, value) in writes {
        check_key(key)?;
        let size = value.as_ref().map_or(0, Vec::len);
        if size > MAX_VALUE_BYTES {
            return Err(StoreError::ValueTooLarge {
                key: key.clone(),
                size,
            });
        }
    }
    let set = writes
        .iter()
        .map(|(key, value)| (key_hash(key), value.clone()));
    let (root, batch) = JellyfishMerkleTree::<_, Sha256>::new(nodes)
        .put_value_set(set, version)
        .map_err(|e| match e.downcast::<StoreError>() {
            Ok(error) => error,
            Err(e) => StoreError::Damaged(chain_of(e.as_ref())),
        })?;
    Ok((root.0, batch))
}
