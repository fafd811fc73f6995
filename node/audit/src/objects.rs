//! A ledger's clone as an auditor has it: objects by id, and two refs. Nothing in it is trusted.

use std::path::{Path, PathBuf};

use instar_ledger::Oid;
use instar_ledger::grammar::{GrammarError, Kind, MAX_COMMIT_BYTES, MAX_TREE_BYTES};
use instar_ledger::receipt::MAX_RECEIPTS_BYTES;

/// Why an object of the clone can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The git library.
    #[error("git: {0}")]
    Git(#[from] git2::Error),
    /// Not a repository in SHA-256 object format.
    #[error("the clone is in SHA-1 object format, a ledger is in SHA-256")]
    Format,
    /// Neither of the two places has the ref.
    #[error("the clone has no {0}, neither as a branch nor from a remote called origin")]
    NoRef(&'static str),
    /// Not there.
    #[error("{} {id} is not in the clone", .kind.as_str())]
    Missing {
        /// Its id.
        id: Oid,
        /// What it should be.
        kind: Kind,
    },
    /// There, and broken.
    #[error("object {id} can't be read: {source}")]
    Unreadable {
        /// Its id.
        id: Oid,
        /// What the git library says.
        source: git2::Error,
    },
    /// Of another kind, or too large.
    #[error("object {id} is no {} of an allowed size", .kind.as_str())]
    Unexpected {
        /// Its id.
        id: Oid,
        /// What it should be.
        kind: Kind,
    },
    /// Stored under an id that is not its own.
    #[error("object {id} has content that hashes to another id")]
    Hash {
        /// The id it was asked for by.
        id: Oid,
    },
    /// Not of the byte grammar.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

impl ObjectError {
    /// The object that the error is about, where it names one.
    pub fn id(&self) -> Option<Oid> {
        match self {
            Self::Missing { id, .. }
            | Self::Unreadable { id, .. }
            | Self::Unexpected { id, .. }
            | Self::Hash { id } => Some(*id),
            Self::Git(_) | Self::Format | Self::NoRef(_) | Self::Grammar(_) => None,
        }
    }
}

/// The objects of a clone.
pub struct Objects {
    path: PathBuf,
    repo: git2::Repository,
}

fn git_oid(id: &Oid) -> Result<git2::Oid, git2::Error> {
    git2::Oid::from_bytes(id.as_bytes())
}

impl Objects {
    /// Opens a clone: bare or not, as `git clone` makes it.
    pub fn open(path: &Path) -> Result<Self, ObjectError> {
        let repo = git2::Repository::open(path)?;
        if repo.object_format() != git2::ObjectFormat::Sha256 {
            return Err(ObjectError::Format);
        }
        Ok(Self {
            path: path.into(),
            repo,
        })
    }

    /// Another handle on the same clone: one thread can't use another's.
    pub fn again(&self) -> Result<Self, ObjectError> {
        Self::open(&self.path)
    }

    /// Whether it begins in the middle of the chain, as the ledger of a node that is no archive does sooner or
    /// later.
    pub fn is_shallow(&self) -> bool {
        self.repo.is_shallow()
    }

    /// Reads an object of that kind and checks that its content has that id.
    pub fn read(&self, id: &Oid, kind: Kind) -> Result<Vec<u8>, ObjectError> {
        let failed = |source: git2::Error| match source.code() {
            git2::ErrorCode::NotFound => ObjectError::Missing { id: *id, kind },
            git2::ErrorCode::HashsumMismatch => ObjectError::Hash { id: *id },
            _ => ObjectError::Unreadable { id: *id, source },
        };
        let odb = self.repo.odb()?;
        // The size is asked first, so that a huge object is not unpacked.
        let (size, found) = odb.read_header(git_oid(id)?).map_err(failed)?;
        let (wanted, max) = match kind {
            Kind::Commit => (git2::ObjectType::Commit, MAX_COMMIT_BYTES),
            Kind::Tree => (git2::ObjectType::Tree, MAX_TREE_BYTES),
            Kind::Blob => (git2::ObjectType::Blob, MAX_RECEIPTS_BYTES),
        };
        if found != wanted || size > max {
            return Err(ObjectError::Unexpected { id: *id, kind });
        }
        let object = odb.read(git_oid(id)?).map_err(failed)?;
        if Oid::of_object(kind.as_str(), object.data()) != *id {
            return Err(ObjectError::Hash { id: *id });
        }
        Ok(object.data().to_vec())
    }

    /// Where a branch stands: the clone's own, or that of its origin.
    pub fn branch(&self, name: &'static str) -> Result<Oid, ObjectError> {
        // In a clone the origin's branches are what came over the wire; the own ones are where they were at the clone.
        for place in [
            format!("refs/remotes/origin/{name}"),
            format!("refs/heads/{name}"),
        ] {
            if let Ok(id) = self.repo.refname_to_id(&place) {
                let bytes: [u8; 32] = id.as_bytes().try_into().map_err(|_| ObjectError::Format)?;
                return Ok(Oid::from_bytes(bytes));
            }
        }
        Err(ObjectError::NoRef(name))
    }
}
