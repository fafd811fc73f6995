//! Verify a whole chain from a clone, and the chain of custody of a release from a clone and an audit bundle.
//!
//! Nothing is trusted but the cryptography: not the clone, not the bundle, not the node that both came from. This room
//! knows no network and no node; it writes nothing but the bundle that it exports.

pub mod page;
pub mod report;

pub mod history;
pub mod log;
pub mod objects;
pub mod replay;
pub mod verify;

pub mod archive;
pub mod artifact;
pub mod bundle;
pub mod custody;

mod audit;
mod export;

pub use audit::{run, run_after, run_verified};
pub use export::{ExportError, FromBlocks, MAX_FILE_BYTES, Supplier, export, export_verified};
pub use report::{Report, Step};
pub use verify::{Verified, verify_chain};
