//! The tree's nodes from its leaves: below each chunk at once, above the chunks at the end.
//!
//! A chunk's subtree begins at any bit; the nodes on disk begin at every fourth. So a chunk gives the nodes below the next
//! such place, and up to eight *tops*, of which the nodes above are made when all are known.

use jmt::storage::{Node, NodeKey};

use super::chunk::Leaf;
use crate::StoreError;
use crate::rows::damaged;
use crate::tree::{nibble, node_hash};

/// A node as its parent names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Top {
    /// Its place, a nibble a byte.
    pub path: Vec<u8>,
    pub hash: [u8; 32],
    pub leaf: bool,
    pub leaves: u64,
}

impl Top {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::try_from(self.path.len()).expect("a path has at most 64 nibbles"));
        out.extend_from_slice(&self.path);
        out.extend_from_slice(&self.hash);
        out.push(u8::from(self.leaf));
        out.extend(self.leaves.to_be_bytes());
    }

    /// Reads what [`Top::write`] wrote, one after the other.
    pub fn read_all(mut row: &[u8]) -> Result<Vec<Self>, StoreError> {
        let mut tops = Vec::new();
        while let Some((count, rest)) = row.split_first() {
            let parse = || {
                let (path, rest) = rest.split_at_checked(usize::from(*count))?;
                let (hash, rest) = rest.split_first_chunk::<32>()?;
                let (leaf, rest) = rest.split_first()?;
                let (leaves, rest) = rest.split_first_chunk::<8>()?;
                let top = Self {
                    path: path.to_vec(),
                    hash: *hash,
                    leaf: *leaf == 1,
                    leaves: u64::from_be_bytes(*leaves),
                };
                Some((top, rest))
            };
            let (top, rest) = parse().ok_or_else(|| damaged("a chunk's row breaks off"))?;
            tops.push(top);
            row = rest;
        }
        Ok(tops)
    }
}

/// Where finished nodes go.
type Out<'a> = &'a mut dyn FnMut(NodeKey, Node) -> Result<(), StoreError>;

/// The nodes below `depth` nibbles of sorted leaves that are all there is below their common place, each group of them.
pub(super) fn below(
    version: u64,
    leaves: &[Leaf],
    depth: usize,
    out: Out<'_>,
) -> Result<Vec<Top>, StoreError> {
    let same = |a: &Leaf, b: &Leaf| (0..depth).all(|i| nibble(&a.hash, i) == nibble(&b.hash, i));
    leaves
        .chunk_by(same)
        .map(|group| subtree(version, group, depth, out))
        .collect()
}

fn subtree(version: u64, leaves: &[Leaf], depth: usize, out: Out<'_>) -> Result<Top, StoreError> {
    let path: Vec<u8> = (0..depth).map(|i| nibble(&leaves[0].hash, i)).collect();
    if let [leaf] = leaves {
        let node = Node::Leaf(leaf.node());
        return finish(version, path, node, 1, out);
    }
    let children = leaves
        .chunk_by(|a, b| nibble(&a.hash, depth) == nibble(&b.hash, depth))
        .map(|group| subtree(version, group, depth + 1, out))
        .collect::<Result<Vec<_>, _>>()?;
    above(version, path, &children, out)
}

/// The node at `path`, of tops below it that are sorted and lie in different places, and all nodes between.
pub(super) fn above(
    version: u64,
    path: Vec<u8>,
    tops: &[Top],
    out: Out<'_>,
) -> Result<Top, StoreError> {
    let depth = path.len();
    if let [top] = tops
        && top.path == path
    {
        return Ok(top.clone());
    }
    if tops.iter().any(|top| top.path.len() <= depth) {
        return Err(damaged("two chunks lie in the same place"));
    }
    let children = tops
        .chunk_by(|a, b| a.path[depth] == b.path[depth])
        .map(|group| {
            let at = group[0].path[..=depth].to_vec();
            above(version, at, group, out)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let leaves = children.iter().map(|c| c.leaves).sum();
    let node = internal(version, &children)?;
    finish(version, path, node, leaves, out)
}

fn finish(
    version: u64,
    path: Vec<u8>,
    node: Node,
    leaves: u64,
    out: Out<'_>,
) -> Result<Top, StoreError> {
    let top = Top {
        hash: node_hash(&node),
        leaf: matches!(node, Node::Leaf(_)),
        leaves,
        path,
    };
    let key = NodeKey::new(version, top.path.iter().map(|n| (*n).into()).collect());
    out(key, node)?;
    Ok(top)
}

/// An inner node. jmt makes them only itself; but what stands on disk is their borsh encoding, and that can be written.
fn internal(version: u64, children: &[Top]) -> Result<Node, StoreError> {
    let mut bytes = vec![1];
    let mut children_left = children.iter().peekable();
    for slot in 0..16 {
        let here = children_left.next_if(|c| c.path.last() == Some(&slot));
        bytes.push(u8::from(here.is_some()));
        if let Some(child) = here {
            bytes.extend_from_slice(&child.hash);
            bytes.extend(version.to_le_bytes());
            bytes.push(u8::from(!child.leaf));
            if !child.leaf {
                bytes.extend(child.leaves.to_le_bytes());
            }
        }
    }
    bytes.extend((children.len() as u64).to_le_bytes());
    let leaves: u64 = children.iter().map(|c| c.leaves).sum();
    bytes.extend(leaves.to_le_bytes());
    borsh::from_slice(&bytes).map_err(|e| StoreError::Damaged(format!("an inner node: {e}")))
}
