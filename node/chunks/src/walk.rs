//! Traversal of a DAG that nobody vouches for: each bound has a name, and none is reached by
//! allocating first.

use std::collections::{HashMap, HashSet};

use cid::Cid;

use crate::block::{BlockError, Blocks, canonical, identity_content};
use crate::node::{Node, decode};

/// What a traversal may cost. The defaults fit any release or image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most links between the root and a block.
    pub max_depth: usize,
    /// Most links in one node; a block of 2 MiB can't hold many more with 40 bytes a link.
    pub max_links_per_node: usize,
    /// Most distinct blocks in a walk, and most links followed when a tree is written out.
    pub max_blocks: usize,
    /// Most bytes: of distinct blocks in a walk, of content when a tree is written out.
    pub max_total_bytes: u64,
}

impl Limits {
    /// Depth 48 is 32 folders and a file of 174^16 chunks below them.
    pub const MAX_DEPTH: usize = 48;
    /// A basic directory of 2 MiB holds about this many short names.
    pub const MAX_LINKS_PER_NODE: usize = 48_000;
    /// 2^20 blocks are about 40 GiB at the average chunk size, and about 100 MB of bookkeeping.
    pub const MAX_BLOCKS: usize = 1 << 20;
    /// 16 GiB: several times the largest image that a small device could hold.
    pub const MAX_TOTAL_BYTES: u64 = 16 << 30;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_depth: Self::MAX_DEPTH,
            max_links_per_node: Self::MAX_LINKS_PER_NODE,
            max_blocks: Self::MAX_BLOCKS,
            max_total_bytes: Self::MAX_TOTAL_BYTES,
        }
    }
}

/// Why a DAG can't be walked or written out.
#[derive(Debug, thiserror::Error)]
pub enum DagError {
    /// A block is not a node that is understood here.
    #[error("block {cid} is refused: {why}")]
    Malformed {
        /// The block.
        cid: Cid,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A block is not held.
    #[error("block {cid} is missing")]
    Missing {
        /// The block.
        cid: Cid,
    },
    /// A bound was reached.
    #[error("the DAG at {cid} is over the limit: {what}, at most {max}")]
    Limit {
        /// The block at which it was noticed.
        cid: Cid,
        /// What is bounded.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// A path leads nowhere.
    #[error("{path:?} is not in the folder {root}")]
    NotFound {
        /// The folder.
        root: Cid,
        /// The path that was asked for.
        path: String,
    },
    /// A file was asked for and something else stands there.
    #[error("{cid} is a folder or a link, not a file")]
    NotAFile {
        /// What stands there.
        cid: Cid,
    },
    /// A symbolic link leads out of the folder that is written.
    #[error("{cid} is a link to {target:?}, which leads out of what is written")]
    LeadsOutside {
        /// The link.
        cid: Cid,
        /// Where it leads.
        target: String,
    },
    /// The output is already there.
    #[error("{path} exists already")]
    Exists {
        /// The output.
        path: String,
    },
    /// The file system failed.
    #[error("{path}: {what} failed")]
    Io {
        /// The file.
        path: String,
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// A block was refused or the store failed.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// A walk over a DAG, without I/O: ask for the next block wanted, bring its bytes, repeat. Each
/// block is asked for once however often it is linked. Several may be outstanding at a time.
#[derive(Debug)]
pub struct Walk {
    limits: Limits,
    /// Blocks to ask for, the next one last: a depth-first walk keeps this short.
    stack: Vec<(Cid, usize)>,
    outstanding: HashMap<Cid, usize>,
    seen: HashSet<Cid>,
    bytes: u64,
}

impl Walk {
    /// A walk of everything below `root`.
    pub fn new(root: &Cid, limits: Limits) -> Result<Self, DagError> {
        let mut walk = Self {
            limits,
            stack: Vec::new(),
            outstanding: HashMap::new(),
            seen: HashSet::new(),
            bytes: 0,
        };
        walk.discover(root, 0)?;
        Ok(walk)
    }

    /// The next block wanted; `None` if nothing is wanted before outstanding blocks are brought,
    /// or the walk is over.
    pub fn next_wanted(&mut self) -> Option<Cid> {
        let (cid, depth) = self.stack.pop()?;
        self.outstanding.insert(cid, depth);
        Some(cid)
    }

    /// Takes a block that was asked for. The bytes must have been checked against `cid`.
    pub fn visit(&mut self, cid: &Cid, bytes: &[u8]) -> Result<(), DagError> {
        let Some(depth) = self.outstanding.remove(cid) else {
            // Not asked for, or brought twice: nothing new is to be learnt from it.
            return Ok(());
        };
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > self.limits.max_total_bytes {
            return Err(DagError::Limit {
                cid: *cid,
                what: "bytes",
                max: self.limits.max_total_bytes,
            });
        }
        let node = decode(cid, bytes)?;
        check_links(cid, &node, &self.limits)?;
        for child in node.children().rev() {
            self.discover(&child, depth + 1)?;
        }
        Ok(())
    }

    /// Whether every block has been brought.
    pub fn is_done(&self) -> bool {
        self.stack.is_empty() && self.outstanding.is_empty()
    }

    /// Distinct blocks found so far, brought or not.
    pub fn blocks(&self) -> usize {
        self.seen.len()
    }

    /// Bytes of the blocks brought so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn discover(&mut self, cid: &Cid, depth: usize) -> Result<(), DagError> {
        let limit = |what, max: usize| DagError::Limit {
            cid: *cid,
            what,
            max: max as u64,
        };
        let key = canonical(cid)?;
        if key != *cid {
            return Err(DagError::Malformed {
                cid: *cid,
                why: "links are CIDv1 here",
            });
        }
        if depth > self.limits.max_depth {
            return Err(limit("depth", self.limits.max_depth));
        }
        if self.seen.contains(&key) {
            return Ok(());
        }
        if self.seen.len() == self.limits.max_blocks {
            return Err(limit("blocks", self.limits.max_blocks));
        }
        self.seen.insert(key);
        if let Some(content) = identity_content(&key) {
            // It carries its own bytes (64 at most): nothing to fetch, but what it says is bounded
            // like any other node.
            let content = content.to_vec();
            self.outstanding.insert(key, depth);
            return self.visit(&key, &content);
        }
        self.stack.push((key, depth));
        Ok(())
    }
}

/// A bound that holds for every node before its links are followed.
pub(crate) fn check_links(cid: &Cid, node: &Node<'_>, limits: &Limits) -> Result<(), DagError> {
    if node.degree() > limits.max_links_per_node {
        return Err(DagError::Limit {
            cid: *cid,
            what: "links in a node",
            max: limits.max_links_per_node as u64,
        });
    }
    Ok(())
}

/// The blocks below `root` that are known to exist and are not held. Empty means that all of it is
/// there. What hangs below a missing block is not known yet: fetch, and ask again.
pub fn missing(blocks: &dyn Blocks, root: &Cid, limits: &Limits) -> Result<Vec<Cid>, DagError> {
    let mut walk = Walk::new(&canonical(root)?, *limits)?;
    let mut absent = Vec::new();
    while let Some(cid) = walk.next_wanted() {
        match blocks.get(&cid)? {
            Some(bytes) => walk.visit(&cid, &bytes)?,
            None => absent.push(cid),
        }
    }
    Ok(absent)
}
