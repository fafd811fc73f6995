//! The state at one height in pieces, each of which is proven against the state root on its own.
//!
//! A chunk is a whole subtree of the Merkle tree: every key whose hash begins with certain bits, and the hashes beside
//! the way from there to the root. So a chunk that holds can't lack a key, and it needs no other chunk. Where subtrees
//! are cut is a function of the state alone: all nodes make the same bytes.
//!
//! [`make`] cuts a state up, [`check`] proves a chunk, [`Restore`] makes a state of proven chunks.

mod build;
mod chunk;
mod make;
mod prefix;
mod restore;

pub use chunk::{Chunk, ChunkError, MAX_CHUNK_BYTES, check};
pub use make::{CHUNK_BYTES, Emit, make};
pub use prefix::Prefix;
pub use restore::{Restore, RestoreError};
