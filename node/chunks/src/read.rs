//! Reads files, folders and paths out of a DAG, counting what it reads, so that a small DAG that
//! unfolds without end stops.

use cid::Cid;

use crate::block::{Blocks, canonical, identity_content};
use crate::hamt::{Shard, slot_of};
use crate::node::{DirLink, Node, decode};
use crate::walk::{DagError, Limits, check_links};

/// The content of the file `cid`, of at most `max_bytes`.
pub fn read_file(blocks: &dyn Blocks, cid: &Cid, max_bytes: u64) -> Result<Vec<u8>, DagError> {
    let limits = Limits {
        max_total_bytes: max_bytes,
        ..Limits::default()
    };
    let mut content = Vec::new();
    let cid = canonical(cid)?;
    Source::new(blocks, limits).file(&cid, None, 0, &mut |part| {
        content.extend_from_slice(part);
        Ok(())
    })?;
    Ok(content)
}

/// The entries of the directory `cid`, sharded or not: name, address and DAG size, ascending by the
/// bytes of the name.
pub fn list_directory(
    blocks: &dyn Blocks,
    cid: &Cid,
    limits: &Limits,
) -> Result<Vec<DirLink>, DagError> {
    let cid = canonical(cid)?;
    let mut source = Source::new(blocks, *limits);
    match source.node(&cid, 0)? {
        Node::Directory { links } => Ok(links),
        Node::Shard(shard) => {
            let mut links = Vec::new();
            source.shard(&cid, shard, 0, &mut |_, link, _| {
                links.push(link);
                Ok(())
            })?;
            links.sort_by(|a: &DirLink, b| a.name.cmp(&b.name));
            Ok(links)
        }
        _ => Err(DagError::Malformed {
            cid,
            why: "it is a file, not a folder",
        }),
    }
}

/// What stands at `path` (`a/b/c`) in the directory `root`.
pub fn resolve(
    blocks: &dyn Blocks,
    root: &Cid,
    path: &str,
    limits: &Limits,
) -> Result<Cid, DagError> {
    resolve_through(blocks, root, path, limits, &mut |_, _| ())
}

/// As [`resolve`]; `passed` is shown each block on the way, the terminal one excluded.
pub fn resolve_through(
    blocks: &dyn Blocks,
    root: &Cid,
    path: &str,
    limits: &Limits,
    passed: &mut dyn FnMut(&Cid, &[u8]),
) -> Result<Cid, DagError> {
    let not_found = || DagError::NotFound {
        root: *root,
        path: path.to_owned(),
    };
    let mut source = Source::new(blocks, *limits);
    let mut here = canonical(root)?;
    let mut depth = 0;
    for part in path.split('/') {
        let (mut used, mut shard_bits) = (0, None);
        // A sharded folder takes several blocks to one name.
        loop {
            let bytes = source.block(&here, depth)?;
            let node = decode(&here, &bytes)?;
            check_links(&here, &node, limits)?;
            passed(&here, &bytes);
            depth += 1;
            let (next, found) = match node {
                Node::Directory { links } if shard_bits.is_none() => {
                    let found = links
                        .binary_search_by(|link| link.name.as_str().cmp(part))
                        .map_err(|_| not_found())?;
                    (links[found].cid, true)
                }
                Node::Shard(shard) => {
                    let bits = same_width(&here, shard_bits, &shard)?;
                    shard_bits = Some(bits);
                    let slot = slot_of(part, used, bits).ok_or_else(not_found)?;
                    used += bits;
                    let found = shard
                        .links
                        .iter()
                        .find(|link| link.slot == slot)
                        .ok_or_else(not_found)?;
                    match &found.name {
                        Some(name) if name == part => (found.cid, true),
                        Some(_) => return Err(not_found()),
                        None => (found.cid, false),
                    }
                }
                _ => return Err(not_found()),
            };
            here = next;
            if found {
                break;
            }
        }
    }
    Ok(here)
}

fn same_width(cid: &Cid, before: Option<u32>, shard: &Shard) -> Result<u32, DagError> {
    match before {
        Some(bits) if bits != shard.bits => Err(DagError::Malformed {
            cid: *cid,
            why: "a node of a sharded directory has another fanout than the one above",
        }),
        _ => Ok(shard.bits),
    }
}

/// Reads blocks and counts what it read, so that a small DAG that unfolds without end stops.
pub(crate) struct Source<'a> {
    blocks: &'a dyn Blocks,
    pub(crate) limits: Limits,
    followed: usize,
    content_bytes: u64,
}

pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), DagError> + 'a;

impl<'a> Source<'a> {
    pub(crate) fn new(blocks: &'a dyn Blocks, limits: Limits) -> Self {
        Self {
            blocks,
            limits,
            followed: 0,
            content_bytes: 0,
        }
    }

    fn limit(cid: &Cid, what: &'static str, max: u64) -> DagError {
        DagError::Limit {
            cid: *cid,
            what,
            max,
        }
    }

    pub(crate) fn block(&mut self, cid: &Cid, depth: usize) -> Result<Vec<u8>, DagError> {
        let cid = canonical(cid)?;
        if depth > self.limits.max_depth {
            let max = self.limits.max_depth as u64;
            return Err(Self::limit(&cid, "depth", max));
        }
        self.followed += 1;
        if self.followed > self.limits.max_blocks {
            let max = self.limits.max_blocks as u64;
            return Err(Self::limit(&cid, "links followed", max));
        }
        if let Some(content) = identity_content(&cid) {
            return Ok(content.to_vec());
        }
        self.blocks.get(&cid)?.ok_or(DagError::Missing { cid })
    }

    /// The decoded block `cid`, within the bound on its links.
    pub(crate) fn node(&mut self, cid: &Cid, depth: usize) -> Result<Node<'static>, DagError> {
        let bytes = self.block(cid, depth)?;
        let node = match decode(cid, &bytes)? {
            // Whoever wants a leaf's content streams it; here only its kind counts.
            Node::Leaf(_) => Node::Leaf(&[]),
            Node::File {
                size,
                inline,
                links,
            } => Node::File {
                size,
                inline,
                links,
            },
            Node::Directory { links } => Node::Directory { links },
            Node::Shard(shard) => Node::Shard(shard),
            Node::Symlink { target } => Node::Symlink { target },
        };
        check_links(cid, &node, &self.limits)?;
        Ok(node)
    }

    /// Hands each entry of a sharded directory to `found`, with the depth of the node it stands in,
    /// in the order of the shards. An entry that stands where its name's hash doesn't lead is
    /// refused, which also means that no name stands twice.
    pub(crate) fn shard(
        &mut self,
        cid: &Cid,
        shard: Shard,
        depth: usize,
        found: &mut dyn FnMut(&mut Self, DirLink, usize) -> Result<(), DagError>,
    ) -> Result<(), DagError> {
        self.shard_below(cid, shard, depth, &mut Vec::new(), found)
    }

    fn shard_below(
        &mut self,
        cid: &Cid,
        shard: Shard,
        depth: usize,
        slots: &mut Vec<usize>,
        found: &mut dyn FnMut(&mut Self, DirLink, usize) -> Result<(), DagError>,
    ) -> Result<(), DagError> {
        let bits = shard.bits;
        let malformed = |why| DagError::Malformed { cid: *cid, why };
        if (slots.len() as u32 + 1) * bits > u64::BITS {
            return Err(malformed("a sharded directory is deeper than its hash"));
        }
        for link in shard.links {
            slots.push(link.slot);
            match link.name {
                Some(name) => {
                    let misplaced = slots.iter().enumerate().any(|(level, slot)| {
                        slot_of(&name, level as u32 * bits, bits) != Some(*slot)
                    });
                    if misplaced {
                        return Err(malformed("a name stands in the wrong slot of a shard"));
                    }
                    let link = DirLink {
                        name,
                        cid: link.cid,
                        dag_size: link.dag_size,
                    };
                    found(self, link, depth)?;
                }
                None => {
                    let Node::Shard(inner) = self.node(&link.cid, depth + 1)? else {
                        return Err(malformed("below a shard hangs something else"));
                    };
                    same_width(&link.cid, Some(bits), &inner)?;
                    self.shard_below(&link.cid, inner, depth + 1, slots, found)?;
                }
            }
            slots.pop();
        }
        Ok(())
    }

    /// Streams the file at `cid`; its size must be `expected`, if a parent declared one. The depth
    /// bound also bounds the recursion.
    pub(crate) fn file(
        &mut self,
        cid: &Cid,
        expected: Option<u64>,
        depth: usize,
        sink: &mut Sink<'_>,
    ) -> Result<u64, DagError> {
        let bytes = self.block(cid, depth)?;
        let node = decode(cid, &bytes)?;
        check_links(cid, &node, &self.limits)?;
        let declared = match &node {
            Node::Leaf(content) => content.len() as u64,
            Node::File { size, .. } => *size,
            _ => return Err(DagError::NotAFile { cid: *cid }),
        };
        if expected.is_some_and(|expected| expected != declared) {
            return Err(DagError::Malformed {
                cid: *cid,
                why: "its size is not what its parent says",
            });
        }
        let max = self.limits.max_total_bytes;
        if self.content_bytes.saturating_add(declared) > max {
            return Err(Self::limit(cid, "content bytes", max));
        }
        match node {
            Node::Leaf(content) => {
                self.content_bytes += declared;
                sink(content)?;
            }
            Node::File { inline, links, .. } => {
                drop(bytes);
                if !inline.is_empty() {
                    self.content_bytes += inline.len() as u64;
                    sink(&inline)?;
                }
                for link in links {
                    self.file(&link.cid, Some(link.size), depth + 1, sink)?;
                }
            }
            _ => return Err(DagError::NotAFile { cid: *cid }),
        }
        Ok(declared)
    }
}
