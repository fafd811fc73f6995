//! Cutting a state up. The tree is walked once; what is held is at most one chunk's worth for each level of it.

use std::sync::Arc;

use jmt::storage::{LeafNode, Node, NodeKey};
use sha2::Sha256;

use super::chunk::{Leaf, inner, write};
use super::prefix::Prefix;
use crate::StoreError;
use crate::keys::value_hash;
use crate::tree::{EMPTY_ROOT, root_key};
use crate::view::View;

/// A subtree whose keys and values take at most this many bytes is not cut further. Small enough that a lost answer
/// costs little, large enough that the way to the root is little beside it.
pub const CHUNK_BYTES: usize = 128 << 10;

/// Takes each chunk as it is made.
pub type Emit<'a, E> = dyn FnMut(&Prefix, Vec<u8>) -> Result<(), E> + 'a;

/// Hands every chunk of the state that `view` sees to `emit`, in an order of its own. They are a function of the state
/// alone. `emit` may take its time: the view holds up no block.
pub fn make<E: From<StoreError>>(view: &View, emit: &mut Emit<'_, E>) -> Result<(), E> {
    let mut maker = Maker {
        view,
        emit,
        siblings: Vec::new(),
    };
    let root = *view.root().as_bytes();
    let part = match root {
        EMPTY_ROOT => Part::Empty,
        _ => maker.node(root_key(view.height()), root, Prefix::ROOT)?,
    };
    match part {
        Part::Empty => maker.emit(&Prefix::ROOT, None, &[]),
        Part::Whole { leaves, .. } => maker.emit(&Prefix::ROOT, None, &leaves),
        Part::Cut => Ok(()),
    }
}

/// What a subtree came to.
enum Part {
    Empty,
    /// Small enough so far: part of a chunk with what stands beside it, or one of its own.
    Whole {
        leaves: Vec<Leaf>,
        bytes: usize,
    },
    /// Its chunks were handed out.
    Cut,
}

struct Maker<'a, 'e, E> {
    view: &'a View,
    emit: &'a mut Emit<'e, E>,
    /// The hashes beside the way from the root to where the walk is.
    siblings: Vec<[u8; 32]>,
}

/// A part of a node's sixteen children: four levels of the binary tree.
#[derive(Clone, Copy)]
struct Span<'n> {
    children: &'n [Option<Child>; 16],
    start: usize,
    width: usize,
}

struct Child {
    hash: [u8; 32],
    key: NodeKey,
    leaf: bool,
}

impl Span<'_> {
    fn children(&self) -> impl Iterator<Item = &Child> {
        self.children[self.start..self.start + self.width]
            .iter()
            .flatten()
    }

    /// The only child, if that is all there is and it is a leaf: it stands for the whole span.
    fn alone(&self) -> Option<&Child> {
        let mut children = self.children();
        let first = children.next()?;
        (children.next().is_none() && (first.leaf || self.width == 1)).then_some(first)
    }

    fn halves(self) -> (Self, Self) {
        let width = self.width / 2;
        let right = Self {
            start: self.start + width,
            width,
            ..self
        };
        (Self { width, ..self }, right)
    }

    fn hash(self) -> [u8; 32] {
        if self.children().next().is_none() {
            return EMPTY_ROOT;
        }
        match self.alone() {
            Some(child) => child.hash,
            None => {
                let (left, right) = self.halves();
                inner(&left.hash(), &right.hash())
            }
        }
    }
}

impl<E: From<StoreError>> Maker<'_, '_, E> {
    fn emit(
        &mut self,
        prefix: &Prefix,
        beside: Option<[u8; 32]>,
        leaves: &[Leaf],
    ) -> Result<(), E> {
        self.siblings.extend(beside);
        let bytes = write(prefix, &self.siblings, leaves);
        if beside.is_some() {
            self.siblings.pop();
        }
        (self.emit)(prefix, bytes)
    }

    fn node(&mut self, key: NodeKey, hash: [u8; 32], prefix: Prefix) -> Result<Part, E> {
        let node = self.checked(&key, hash)?;
        match &*node {
            Node::Null => Ok(Part::Empty),
            Node::Leaf(leaf) => self.leaf(leaf),
            Node::Internal(node) => {
                let depth = key.nibble_path().num_nibbles();
                let path: Vec<u8> = key.nibble_path().nibbles().map(u8::from).collect();
                let child = |nibble: u8| {
                    let child = node.child(nibble.into())?;
                    let at = path.iter().copied().chain([nibble]);
                    Some(Child {
                        hash: child.hash,
                        key: NodeKey::new(child.version, at.map(Into::into).collect()),
                        leaf: child.is_leaf(),
                    })
                };
                debug_assert_eq!(usize::from(prefix.depth()), depth * 4);
                let children: [Option<Child>; 16] =
                    std::array::from_fn(|i| child(u8::try_from(i).expect("below 16")));
                let span = Span {
                    children: &children,
                    start: 0,
                    width: 16,
                };
                self.span(span, prefix)
            }
        }
    }

    fn span(&mut self, span: Span<'_>, prefix: Prefix) -> Result<Part, E> {
        if span.children().next().is_none() {
            return Ok(Part::Empty);
        }
        if let Some(child) = span.alone() {
            return self.node(child.key.clone(), child.hash, prefix);
        }
        let (left, right) = span.halves();
        let (left_hash, right_hash) = (left.hash(), right.hash());
        self.siblings.push(right_hash);
        let left = self.span(left, prefix.child(false))?;
        self.siblings.pop();
        self.siblings.push(left_hash);
        let right = self.span(right, prefix.child(true))?;
        self.siblings.pop();
        match (left, right) {
            (part, Part::Empty) | (Part::Empty, part) => Ok(part),
            (
                Part::Whole {
                    mut leaves,
                    bytes: a,
                },
                Part::Whole {
                    leaves: more,
                    bytes: b,
                },
            ) if a + b <= CHUNK_BYTES => {
                leaves.extend(more);
                Ok(Part::Whole {
                    leaves,
                    bytes: a + b,
                })
            }
            (left, right) => {
                if let Part::Whole { leaves, .. } = left {
                    self.emit(&prefix.child(false), Some(right_hash), &leaves)?;
                }
                if let Part::Whole { leaves, .. } = right {
                    self.emit(&prefix.child(true), Some(left_hash), &leaves)?;
                }
                Ok(Part::Cut)
            }
        }
    }

    fn leaf(&mut self, node: &LeafNode) -> Result<Part, E> {
        let leaf = self.read(node)?;
        Ok(Part::Whole {
            bytes: leaf.size(),
            leaves: vec![leaf],
        })
    }

    fn checked(&self, key: &NodeKey, hash: [u8; 32]) -> Result<Arc<Node>, StoreError> {
        Ok(self.view.checked_node(key.clone(), hash, "")?)
    }

    fn read(&self, node: &LeafNode) -> Result<Leaf, StoreError> {
        let hash = node.key_hash();
        let damaged = |what: &str| StoreError::Damaged(format!("key hash {hash:?}: {what}"));
        let key = self.view.key_of(&hash)?;
        let key = key.ok_or_else(|| damaged("no key is known of it"))?;
        let value = self.view.stored(&key)?;
        let value = value.ok_or_else(|| damaged("its value is missing"))?;
        if LeafNode::new(hash, value_hash(&value)).hash::<Sha256>() != node.hash::<Sha256>() {
            return Err(damaged("its value is not the tree's"));
        }
        Ok(Leaf { hash, key, value })
    }
}
