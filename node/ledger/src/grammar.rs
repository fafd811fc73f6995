//! The one exact byte grammar of the chain's git objects.
//!
//! Git alone allows a signed commit to be re-wrapped into another id that still verifies. So nothing here is parsed
//! leniently: a reader takes the few things that may vary out of the bytes, writes the object again from them, and
//! compares. The functions are pure: they know neither a repository nor a file.

mod block;
mod lane;
mod root;

pub use block::{block_commit, block_tree, read_block, read_tip, tip_commit, tip_tree};
pub(crate) use block::{
    light_block_id, read_certificate, read_header, read_light, read_tip_parent,
};
pub use lane::{
    LanePayload, Signatures, SignedLaneCommit, entries_jsonl, read_entries, read_lane_commit,
    read_lane_commit_with, single_file_tree,
};
pub use root::{genesis_commit, genesis_objects, is_genesis, read_genesis};

use instar_attest::ChainId;
use instar_attest::json::{self, JsonError};
use instar_attest::key::SignatureError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::certificate::CertificateError;
use crate::entry::EntryError;
use crate::lane::LaneNameError;
use crate::oid::Oid;
use crate::sshsig::ArmourError;

/// The file in a lane commit's tree.
pub const ENTRIES_FILE: &str = "entries.jsonl";
/// The previous block's certificate in a block's tree, and the head's in the tip's.
pub const CERTIFICATE_FILE: &str = "certificate.json";
/// The header in a block's tree.
pub const HEADER_FILE: &str = "header.json";
/// The receipts in a block's tree.
pub const RECEIPTS_FILE: &str = "receipts.jsonl";
/// The file in the genesis commit's tree.
pub const GENESIS_FILE: &str = "genesis.json";
/// The largest commit object: a block that merges [`crate::block::MAX_LANES_A_BLOCK`] lanes has 72 bytes a parent.
pub const MAX_COMMIT_BYTES: usize = 32 * 1024;
/// The largest tree object: three entries.
pub const MAX_TREE_BYTES: usize = 512;
/// The last second of the year 9999: git and people can still read it.
pub const MAX_TIME_S: u64 = 253_402_300_799;

/// A kind of git object. Tags are not part of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A commit.
    Commit,
    /// A tree.
    Tree,
    /// A blob.
    Blob,
}

impl Kind {
    /// The word that git hashes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
        }
    }
}

/// A git object: kind and content, and so its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its id.
    pub id: Oid,
    /// Its kind.
    pub kind: Kind,
    /// Its content, without git's prefix.
    pub bytes: Vec<u8>,
}

impl Object {
    /// Hashes the content.
    pub fn new(kind: Kind, bytes: Vec<u8>) -> Self {
        Self {
            id: Oid::of_object(kind.as_str(), &bytes),
            kind,
            bytes,
        }
    }
}

/// Why an object is not of the grammar.
#[derive(Debug, thiserror::Error)]
pub enum GrammarError {
    /// Something that every commit of this kind has is missing or misspelt.
    #[error("the {what} has no valid {part}")]
    Part {
        /// The kind of object.
        what: &'static str,
        /// What is missing.
        part: &'static str,
    },
    /// Written again from what it says, the object has other bytes.
    #[error("the {what} is not in the exact byte grammar, first difference at byte {at}")]
    Bytes {
        /// The kind of object.
        what: &'static str,
        /// Offset of the first byte that differs.
        at: usize,
    },
    /// It belongs to another chain.
    #[error("it belongs to chain {got}, this is {expected}")]
    OtherChain {
        /// The chain that is read.
        expected: ChainId,
        /// The chain it names.
        got: ChainId,
    },
    /// More than a named bound.
    #[error("{got} {what}, at most {max} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        got: u64,
        /// The bound.
        max: u64,
    },
    /// The armour of a lane commit.
    #[error("the signature of the lane commit: {0}")]
    Armour(#[from] ArmourError),
    /// The signature of a lane commit.
    #[error("the signature of the lane commit: {0}")]
    Signature(#[from] SignatureError),
    /// An entry of a lane commit.
    #[error("entry {index}: {source}")]
    Entry {
        /// Its place, from 0.
        index: usize,
        /// What is wrong with it.
        source: EntryError,
    },
    /// A lane's name.
    #[error(transparent)]
    Lane(#[from] LaneNameError),
    /// A header, receipt or genesis file.
    #[error("{file}: {source}")]
    Json {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        source: JsonError,
    },
    /// The previous block's certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The block contradicts itself.
    #[error("the block contradicts itself: {0}")]
    Contradiction(&'static str),
}

/// Fails with the place of the first difference.
pub(crate) fn same(what: &'static str, got: &[u8], expected: &[u8]) -> Result<(), GrammarError> {
    match difference(got, expected) {
        None => Ok(()),
        Some(at) => Err(GrammarError::Bytes { what, at }),
    }
}

fn difference(got: &[u8], expected: &[u8]) -> Option<usize> {
    (got != expected).then(|| {
        got.iter()
            .zip(expected)
            .position(|(a, b)| a != b)
            .unwrap_or(got.len().min(expected.len()))
    })
}

/// Reads canonical JSON of which no other object names the hash. A field that is left out where it says nothing could
/// stand there as `null`, which is canonical too; so what was read is written again and compared.
pub(crate) fn from_json<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    max_bytes: usize,
) -> Result<T, JsonError> {
    let value = json::from_slice(bytes, max_bytes)?;
    match difference(bytes, &json::to_vec(&value)?) {
        None => Ok(value),
        Some(at) => Err(JsonError::NotCanonical { at }),
    }
}

/// The bytes of a tree of plain files; `files` must be in the order of their names.
pub(crate) fn tree_of(files: &[(&str, Oid)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, id) in files {
        out.extend(format!("100644 {name}\0").bytes());
        out.extend(id.as_bytes());
    }
    out
}

/// The files of a tree, in order; only plain files are allowed, and writing them again gives the same bytes.
pub(crate) fn files_of(tree: &[u8]) -> Result<Vec<(&str, Oid)>, GrammarError> {
    const BROKEN: GrammarError = GrammarError::Part {
        what: "tree",
        part: "list of plain files",
    };
    let mut files = Vec::new();
    let mut rest = tree;
    while !rest.is_empty() {
        let after = rest.strip_prefix(b"100644 ").ok_or(BROKEN)?;
        let end = after.iter().position(|b| *b == 0).ok_or(BROKEN)?;
        let name = std::str::from_utf8(&after[..end]).map_err(|_| BROKEN)?;
        let (id, tail) = after[end + 1..].split_first_chunk::<32>().ok_or(BROKEN)?;
        files.push((name, Oid::from_bytes(*id)));
        rest = tail;
    }
    Ok(files)
}

/// The head of every commit: tree, parents, author and committer. One person is both.
pub(crate) fn commit_head(
    tree: &Oid,
    parents: &[Oid],
    name: &str,
    email: &str,
    time_s: u64,
) -> String {
    let mut out = format!("tree {tree}\n");
    for parent in parents {
        out.push_str(&format!("parent {parent}\n"));
    }
    for role in ["author", "committer"] {
        out.push_str(&format!("{role} {name} <{email}> {time_s} +0000\n"));
    }
    out
}

/// The parents of a commit, read leniently: whoever walks by them reads each commit again, exactly.
pub fn parents(commit: &[u8]) -> Result<Vec<Oid>, GrammarError> {
    Loose::read("commit", commit).map(|loose| loose.parents)
}

/// The parts of a commit that vary, read leniently: only a rebuilt comparison makes them true.
pub(crate) struct Loose<'a> {
    pub tree: Oid,
    pub parents: Vec<Oid>,
    pub time_s: u64,
    pub message: &'a str,
}

impl<'a> Loose<'a> {
    pub fn read(what: &'static str, bytes: &'a [u8]) -> Result<Self, GrammarError> {
        let broken = |part| GrammarError::Part { what, part };
        if bytes.len() > MAX_COMMIT_BYTES {
            return Err(GrammarError::TooMany {
                what: "bytes of commit",
                got: bytes.len() as u64,
                max: MAX_COMMIT_BYTES as u64,
            });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| broken("UTF-8 text"))?;
        let (head, message) = text.split_once("\n\n").ok_or_else(|| broken("message"))?;
        let mut lines = head.split('\n').peekable();
        let tree = lines
            .next()
            .and_then(|l| l.strip_prefix("tree "))
            .and_then(|hex| hex.parse().ok())
            .ok_or_else(|| broken("tree"))?;
        let mut parents = Vec::new();
        while let Some(hex) = lines.peek().and_then(|l| l.strip_prefix("parent ")) {
            parents.push(hex.parse().map_err(|_| broken("parent"))?);
            lines.next();
        }
        let time_s = lines
            .next()
            .and_then(|l| l.strip_prefix("author "))
            .and_then(|l| l.strip_suffix(" +0000"))
            .and_then(|l| l.rsplit_once("> "))
            .and_then(|(_, time)| time.parse().ok())
            .filter(|time| *time <= MAX_TIME_S)
            .ok_or_else(|| broken("author"))?;
        Ok(Self {
            tree,
            parents,
            time_s,
            message,
        })
    }

    /// The value of a trailer line `Name: value`.
    pub fn trailer(&self, name: &str) -> Option<&'a str> {
        self.message
            .split('\n')
            .filter_map(|l| l.split_once(": "))
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }
}
