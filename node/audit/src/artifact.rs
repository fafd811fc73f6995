//! The release itself: its root from `release.json`, its files cut again, the source commit hashed again.

use std::collections::BTreeMap;
use std::io::Read;

use instar_attest::Digest;
use instar_attest::release::{RELEASE_PATH, Release, Source, SourceFormat};
use instar_chunks::{Profile, TreeLink, add_file, tree_root};

/// Why a member is not what the ledger names.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A chunk profile that is not known here.
    #[error(transparent)]
    Profile(#[from] instar_chunks::profile::UnknownProfile),
    /// Cutting a file failed.
    #[error(transparent)]
    Cut(#[from] instar_chunks::add::AddError),
    /// The release has no root.
    #[error(transparent)]
    Tree(#[from] instar_chunks::tree::TreeError),
    /// A CID of the release that the chunk store's library does not take.
    #[error("{0} is not a CID")]
    Cid(String),
    /// Another root than the one that was voted on.
    #[error("the root of what it describes is {got}, not {expected}")]
    Root {
        /// The recomputed root.
        got: String,
        /// The root that was asked for.
        expected: String,
    },
    /// Other content than the release names.
    #[error("{path} has {field} {got}, the release names {expected}")]
    Content {
        /// The file.
        path: String,
        /// What differs.
        field: &'static str,
        /// As recomputed.
        got: String,
        /// As the release has it.
        expected: String,
    },
    /// Hashing the commit failed.
    #[error("git: {0}")]
    Git(#[from] git2::Error),
}

/// Recomputes a release's root from release.json and compares it with `cid`.
pub fn check_root(release: &Release, bytes: &[u8], cid: &str) -> Result<(), ArtifactError> {
    let profile = Profile::from_name(release.chunk_profile.as_str())?;
    let mut links = BTreeMap::new();
    for (path, link) in release.links() {
        let parsed = link
            .cid
            .as_str()
            .parse()
            .map_err(|_| ArtifactError::Cid(link.cid.to_string()))?;
        links.insert(
            path,
            TreeLink {
                cid: parsed,
                dag_size: link.dag_size,
            },
        );
    }
    let own = add_file(profile, &mut &*bytes, &mut |_, _| Ok(()))?;
    links.insert(
        RELEASE_PATH.to_owned(),
        TreeLink {
            cid: own.cid,
            dag_size: own.dag_size,
        },
    );
    let (root, _) = tree_root(&links)?;
    let got = root.to_string();
    if got != cid {
        return Err(ArtifactError::Root {
            got,
            expected: cid.to_owned(),
        });
    }
    Ok(())
}

/// What a release says about one of its files.
pub struct Named<'a> {
    /// Its path, for people.
    pub path: &'a str,
    /// Its CID.
    pub cid: &'a str,
    /// Its cumulative DAG size.
    pub dag_size: u64,
    /// SHA-256 of its content.
    pub sha256: &'a Digest,
    /// Its size.
    pub size: u64,
}

/// Cuts a file again and compares everything that the release says about it.
pub fn check_file(
    release: &Release,
    named: &Named<'_>,
    content: &mut dyn Read,
) -> Result<(), ArtifactError> {
    let profile = Profile::from_name(release.chunk_profile.as_str())?;
    // One byte more than named is enough to see that it is too long.
    let mut bounded = content.take(named.size.saturating_add(1));
    let sum = add_file(profile, &mut bounded, &mut |_, _| Ok(()))?;
    let sha256 = Digest::from_bytes(sum.sha256);
    let pairs = [
        ("size", sum.size.to_string(), named.size.to_string()),
        ("sha256", sha256.to_string(), named.sha256.to_string()),
        ("CID", sum.cid.to_string(), named.cid.to_owned()),
        (
            "DAG size",
            sum.dag_size.to_string(),
            named.dag_size.to_string(),
        ),
    ];
    for (field, got, expected) in pairs {
        if got != expected {
            return Err(ArtifactError::Content {
                path: named.path.to_owned(),
                field,
                got,
                expected,
            });
        }
    }
    Ok(())
}

/// Hashes a raw commit object again, and looks for the tree that it names.
pub fn check_commit(source: &Source, raw: &[u8]) -> Result<(), ArtifactError> {
    let differs = |field, got: String, expected: &str| ArtifactError::Content {
        path: "source-commit".into(),
        field,
        got,
        expected: expected.to_owned(),
    };
    let format = match source.format {
        SourceFormat::Sha1 => git2::ObjectFormat::Sha1,
        SourceFormat::Sha256 => git2::ObjectFormat::Sha256,
    };
    let id = git2::Oid::hash_object_ext(git2::ObjectType::Commit, raw, format)?.to_string();
    if id != source.commit {
        return Err(differs("object id", id, &source.commit));
    }
    // The tree is the first line of a commit; the id covers it.
    let tree = raw
        .split(|b| *b == b'\n')
        .next()
        .and_then(|line| line.strip_prefix(b"tree "))
        .map(|hex| String::from_utf8_lossy(hex).into_owned())
        .unwrap_or_default();
    if tree != source.tree {
        return Err(differs("tree", tree, &source.tree));
    }
    Ok(())
}
