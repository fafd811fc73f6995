//! FastCDC cutting, UnixFS DAGs and CIDs, the block store, verified traversal with bounds.
//!
//! A chunk *is* an IPFS block: any IPFS implementation can fetch what is cut here, and boundaries
//! that follow the content let versions share blocks. The format is written down in
//! `docs/formats/chunks.md`.
//!
//! The room has two halves. The *DAG half* is pure: it maps bytes to blocks and back, bounds what
//! it reads, and knows no disk and no clock ([`profile`], [`block`], [`node`], [`add`], [`tree`],
//! [`walk`]). The *store half* does the I/O ([`store`], [`mod@export`]). Neither knows the network, and
//! neither knows file modes: those stand in a release or an image manifest and are applied by the
//! caller.

pub mod profile;

pub mod block;

mod unixfs;

pub mod hamt;

pub mod node;

pub mod add;

pub mod tree;

pub mod walk;

pub mod read;

pub mod traverse;

pub mod export;

pub mod car;

pub mod import;

pub mod store;

pub use add::{FileSummary, add_file};
pub use block::{BlockError, Blocks, MAX_BLOCK_BYTES, MAX_MADE_BLOCK_BYTES, MemoryBlocks};
pub use cid::Cid;
pub use export::{Links, export, export_with};
pub use profile::Profile;
pub use read::read_file;
pub use store::BlockStore;
pub use tree::{TreeLink, tree_root};
pub use walk::{DagError, Limits, Walk, missing};
