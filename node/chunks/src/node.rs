//! UnixFS nodes in dag-pb: file nodes and basic directories, written and read in exactly one form.
//!
//! A node is read only if encoding it again gives the same bytes. Other encodings exist in the
//! wild; two readers may disagree about what they mean, so they are refused by name here.

use cid::Cid;
use cid::Version;
use ipld_dagpb::{PbLink, PbNode};
use multihash_codetable::Code;
use rust_unixfs::file::adder::{FileBranchLink, parse_file_branch, rebuild_file_branch};

use crate::block::{self, DAG_PB, RAW};
use crate::walk::DagError;

/// UnixFS `Data` of a basic directory: the field `Type` = 1 and nothing else.
const DIRECTORY_DATA: [u8; 2] = [0x08, 0x01];

/// Longest name in a directory, in bytes: what Linux file systems take.
pub const MAX_NAME_BYTES: usize = 255;

/// A child of a file node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLink {
    /// The child.
    pub cid: Cid,
    /// Content bytes below it (UnixFS `blocksizes`).
    pub size: u64,
    /// Bytes of all blocks below it and of itself (dag-pb `Tsize`).
    pub dag_size: u64,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirLink {
    /// Its name: no separator, not `.` or `..`, not empty.
    pub name: String,
    /// What it names.
    pub cid: Cid,
    /// Bytes of all blocks below it and of itself (dag-pb `Tsize`).
    pub dag_size: u64,
}

/// A decoded block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    /// File content.
    Leaf(&'a [u8]),
    /// A part of a file, or a whole one.
    File {
        /// Content bytes below.
        size: u64,
        /// The parts in order.
        links: Vec<FileLink>,
    },
    /// A directory.
    Directory {
        /// Its entries, strictly ascending by the bytes of the name.
        links: Vec<DirLink>,
    },
}

impl Node<'_> {
    /// The children in order.
    pub fn children(&self) -> Box<dyn DoubleEndedIterator<Item = Cid> + '_> {
        match self {
            Self::Leaf(_) => Box::new(std::iter::empty()),
            Self::File { links, .. } => Box::new(links.iter().map(|l| l.cid)),
            Self::Directory { links } => Box::new(links.iter().map(|l| l.cid)),
        }
    }
}

/// Encodes a file node over `links`.
pub fn encode_file(links: &[FileLink]) -> (Cid, Vec<u8>) {
    let size = links.iter().map(|l| l.size).sum();
    let links: Vec<FileBranchLink> = links
        .iter()
        .map(|l| FileBranchLink {
            cid: l.cid,
            blocksize: l.size,
            tsize: l.dag_size,
        })
        .collect();
    rebuild_file_branch(size, &links, Version::V1, Code::Sha2_256)
}

/// Encodes a directory. `links` must be ascending by name; dag-pb demands that order.
pub fn encode_directory(links: &[DirLink]) -> (Cid, Vec<u8>) {
    let node = PbNode {
        links: links
            .iter()
            .map(|l| PbLink {
                cid: l.cid,
                name: Some(l.name.clone()),
                size: Some(l.dag_size),
            })
            .collect(),
        data: Some(DIRECTORY_DATA.to_vec().into()),
    };
    let bytes = node.into_bytes();
    (block::cid_of(DAG_PB, &bytes), bytes)
}

/// Why a name can't stand in a directory, if it can't.
pub fn name_fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("a name is empty"),
        "." | ".." => Some("a name is `.` or `..`"),
        _ if name.len() > MAX_NAME_BYTES => Some("a name is longer than 255 bytes"),
        _ if name.contains(['/', '\0']) => Some("a name has a `/` or a zero byte"),
        _ => None,
    }
}

/// Decodes a block whose bytes were already checked against `cid`.
pub fn decode<'a>(cid: &Cid, bytes: &'a [u8]) -> Result<Node<'a>, DagError> {
    let malformed = |why| DagError::Malformed { cid: *cid, why };
    match cid.codec() {
        RAW => return Ok(Node::Leaf(bytes)),
        DAG_PB => {}
        _ => return Err(malformed("its codec is neither raw nor dag-pb")),
    }
    let node = PbNode::from_bytes(bytes.to_vec().into())
        .map_err(|_| malformed("it is not a dag-pb node"))?;
    if node.data.as_deref() == Some(&DIRECTORY_DATA) {
        return decode_directory(node, bytes).map_err(malformed);
    }
    let branch = parse_file_branch(bytes)
        .ok_or_else(|| malformed("it is neither a basic directory nor a file node with links"))?;
    let mut size: u64 = 0;
    let mut links = Vec::with_capacity(branch.links.len());
    for link in &branch.links {
        size = size
            .checked_add(link.blocksize)
            .ok_or_else(|| malformed("its block sizes overflow"))?;
        links.push(FileLink {
            cid: link.cid,
            size: link.blocksize,
            dag_size: link.tsize,
        });
    }
    if size != branch.filesize {
        return Err(malformed("its block sizes don't add up to its size"));
    }
    if encode_file(&links).1 != bytes {
        return Err(malformed("its encoding is not the canonical one"));
    }
    Ok(Node::File { size, links })
}

fn decode_directory(node: PbNode, bytes: &[u8]) -> Result<Node<'static>, &'static str> {
    let mut links: Vec<DirLink> = Vec::with_capacity(node.links.len());
    for link in node.links {
        let name = link.name.ok_or("an entry has no name")?;
        if let Some(fault) = name_fault(&name) {
            return Err(fault);
        }
        if links.last().is_some_and(|last| last.name >= name) {
            return Err("its names are not strictly ascending");
        }
        links.push(DirLink {
            name,
            cid: link.cid,
            dag_size: link.size.ok_or("an entry has no size")?,
        });
    }
    if encode_directory(&links).1 != bytes {
        return Err("its encoding is not the canonical one");
    }
    Ok(Node::Directory { links })
}
