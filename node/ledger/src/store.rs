//! The git store: a bare SHA-256 repository that stock git reads, written through a journal.
//!
//! Everything a caller was told is durable: it is in the journal, with one fsync. Every few seconds ([`Store::flush`])
//! the journal becomes one pack and one `packed-refs`, which replaces all refs at once, so that whoever clones sees one
//! moment of the chain. Beside git's own files the repository holds a folder `instar`: the journal, the lock of the one
//! writer, and the list of block ids by height, which can be rebuilt.

mod base;
mod blocks;
mod flush;
mod lanes;
mod lend;
mod maintain;
mod objects;
mod open;
mod packs;
mod prune;
mod slices;
mod sync;

pub use base::{BaseCommit, GENESIS_REF};
pub use flush::{FLUSH_BYTES, FLUSH_EVERY, FLUSH_OBJECTS};
pub use lend::{borrow, borrowers, tell_again};
pub use maintain::{MAX_PACKS, MaintainReport, PACK_GRACE, TIP_KEPT, maintain, maintain_with};
pub use prune::{Merged, Pruned, Pruning};
pub use slices::has_commit;
pub use sync::Imported;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use instar_attest::{ChainId, PublicKey};

use crate::certificate::Certificate;
use crate::fork::ForkRange;
use crate::genesis::Genesis;
use crate::grammar::{GrammarError, Kind};
use crate::journal::Journal;
use crate::lane::Lane;
use crate::mark::{MarkError, MarkFile};
use crate::oid::Oid;
use crate::pack::PackError;

/// Where a served trunk stands.
pub const TRUNK_REF: &str = "refs/heads/trunk";
/// Where the commit with the head's certificate stands.
pub const TIP_REF: &str = "refs/heads/tip";
/// The folder of our own files inside the repository.
const PRIVATE_DIR: &str = "instar";

/// A chain's git repository. One process writes it; it can be moved between threads, not shared.
pub struct Store {
    path: PathBuf,
    chain: ChainId,
    genesis: Genesis,
    objects: objects::Objects,
    /// Absent in a clone that is only read.
    writer: Option<Writer>,
    /// The head and sequence number of each lane, merged or not.
    lanes: BTreeMap<Lane, (Oid, u64)>,
    /// The height of the first of them: 0 is genesis, more in a ledger that begins in the middle.
    first: u64,
    /// Block ids by height, from `first` on.
    trunk: Vec<Oid>,
    /// The certificate of the newest block; none at genesis.
    tip: Option<Certificate>,
    verified: RefCell<lanes::Verified>,
}

/// What only the writing process has.
struct Writer {
    journal: Journal,
    mark: Option<MarkFile>,
    mark_path: Option<PathBuf>,
    flushed_at: Instant,
    /// How many heights the list on disk has.
    heights_on_disk: usize,
    /// Packs written since maintenance last began.
    packs_written: usize,
    /// Maintenance in the background, of which one runs at a time.
    maintenance: Option<JoinHandle<()>>,
    /// Held as long as the store is open.
    _lock: File,
}

/// How a store is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// The high-water mark of the own lane, outside the repository. Without it nothing can be appended.
    pub lane_mark: Option<PathBuf>,
    /// For a new fork, the repository that has the mother's history. It is read in its place, not copied, so it has to stay
    /// there.
    pub mother: Option<PathBuf>,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// The git library.
    #[error("git: {0}")]
    Git(#[from] git2::Error),
    /// An object that is not there.
    #[error("{} {id} is not in the store", .kind.as_str())]
    NotFound {
        /// Its id.
        id: Oid,
        /// What it should be.
        kind: Kind,
    },
    /// An object of another kind than asked for, or one larger than its kind may be.
    #[error("object {id} is no {} of an allowed size", .kind.as_str())]
    Unexpected {
        /// Its id.
        id: Oid,
        /// What it should be.
        kind: Kind,
    },
    /// An object that is not of the grammar.
    #[error("{source} (in {id})")]
    Grammar {
        /// The commit.
        id: Oid,
        /// What is wrong with it.
        source: GrammarError,
    },
    /// Something to be written is not of the grammar.
    #[error("can't be written: {0}")]
    Draft(#[from] GrammarError),
    /// A pack from outside.
    #[error("the pack is refused: {0}")]
    Pack(#[from] PackError),
    /// A pack from outside holds something that belongs to none of its commits.
    #[error("the pack is refused: object {0} belongs to none of its commits")]
    Stray(Oid),
    /// The caller does not take commits of this key.
    #[error("lane commit {id} is signed by {key}, which may not sign for lane {lane}")]
    NotAllowed {
        /// The commit.
        id: Oid,
        /// Its lane.
        lane: Lane,
        /// The key that signed.
        key: PublicKey,
    },
    /// A lane commit that does not continue its parent.
    #[error("lane commit {id} (sequence {seq}) does not continue its parent {parent}")]
    Linkage {
        /// The commit.
        id: Oid,
        /// Its sequence number.
        seq: u64,
        /// Its parent.
        parent: Oid,
    },
    /// A block whose header names a lane head that is another lane's or at another sequence number.
    #[error("block {block} merges {head} as the wrong lane or sequence number")]
    Range {
        /// The block.
        block: Oid,
        /// The lane head.
        head: Oid,
    },
    /// A block that merges of a fork what is not due.
    #[error(
        "block {block} merges blocks {} to {} of fork {}, which are not due here: a motion says what of a fork is merged, \
         in which slices", .range.from, .range.to, .range.chain
    )]
    NotDue {
        /// The block.
        block: Oid,
        /// What it merges.
        range: ForkRange,
    },
    /// A slice of a fork that does not stand on what is merged of it.
    #[error(
        "the slice of a fork up to {head} stands on {after}, what is merged of it ends at {expected}"
    )]
    SliceGap {
        /// The slice's last block.
        head: Oid,
        /// What it stands on.
        after: Oid,
        /// What is merged.
        expected: Oid,
    },
    /// A fork of another chain, or of blocks that never became final here.
    #[error("fork {chain} stands on {block}, which is not the block of height {height} here")]
    OtherMother {
        /// The fork.
        chain: ChainId,
        /// What its genesis stands on.
        block: Oid,
        /// The height that it names.
        height: u64,
    },
    /// Two commits at one place of a lane: see [`crate::equivocation`].
    #[error("lane {lane} forks at sequence {seq}: {ours} and {theirs}")]
    Fork {
        /// The lane.
        lane: Lane,
        /// Where.
        seq: u64,
        /// The commit that the store has.
        ours: Oid,
        /// The other.
        theirs: Oid,
    },
    /// The block does not stand on the head.
    #[error("block {block} of height {height} can't follow the head at height {head}")]
    NotNext {
        /// The block.
        block: Oid,
        /// Its height.
        height: u64,
        /// The height of the head.
        head: u64,
    },
    /// The certificate is of another block.
    #[error("the certificate is of block {certified} at height {height}, not of {block}")]
    OtherBlock {
        /// The block.
        block: Oid,
        /// The certificate's block.
        certified: Oid,
        /// The certificate's height.
        height: u64,
    },
    /// A lane may be walked only this far at once.
    #[error("{got} lane commits at once, at most {max} are allowed")]
    TooMany {
        /// How many.
        got: u64,
        /// The bound.
        max: u64,
    },
    /// The own lane can't be signed.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// Another process writes this store.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// Older history was to go, and another repository reads it here.
    #[error("{0} reads its older history here, which therefore stays")]
    Lent(PathBuf),
    /// A fork without its mother's history.
    #[error("the mother's block {block} is not in {}, with all its history: fetch it there first", .path.display())]
    NoMother {
        /// The block that the fork stands on.
        block: Oid,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A clone opened for reading.
    #[error("this clone was opened for reading only")]
    ReadOnly,
    /// The folder holds something else.
    #[error("{path} is not a ledger: {why}")]
    NotALedger {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
}

impl StoreError {
    /// Whether what was read comes from nobody honest, whatever this store lacks.
    pub fn is_forged(&self) -> bool {
        matches!(
            self,
            Self::Pack(_) | Self::Stray(_) | Self::Grammar { .. } | Self::Linkage { .. }
        )
    }
}

/// Names what was tried.
fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
    let what = what.into();
    move |source| StoreError::Io { what, source }
}

impl Store {
    /// The repository's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The chain's id.
    pub fn chain(&self) -> &ChainId {
        &self.chain
    }

    /// What the chain started with.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    fn writer(&mut self) -> Result<&mut Writer, StoreError> {
        self.writer.as_mut().ok_or(StoreError::ReadOnly)
    }
}
