//! What can go wrong with the store as a whole; single reads fail with [`StateError`].

use instar_chain::view::StateError;

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database itself failed: disk full, file locked by another process, file damaged.
    #[error("the state database failed")]
    Database(#[source] Box<redb::Error>),
    /// The file is of another format.
    #[error("the state file has format {found:?}, this program reads {expected:?}")]
    Format {
        /// What the file says.
        found: String,
        /// What this program writes.
        expected: &'static str,
    },
    /// There is no genesis state yet.
    #[error("the state has not been initialised with a genesis")]
    Uninitialised,
    /// There is a genesis state already, and it is another one.
    #[error("the state was initialised with another genesis")]
    OtherGenesis,
    /// A block was committed out of order, or another block at a height that is final.
    #[error("block {height} can't be committed on top of height {head}")]
    NotNext {
        /// The height that was to be committed.
        height: u64,
        /// The height of the head.
        head: u64,
    },
    /// This height is not there yet.
    #[error("height {height} is above the head, {head}")]
    Future {
        /// The height that was asked for.
        height: u64,
        /// The height of the head.
        head: u64,
    },
    /// This height was pruned away.
    #[error("height {height} was pruned; the oldest that is kept is {floor}")]
    Pruned {
        /// The height that was asked for.
        height: u64,
        /// The oldest height that can be read.
        floor: u64,
    },
    /// A key is not printable ASCII of 1 to [`instar_chain::view::MAX_KEY_BYTES`] bytes.
    #[error("not a state key: {0:?}")]
    Key(String),
    /// A value is over [`instar_chain::view::MAX_VALUE_BYTES`].
    #[error("the value of {key} has {size} bytes, more than {max}", max = instar_chain::view::MAX_VALUE_BYTES)]
    ValueTooLarge {
        /// Whose value.
        key: String,
        /// How large it is.
        size: usize,
    },
    /// The same key stands twice in a snapshot.
    #[error("{0} stands twice in the snapshot")]
    Duplicate(String),
    /// A stored value or tree node is not what the tree committed to.
    #[error(transparent)]
    State(#[from] StateError),
    /// A proof that can't be made, or does not hold.
    #[error(transparent)]
    Proof(#[from] crate::proof::ProofError),
    /// A row that only damage can explain.
    #[error("the state database is damaged: {0}")]
    Damaged(String),
}

macro_rules! from_redb {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for StoreError {
            fn from(error: redb::$kind) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(
    CommitError,
    DatabaseError,
    Error,
    SetDurabilityError,
    StorageError,
    TableError,
    TransactionError
);

impl From<StoreError> for StateError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::State(error) => error,
            other => StateError::Io(chain_of(&other)),
        }
    }
}

/// An error and its sources in one line: [`StateError::Io`] carries text only.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
