//! The list of a snapshot's chunks, as a node serves it. It is a hint: every chunk is proven by itself.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::json;
use instar_attest::{ChainId, Digest};
use instar_chunks::Cid;
use instar_chunks::block::{RAW, cid_of};
use instar_chunks::tree::{TreeBlocks, TreeLink, tree_root};
use instar_ledger::Oid;
use instar_state::snapshot::Prefix;
use serde::{Deserialize, Serialize};

/// The largest list: a state of several gigabytes.
pub const MAX_LIST_BYTES: usize = 32 << 20;
/// How the pins of snapshots begin.
pub(super) const PINS: &str = "snapshots/";
/// The format of a list.
const FORMAT: &str = "instar-snapshot-v1";
/// Bits of a prefix that name the folder of a chunk: a folder with everything would not fit in one block.
const FOLDER_BITS: usize = 8;

/// One chunk of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkAt {
    /// Its size.
    pub bytes: u64,
    /// Where it can be had: a raw block.
    pub cid: String,
    /// Its place in the tree, in zeros and ones.
    pub prefix: String,
}

impl ChunkAt {
    /// The entry of a chunk.
    pub fn of(prefix: &Prefix, chunk: &[u8]) -> Self {
        Self {
            bytes: chunk.len() as u64,
            cid: cid_of(RAW, chunk).to_string(),
            prefix: prefix.to_string(),
        }
    }

    /// Its address and its place.
    pub fn place(&self) -> Result<(Cid, Prefix), String> {
        let cid: Cid = self
            .cid
            .parse()
            .map_err(|e| format!("the address {:?}: {e}", self.cid))?;
        Ok((cid, self.prefix.parse()?))
    }
}

/// `GET /v1/snapshots/HEIGHT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotList {
    /// The block after which the state is this.
    pub block: Oid,
    /// The chain.
    pub chain: ChainId,
    /// The chunks, in the order of their places.
    pub chunks: Vec<ChunkAt>,
    /// What a ledger that begins here begins with: the block, then the head of each merged lane in the order of the
    /// state's keys.
    pub commits: Vec<Oid>,
    format: String,
    /// The block's height.
    pub height: u64,
    /// The state root.
    pub root: Digest,
}

/// One of `GET /v1/snapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The block.
    pub block: Oid,
    /// Bytes of all chunks.
    pub bytes: u64,
    /// How many chunks.
    pub chunks: u64,
    /// A UnixFS folder of all chunks.
    pub cid: String,
    /// The block's height.
    pub height: u64,
    /// The state root.
    pub root: Digest,
}

impl SnapshotList {
    /// A list; the chunks in any order.
    pub fn new(
        chain: ChainId,
        height: u64,
        block: Oid,
        root: Digest,
        mut chunks: Vec<ChunkAt>,
        commits: Vec<Oid>,
    ) -> Self {
        chunks.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        Self {
            block,
            chain,
            chunks,
            commits,
            format: FORMAT.into(),
            height,
            root,
        }
    }

    /// Bytes of all chunks. What somebody else wrote into a list may be more than there is.
    pub fn bytes(&self) -> u64 {
        self.chunks
            .iter()
            .fold(0, |sum, chunk| sum.saturating_add(chunk.bytes))
    }

    /// The pin under which a node keeps the chunks.
    pub fn pin_name(&self) -> String {
        format!("{PINS}{}", self.height)
    }

    /// The folder of all chunks: its root, and its blocks.
    pub fn folder(&self) -> Result<(Cid, TreeBlocks), String> {
        let mut files = BTreeMap::new();
        for chunk in &self.chunks {
            let (cid, _) = chunk.place()?;
            // A place is written in zeros and ones, so that any part of it is text.
            let name = match chunk.prefix.as_str() {
                "" => "root".to_owned(),
                short if short.len() <= FOLDER_BITS => short.to_owned(),
                long => format!("{}/{long}", &long[..FOLDER_BITS]),
            };
            let link = TreeLink {
                cid,
                dag_size: chunk.bytes,
            };
            files.insert(name, link);
        }
        tree_root(&files).map_err(|e| e.to_string())
    }

    /// Every block of it: the chunks, and the folder.
    pub fn blocks(&self) -> Result<BTreeSet<Cid>, String> {
        let (_, folder) = self.folder()?;
        let mut all: BTreeSet<Cid> = folder.into_iter().map(|(cid, _)| cid).collect();
        for chunk in &self.chunks {
            all.insert(chunk.place()?.0);
        }
        Ok(all)
    }

    /// What it is, in short.
    pub fn offer(&self) -> Result<Offer, String> {
        Ok(Offer {
            block: self.block,
            bytes: self.bytes(),
            chunks: self.chunks.len() as u64,
            cid: self.folder()?.0.to_string(),
            height: self.height,
            root: self.root,
        })
    }

    /// Its one spelling.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        json::to_vec(self).map_err(|e| e.to_string())
    }

    /// Reads a list; nothing in it is trusted.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let list: Self = json::from_slice(bytes, MAX_LIST_BYTES).map_err(|e| e.to_string())?;
        if list.format != FORMAT {
            return Err(format!("its format is {:?}", list.format));
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> SnapshotList {
        let chunk = |prefix: &str| ChunkAt::of(&prefix.parse().unwrap(), prefix.as_bytes());
        SnapshotList::new(
            ChainId::from_bytes([1; 32]),
            7,
            Oid::from_bytes([2; 32]),
            Digest::of(b"root"),
            ["1", "011010101", "0100", "00", "0101"].map(chunk).into(),
            vec![Oid::from_bytes([2; 32])],
        )
    }

    #[test]
    fn a_list_is_written_in_order_and_read_back() {
        let list = list();
        let order: Vec<&str> = list.chunks.iter().map(|c| c.prefix.as_str()).collect();
        assert_eq!(order, ["00", "0100", "0101", "011010101", "1"]);
        let bytes = list.to_bytes().unwrap();
        assert_eq!(SnapshotList::from_bytes(&bytes).unwrap(), list);
        let text = String::from_utf8(bytes).unwrap();
        let other = text.replace("instar-snapshot-v1", "instar-snapshot-v2");
        assert!(SnapshotList::from_bytes(other.as_bytes()).is_err());
        assert!(SnapshotList::from_bytes(text.replace(":7,", ": 7,").as_bytes()).is_err());
    }

    #[test]
    fn the_folder_links_every_chunk_and_a_wrong_address_is_an_error() {
        let mut list = list();
        let (root, blocks) = list.folder().unwrap();
        assert_eq!(blocks.last().unwrap().0, root);
        assert_eq!(list.offer().unwrap().cid, root.to_string());
        let whole = SnapshotList::new(
            list.chain,
            0,
            list.block,
            list.root,
            vec![ChunkAt::of(&Prefix::ROOT, b"all")],
            vec![],
        );
        whole.folder().unwrap();
        list.chunks[0].bytes = u64::MAX;
        assert_eq!(list.bytes(), u64::MAX);
        list.chunks[0].cid = "bafynothing".into();
        assert!(list.folder().is_err());
    }
}
