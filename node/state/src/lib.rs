//! The authenticated state on disk: a Jellyfish Merkle tree over redb, one file.
//!
//! The tree's root stands in every block header, so that one value can be checked against a certificate without
//! replaying anything. A version of the tree is a block height; 0 is the genesis state. Reading [`keys`] and
//! [`tables`] tells what is in the file, [`view`] how a read is checked, [`store`] how a block is committed, and
//! [`fork`] how states are tried out without committing them, [`snapshot`] how a state goes to another node. `docs/formats/state.md` has it for other
//! implementations.
//!
//! This room knows no rule of the state machine, no block grammar and no network: it keeps keys and values.

pub mod dump;
pub mod error;
pub mod fork;
pub mod keys;
pub mod proof;
pub mod snapshot;
pub mod store;
pub mod tables;
pub mod view;

mod prune;
mod rows;
mod tree;

pub use dump::{DumpError, MAX_DUMP_BYTES, read_dump, write_dump};
pub use error::StoreError;
pub use fork::{Fork, root_of_snapshot};
pub use proof::{ProofError, Proven};
pub use store::{Computed, Head, StateStore};
pub use view::{Export, View};
