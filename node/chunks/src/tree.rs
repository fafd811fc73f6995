//! Directories from paths: pure, so that the ledger can compute the root of a release.

use std::collections::BTreeMap;

use cid::Cid;

use crate::add::FileSummary;
use crate::block::MAX_MADE_BLOCK_BYTES;
use crate::node::{DirLink, encode_directory, name_fault};

/// Most parts in a path. A release has five; images are shallower than this.
pub const MAX_PATH_PARTS: usize = 32;

/// A file, or a subtree made elsewhere, that stands in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeLink {
    /// Its root.
    pub cid: Cid,
    /// Bytes of all its blocks (dag-pb `Tsize`).
    pub dag_size: u64,
}

impl From<FileSummary> for TreeLink {
    fn from(file: FileSummary) -> Self {
        Self {
            cid: file.cid,
            dag_size: file.dag_size,
        }
    }
}

/// Directory blocks, children before parents.
pub type TreeBlocks = Vec<(Cid, Vec<u8>)>;

/// Why paths don't make a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A path is not relative and plain.
    #[error("path {path:?}: {why}")]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The same path is a file and a directory.
    #[error("path {path:?} goes through a file")]
    Conflict {
        /// The path as given.
        path: String,
    },
    /// A directory doesn't fit in one block; sharded directories are not written.
    #[error("directory {path:?} needs {bytes} bytes, over one block of {MAX_MADE_BLOCK_BYTES}")]
    TooLarge {
        /// The directory; empty for the root.
        path: String,
        /// Size of its node.
        bytes: usize,
    },
    /// Sizes add up to more than 64 bits.
    #[error("the sizes below directory {path:?} overflow")]
    Overflow {
        /// The directory; empty for the root.
        path: String,
    },
}

enum Entry {
    Leaf(TreeLink),
    Directory(BTreeMap<String, Entry>),
}

/// The directory that holds `files` under their paths (`a/b/c`), and every directory block of it,
/// children before parents; the last one is the root. No file gives the empty directory.
pub fn tree_root(files: &BTreeMap<String, TreeLink>) -> Result<(Cid, TreeBlocks), TreeError> {
    let mut root = BTreeMap::new();
    for (path, link) in files {
        insert(&mut root, path, *link)?;
    }
    let mut blocks = Vec::new();
    let link = write("", root, &mut blocks)?;
    Ok((link.cid, blocks))
}

fn insert(root: &mut BTreeMap<String, Entry>, path: &str, link: TreeLink) -> Result<(), TreeError> {
    let fault = |why| TreeError::Path {
        path: path.to_owned(),
        why,
    };
    let conflict = || TreeError::Conflict {
        path: path.to_owned(),
    };
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() > MAX_PATH_PARTS {
        return Err(fault("it has more than 32 parts"));
    }
    if let Some(why) = parts.iter().find_map(|part| name_fault(part)) {
        return Err(fault(why));
    }
    let (name, folders) = parts.split_last().ok_or_else(|| fault("it is empty"))?;
    let mut here = root;
    for folder in folders {
        let entry = here
            .entry((*folder).to_owned())
            .or_insert_with(|| Entry::Directory(BTreeMap::new()));
        match entry {
            Entry::Directory(inner) => here = inner,
            Entry::Leaf(_) => return Err(conflict()),
        }
    }
    match here.insert((*name).to_owned(), Entry::Leaf(link)) {
        None => Ok(()),
        Some(_) => Err(conflict()),
    }
}

/// Recursion is at most [`MAX_PATH_PARTS`] deep.
fn write(
    path: &str,
    entries: BTreeMap<String, Entry>,
    blocks: &mut TreeBlocks,
) -> Result<TreeLink, TreeError> {
    let mut links = Vec::with_capacity(entries.len());
    let mut dag_size: u64 = 0;
    // A `BTreeMap` of strings iterates by the bytes of the name, which is dag-pb's order.
    for (name, entry) in entries {
        let link = match entry {
            Entry::Leaf(link) => link,
            Entry::Directory(inner) => write(&format!("{path}{name}/"), inner, blocks)?,
        };
        dag_size = dag_size
            .checked_add(link.dag_size)
            .ok_or_else(|| TreeError::Overflow { path: path.into() })?;
        links.push(DirLink {
            name,
            cid: link.cid,
            dag_size: link.dag_size,
        });
    }
    let (cid, bytes) = encode_directory(&links);
    if bytes.len() > MAX_MADE_BLOCK_BYTES {
        return Err(TreeError::TooLarge {
            path: path.into(),
            bytes: bytes.len(),
        });
    }
    dag_size = dag_size
        .checked_add(bytes.len() as u64)
        .ok_or_else(|| TreeError::Overflow { path: path.into() })?;
    blocks.push((cid, bytes));
    Ok(TreeLink { cid, dag_size })
}
