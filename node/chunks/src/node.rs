//! UnixFS nodes in dag-pb.
//!
//! They are written in exactly one form: file nodes over raw leaves, basic directories, symbolic
//! links. They are read in every form that stock importers write: content inside dag-pb nodes,
//! CIDv0, trickle layouts, sharded directories. What could be read in two ways is refused.

use cid::Cid;
use cid::Version;
use ipld_dagpb::{PbLink, PbNode};
use multihash_codetable::Code;
use rust_unixfs::file::adder::{FileBranchLink, rebuild_file_branch};

use crate::block::{self, BlockError, DAG_PB, RAW, canonical};
use crate::hamt::{self, Shard};
use crate::unixfs::{self, Kind, Message};
use crate::walk::DagError;

/// UnixFS `Data` of a basic directory: the field `Type` = 1 and nothing else.
const DIRECTORY_DATA: [u8; 2] = [0x08, 0x01];

/// Longest name in a directory, in bytes: what Linux file systems take.
pub const MAX_NAME_BYTES: usize = 255;

/// Longest target of a symbolic link, in bytes: what Linux takes, without the closing zero.
pub const MAX_TARGET_BYTES: usize = 4095;

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

/// A decoded block. Links are canonical: CIDv1, whatever version the node spells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    /// File content.
    Leaf(&'a [u8]),
    /// A part of a file, or a whole one.
    File {
        /// Content bytes in it and below.
        size: u64,
        /// Content that stands in the node itself, before that of the parts.
        inline: Vec<u8>,
        /// The parts in order.
        links: Vec<FileLink>,
    },
    /// A directory.
    Directory {
        /// Its entries, strictly ascending by the bytes of the name.
        links: Vec<DirLink>,
    },
    /// A node of a sharded directory.
    Shard(Shard),
    /// A symbolic link.
    Symlink {
        /// Where it leads, as written.
        target: Vec<u8>,
    },
}

impl Node<'_> {
    /// The children in order.
    pub fn children(&self) -> Box<dyn DoubleEndedIterator<Item = Cid> + '_> {
        match self {
            Self::Leaf(_) | Self::Symlink { .. } => Box::new(std::iter::empty()),
            Self::File { links, .. } => Box::new(links.iter().map(|l| l.cid)),
            Self::Directory { links } => Box::new(links.iter().map(|l| l.cid)),
            Self::Shard(shard) => Box::new(shard.links.iter().map(|l| l.cid)),
        }
    }

    /// How many children it has.
    pub fn degree(&self) -> usize {
        match self {
            Self::Leaf(_) | Self::Symlink { .. } => 0,
            Self::File { links, .. } => links.len(),
            Self::Directory { links } => links.len(),
            Self::Shard(shard) => shard.links.len(),
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

/// Encodes a symbolic link.
pub fn encode_symlink(target: &[u8]) -> (Cid, Vec<u8>) {
    let node = PbNode {
        links: Vec::new(),
        data: Some(unixfs::symlink(target).into()),
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
    let data = node
        .data
        .as_deref()
        .ok_or_else(|| malformed("it has no UnixFS message"))?;
    let message = unixfs::parse(data).map_err(malformed)?;
    let links = links_of(&node.links)?;
    match message.kind {
        Kind::Directory => directory(&message, links),
        Kind::File | Kind::Raw => file(&message, &links),
        Kind::Shard => shard(&message, links),
        Kind::Symlink => symlink(&message, &links),
    }
    .map_err(malformed)
}

fn links_of(links: &[PbLink]) -> Result<Vec<DirLink>, BlockError> {
    links
        .iter()
        .map(|link| {
            Ok(DirLink {
                name: link.name.clone().unwrap_or_default(),
                cid: canonical(&link.cid)?,
                dag_size: link.size.unwrap_or_default(),
            })
        })
        .collect()
}

fn directory(message: &Message<'_>, links: Vec<DirLink>) -> Result<Node<'static>, &'static str> {
    if !message.data.is_empty() || !message.block_sizes.is_empty() {
        return Err("it is a directory with content");
    }
    let mut last: Option<&str> = None;
    for link in &links {
        if let Some(fault) = name_fault(&link.name) {
            return Err(fault);
        }
        if last.is_some_and(|last| last >= link.name.as_str()) {
            return Err("its names are not strictly ascending");
        }
        last = Some(&link.name);
    }
    Ok(Node::Directory { links })
}

fn file(message: &Message<'_>, links: &[DirLink]) -> Result<Node<'static>, &'static str> {
    if message.block_sizes.len() != links.len() {
        return Err("it has not one block size for each link");
    }
    let mut size = message.data.len() as u64;
    let mut parts = Vec::with_capacity(links.len());
    for (link, part) in links.iter().zip(&message.block_sizes) {
        size = size.checked_add(*part).ok_or("its block sizes overflow")?;
        parts.push(FileLink {
            cid: link.cid,
            size: *part,
            dag_size: link.dag_size,
        });
    }
    if message.file_size.is_some_and(|declared| declared != size) {
        return Err("its block sizes don't add up to its size");
    }
    Ok(Node::File {
        size,
        inline: message.data.to_vec(),
        links: parts,
    })
}

fn shard(message: &Message<'_>, links: Vec<DirLink>) -> Result<Node<'static>, &'static str> {
    let links = links.into_iter().map(|l| (l.name, l.cid, l.dag_size));
    let shard = hamt::parse(message, links)?;
    let names = shard.links.iter().filter_map(|l| l.name.as_deref());
    match names.filter_map(name_fault).next() {
        Some(fault) => Err(fault),
        None => Ok(Node::Shard(shard)),
    }
}

fn symlink(message: &Message<'_>, links: &[DirLink]) -> Result<Node<'static>, &'static str> {
    let target = message.data;
    if !links.is_empty() {
        return Err("it is a symbolic link with children");
    }
    if target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains(&0) {
        return Err("the target of a symbolic link is empty, too long, or has a zero byte");
    }
    Ok(Node::Symlink {
        target: target.to_vec(),
    })
}
