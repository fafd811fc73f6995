//! Deltas of whole releases: for each file what is smallest, in one object, believed only by the root's content address.

mod apply;
mod make;
mod tree;

use instar_chunks::tree::TreeError;
use instar_chunks::{Cid, TreeLink, tree_root};
use serde::{Deserialize, Serialize};

pub use apply::{apply_release, read};
pub use make::{Choice, Made, make_release};

use crate::error::{DeltaError, bounded};

/// The first bytes of an object; the last of them is the version.
pub const MAGIC: [u8; 8] = *b"INSDREL\x01";

/// Most bytes of an object's list.
pub const MAX_LIST_BYTES: u64 = 4 * 1024 * 1024;

/// Most files of a release.
pub const MAX_FILES: usize = 10_000;

/// Most bytes of a release's files together.
pub const MAX_RELEASE_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// The list that stands at an object's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Chunk profile of both addresses.
    pub profile: String,
    /// Root of the old release.
    pub old: String,
    /// Root of the new release.
    pub new: String,
    /// The new release's files, sorted by path. A release that is a single file has one, with an empty path.
    pub files: Vec<Entry>,
}

/// A file of the new release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its path, parts joined by `/`.
    pub path: String,
    /// Its content address.
    pub cid: String,
    /// Bytes of all its blocks (dag-pb `Tsize`).
    pub dag_size: u64,
    /// Its size.
    pub size: u64,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// Path of the old file that it is made from; absent: from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Bytes of its delta in the object; 0: it is the old file, unchanged.
    pub delta: u64,
}

/// Why a release's delta was not made or not applied.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The object is not one.
    #[error("this is not a release delta of a version known here: {0}")]
    NotAnObject(&'static str),
    /// The list is wrong in itself.
    #[error("the release delta is damaged or hostile: {0}")]
    Malformed(String),
    /// The files' addresses don't make a tree.
    #[error("the release delta's files make no tree")]
    Tree(#[from] TreeError),
    /// A release is not what can be addressed.
    #[error("{path}: {why}")]
    Unfit {
        /// Where.
        path: String,
        /// What is wrong there.
        why: String,
    },
    /// It leads to another release than the one wanted.
    #[error("the delta makes {found}, and {wanted} is wanted")]
    OtherRelease {
        /// The address that was asked for.
        wanted: String,
        /// The address that the object names.
        found: String,
    },
    /// One file went wrong.
    #[error("file {path:?} of the release")]
    File {
        /// Its path.
        path: String,
        /// What went wrong.
        #[source]
        source: DeltaError,
    },
    /// A claim over its bound, outside any file.
    #[error(transparent)]
    Bound(#[from] DeltaError),
}

/// The root of the tree of those files; a single file with an empty path is its own root.
fn root(files: &[Entry]) -> Result<Cid, ReleaseError> {
    let address = |entry: &Entry| {
        Cid::try_from(entry.cid.as_str())
            .map_err(|_| ReleaseError::Malformed(format!("{:?} is no content address", entry.cid)))
    };
    if let [only] = files
        && only.path.is_empty()
    {
        return address(only);
    }
    let mut links = std::collections::BTreeMap::new();
    for file in files {
        let link = TreeLink {
            cid: address(file)?,
            dag_size: file.dag_size,
        };
        if links.insert(file.path.clone(), link).is_some() {
            return Err(ReleaseError::Malformed(format!(
                "{:?} stands twice",
                file.path
            )));
        }
    }
    Ok(tree_root(&links)?.0)
}

impl List {
    /// Checks a list that came from outside: bounds, sizes, and that its files make the root that it names. From here on
    /// what it says about the new release is as true as that root.
    fn check(&self) -> Result<(), ReleaseError> {
        bounded("files", self.files.len() as u64, MAX_FILES as u64)?;
        let mut total = 0u64;
        for file in &self.files {
            // The root vouches for `dag_size`, and a file is never larger than its blocks.
            if file.size > file.dag_size {
                return Err(ReleaseError::Malformed(format!(
                    "{:?} is said to be larger than its blocks",
                    file.path
                )));
            }
            if file.from.is_none() && file.delta == 0 {
                return Err(ReleaseError::Malformed(format!(
                    "{:?} is made from nothing by nothing",
                    file.path
                )));
            }
            total = bounded(
                "bytes of files",
                total.saturating_add(file.size),
                MAX_RELEASE_BYTES,
            )?;
        }
        let found = root(&self.files)?.to_string();
        if found != self.new {
            return Err(ReleaseError::Malformed(format!(
                "its files make {found}, and it promises {}",
                self.new
            )));
        }
        Ok(())
    }
}
