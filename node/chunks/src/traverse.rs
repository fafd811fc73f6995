//! The blocks of a DAG in depth-first order, each once: the order of CAR files and of a gateway's
//! answers. Reads one block at a time; memory is the links on the way down and the addresses seen.

use std::collections::HashSet;

use cid::Cid;

use crate::block::{Blocks, canonical, identity_content};
use crate::node::{Node, decode};
use crate::walk::{DagError, Limits, check_links};

/// How much of what hangs below a root belongs to it, by the trustless gateway specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    #[default]
    All,
    /// What it takes to read a file whole, or to list a folder.
    Entity,
    /// What it takes to read these content bytes of a file: from the first to before the second.
    /// A folder is listed.
    Bytes(u64, u64),
    /// The root block alone.
    Block,
}

/// A traversal under way.
#[derive(Debug)]
pub struct Traverse<'a, B: ?Sized> {
    blocks: &'a B,
    limits: Limits,
    stack: Vec<Step>,
    seen: HashSet<Cid>,
    duplicates: bool,
    followed: usize,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    cid: Cid,
    depth: usize,
    scope: Scope,
}

impl<'a, B: Blocks + ?Sized> Traverse<'a, B> {
    /// A traversal of what belongs to `root`.
    pub fn new(blocks: &'a B, root: &Cid, scope: Scope, limits: Limits) -> Result<Self, DagError> {
        let mut traverse = Self {
            blocks,
            limits,
            stack: Vec::new(),
            seen: HashSet::new(),
            duplicates: false,
            followed: 0,
            bytes: 0,
        };
        traverse.then(root, scope)?;
        Ok(traverse)
    }

    /// Goes on with another root once this one is done; what was seen isn't seen again.
    pub fn then(&mut self, root: &Cid, scope: Scope) -> Result<(), DagError> {
        let cid = canonical(root)?;
        self.stack.insert(
            0,
            Step {
                cid,
                depth: 0,
                scope,
            },
        );
        Ok(())
    }

    /// Hands a block out as often as it is linked, for readers that keep none.
    pub fn with_duplicates(&mut self) {
        self.duplicates = true;
    }

    /// Counts a block as seen, so that it isn't handed out.
    pub fn skip(&mut self, cid: &Cid) {
        self.seen.insert(*cid);
    }

    /// The next block and its bytes, checked; `None` at the end. Identity blocks are no blocks.
    pub fn next_block(&mut self) -> Result<Option<(Cid, Vec<u8>)>, DagError> {
        while let Some(step) = self.stack.pop() {
            let fresh = self.seen.insert(step.cid);
            // A block that stands twice may stand in two scopes only if bytes were asked for.
            let again = self.duplicates || matches!(step.scope, Scope::Bytes(..));
            if !fresh && !again {
                continue;
            }
            self.followed += 1;
            let limit = |what, max| DagError::Limit {
                cid: step.cid,
                what,
                max,
            };
            if self.followed > self.limits.max_blocks {
                return Err(limit("blocks", self.limits.max_blocks as u64));
            }
            if step.depth > self.limits.max_depth {
                return Err(limit("depth", self.limits.max_depth as u64));
            }
            let inside = identity_content(&step.cid).map(<[u8]>::to_vec);
            let carried = inside.is_some();
            let bytes = match inside {
                Some(bytes) => bytes,
                None => self
                    .blocks
                    .get(&step.cid)?
                    .ok_or(DagError::Missing { cid: step.cid })?,
            };
            self.bytes = self.bytes.saturating_add(bytes.len() as u64);
            if self.bytes > self.limits.max_total_bytes {
                return Err(limit("bytes", self.limits.max_total_bytes));
            }
            self.descend(step, &bytes)?;
            if (fresh || self.duplicates) && !carried {
                return Ok(Some((step.cid, bytes)));
            }
        }
        Ok(None)
    }

    fn descend(&mut self, step: Step, bytes: &[u8]) -> Result<(), DagError> {
        if step.scope == Scope::Block {
            return Ok(());
        }
        let node = decode(&step.cid, bytes)?;
        check_links(&step.cid, &node, &self.limits)?;
        let below = |cid, scope| Step {
            cid,
            depth: step.depth + 1,
            scope,
        };
        match (node, step.scope) {
            (Node::Directory { .. }, Scope::Entity | Scope::Bytes(..)) => {}
            (Node::Shard(shard), Scope::Entity | Scope::Bytes(..)) => {
                // To list it takes its own nodes, not what the names lead to.
                let inner = shard.links.iter().rev().filter(|l| l.name.is_none());
                self.stack.extend(inner.map(|l| below(l.cid, step.scope)));
            }
            (Node::File { inline, links, .. }, Scope::Bytes(from, to)) => {
                let mut at = inline.len() as u64;
                let mut wanted = Vec::new();
                for link in links {
                    let end = at.saturating_add(link.size);
                    if at < to && end > from {
                        let part = Scope::Bytes(from.saturating_sub(at), to.saturating_sub(at));
                        wanted.push(below(link.cid, part));
                    }
                    at = end;
                }
                self.stack.extend(wanted.into_iter().rev());
            }
            (node, scope) => {
                let links = node.children().rev();
                self.stack.extend(links.map(|cid| below(cid, scope)));
            }
        }
        Ok(())
    }
}
