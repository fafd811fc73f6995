//! What a builder reveals about its build, and the commitment that it publishes before.

use serde::{Deserialize, Serialize};

use crate::digest::{ChainId, Digest, hex_newtype};
use crate::json;
use crate::key::PublicKey;
use crate::names::{Cid, ReleasePath, Target};

/// The domain of commitments.
pub const COMMITMENT_DOMAIN: &str = "instar/commitment/v1";
/// How many files one target of a release may have; a reveal must fit into one entry.
pub const MAX_TARGET_FILES: usize = 128;
/// The path of the SBOM in a release.
pub const SBOM_PATH: &str = "sbom.cdx.json";

hex_newtype!(
    /// 32 random bytes that hide what a commitment commits to until it is opened.
    Nonce,
    32
);

/// The permission bits of a released file: executable or not. Nothing else is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FileMode {
    /// A plain file.
    #[serde(rename = "0644")]
    Plain,
    /// A program.
    #[serde(rename = "0755")]
    Executable,
}

impl FileMode {
    /// The mode bits for `chmod`.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Plain => 0o644,
            Self::Executable => 0o755,
        }
    }
}

/// One file of a target, as a builder built it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileReveal {
    /// The file's CID under the chain's chunk profile.
    pub cid: Cid,
    /// The cumulative size of its DAG in bytes, which a directory's link carries.
    pub dag_size: u64,
    /// Executable or not.
    pub mode: FileMode,
    /// The path in the release; it begins with the target.
    pub path: ReleasePath,
    /// SHA-256 of the content.
    pub sha256: Digest,
    /// The content's size in bytes.
    pub size: u64,
}

/// The software bill of materials, which is one for the whole release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SbomReveal {
    /// The file's CID under the chain's chunk profile.
    pub cid: Cid,
    /// The cumulative size of its DAG in bytes.
    pub dag_size: u64,
    /// Always [`SBOM_PATH`].
    pub path: ReleasePath,
    /// SHA-256 of the content.
    pub sha256: Digest,
    /// The content's size in bytes.
    pub size: u64,
}

/// Why a list of revealed files is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevealError {
    /// Nothing was built.
    #[error("target {0} has no files")]
    Empty(Target),
    /// More files than [`MAX_TARGET_FILES`].
    #[error("{got} files in target {target}, at most {MAX_TARGET_FILES} are allowed")]
    TooMany {
        /// The target.
        target: Target,
        /// How many files were listed.
        got: usize,
    },
    /// Not strictly ascending by path, so a file is out of order or given twice.
    #[error("the files are not sorted by path, or {0} stands there twice")]
    Order(ReleasePath),
    /// A file that is not under its target.
    #[error("the file {path} is not under its target {target}")]
    Elsewhere {
        /// The file.
        path: ReleasePath,
        /// The target.
        target: Target,
    },
    /// A file where another file's directory should be.
    #[error("{0} is both a file and a directory")]
    FileAndDirectory(ReleasePath),
    /// An SBOM under another name.
    #[error("the SBOM stands at {0}, not at sbom.cdx.json")]
    SbomPath(ReleasePath),
    /// A size that canonical JSON can't carry.
    #[error("the size of {0} is 2^53 or more")]
    Size(ReleasePath),
}

/// Checks what a type alone can't: order, uniqueness, place and bounds.
pub fn check_files(target: &Target, files: &[FileReveal]) -> Result<(), RevealError> {
    if files.is_empty() {
        return Err(RevealError::Empty(target.clone()));
    }
    if files.len() > MAX_TARGET_FILES {
        return Err(RevealError::TooMany {
            target: target.clone(),
            got: files.len(),
        });
    }
    for file in files {
        if !file.path.is_under(target) {
            return Err(RevealError::Elsewhere {
                path: file.path.clone(),
                target: target.clone(),
            });
        }
        check_sizes(&file.path, file.size, file.dag_size)?;
    }
    check_paths(files.iter().map(|f| &f.path))
}

/// Checks the SBOM's fixed path and its sizes.
pub fn check_sbom(sbom: &SbomReveal) -> Result<(), RevealError> {
    if sbom.path.as_str() != SBOM_PATH {
        return Err(RevealError::SbomPath(sbom.path.clone()));
    }
    check_sizes(&sbom.path, sbom.size, sbom.dag_size)
}

fn check_sizes(path: &ReleasePath, size: u64, dag_size: u64) -> Result<(), RevealError> {
    if size > json::MAX_INTEGER || dag_size > json::MAX_INTEGER {
        return Err(RevealError::Size(path.clone()));
    }
    Ok(())
}

/// Paths must strictly ascend, and no file may be another's directory.
pub(crate) fn check_paths<'a>(
    paths: impl Iterator<Item = &'a ReleasePath>,
) -> Result<(), RevealError> {
    let mut seen = std::collections::BTreeSet::new();
    let mut last: Option<&ReleasePath> = None;
    for path in paths {
        if last.is_some_and(|l| l >= path) {
            return Err(RevealError::Order(path.clone()));
        }
        last = Some(path);
        seen.insert(path.as_str());
    }
    for path in &seen {
        for (at, _) in path.match_indices('/') {
            if seen.contains(&path[..at]) {
                let taken = ReleasePath::new(&path[..at]).expect("it is in the set of paths");
                return Err(RevealError::FileAndDirectory(taken));
            }
        }
    }
    Ok(())
}

/// SHA-256 of the canonical JSON of a target's files: what builders must agree on.
///
/// The order of `files` does not matter here: they are sorted by path first.
pub fn target_digest(files: &[FileReveal]) -> Digest {
    let mut files: Vec<&FileReveal> = files.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Digest::of(
        &json::to_vec(&files).expect("checked file sizes are below 2^53, all else is ASCII text"),
    )
}

/// What a commitment binds together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Commitment<'a> {
    /// The builder's attestation key, so that nobody can copy another's commitment.
    pub builder: &'a PublicKey,
    /// The chain.
    pub chain: &'a ChainId,
    /// [`target_digest`] of the files.
    pub digest: &'a Digest,
    /// What hides the digest until it is revealed.
    pub nonce: &'a Nonce,
    /// The build round: the id of the entry that opened it.
    pub round: &'a Digest,
    /// The target that was built.
    pub target: &'a Target,
}

impl Commitment<'_> {
    /// The digest that is published.
    pub fn digest(&self) -> Digest {
        let bytes = json::to_vec(self).expect("all members are short ASCII texts");
        Digest::tagged(COMMITMENT_DOMAIN, &bytes)
    }
}

/// The digest of a [`Commitment`].
pub fn commitment(
    builder: &PublicKey,
    chain: &ChainId,
    digest: &Digest,
    nonce: &Nonce,
    round: &Digest,
    target: &Target,
) -> Digest {
    Commitment {
        builder,
        chain,
        digest,
        nonce,
        round,
        target,
    }
    .digest()
}
