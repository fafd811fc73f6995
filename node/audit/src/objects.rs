//! A ledger's clone as an auditor has it: objects by id, and two refs. Nothing in it is trusted.

use std::path::Path;

use instar_ledger::Oid;
use instar_ledger::grammar::{GrammarError, Kind};

/// The largest object that is read: receipts are the largest of the grammar.
const MAX_OBJECT_BYTES: usize = instar_ledger::receipt::MAX_RECEIPTS_BYTES;

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
    /// Of another kind, or too large.
    #[error("object {id} is no {} of an allowed size", .kind.as_str())]
    Unexpected {
        /// Its id.
        id: Oid,
        /// What it should be.
        kind: Kind,
    },
    /// Stored under an id that is not its own.
    #[error("object {id} has content that hashes to {got}")]
    Hash {
        /// The id it was asked for by.
        id: Oid,
        /// The id of its content.
        got: Oid,
    },
    /// Not of the byte grammar.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

/// The objects of a clone.
pub struct Objects {
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
        Ok(Self { repo })
    }

    /// Reads an object of that kind and checks that its content has that id.
    pub fn read(&self, id: &Oid, kind: Kind) -> Result<Vec<u8>, ObjectError> {
        let unexpected = || ObjectError::Unexpected { id: *id, kind };
        let odb = self.repo.odb()?;
        // The size is asked first, so that a huge object is not unpacked.
        let (size, found) = odb.read_header(git_oid(id)?)?;
        let wanted = match kind {
            Kind::Commit => git2::ObjectType::Commit,
            Kind::Tree => git2::ObjectType::Tree,
            Kind::Blob => git2::ObjectType::Blob,
        };
        if found != wanted || size > MAX_OBJECT_BYTES {
            return Err(unexpected());
        }
        let object = odb.read(git_oid(id)?)?;
        let got = Oid::of_object(kind.as_str(), object.data());
        if got != *id {
            return Err(ObjectError::Hash { id: *id, got });
        }
        Ok(object.data().to_vec())
    }

    /// Where a branch stands: the clone's own, or that of its origin.
    pub fn branch(&self, name: &'static str) -> Result<Oid, ObjectError> {
        for place in [
            format!("refs/heads/{name}"),
            format!("refs/remotes/origin/{name}"),
        ] {
            if let Ok(id) = self.repo.refname_to_id(&place) {
                let bytes: [u8; 32] = id.as_bytes().try_into().map_err(|_| ObjectError::Format)?;
                return Ok(Oid::from_bytes(bytes));
            }
        }
        Err(ObjectError::NoRef(name))
    }
}
