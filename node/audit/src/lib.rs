//! Verify a whole chain from a clone, and the chain of custody of a release from a clone and an audit bundle.
//!
//! Nothing is trusted but the cryptography: not the clone, not the bundle, not the node that both came from. This room
//! knows no network and no node; it writes nothing but the bundle that it exports.

pub mod page;
pub mod report;
pub mod wrong;

pub mod history;
pub mod log;
pub mod objects;

mod progress;
mod reader;
pub mod replay;
mod verdict;
pub mod verify;
pub mod walk;

pub mod archive;
pub mod artifact;
pub mod bundle;
pub mod custody;

pub mod proof;

mod audit;
mod export;

pub use audit::{run, run_after, run_verified};
pub use export::{ExportError, FromBlocks, MAX_FILE_BYTES, Supplier, export, export_verified};
pub use proof::{ProofFile, Shown, Start, Trust};
pub use report::{Report, Step};
pub use verdict::{Mother, Verdict};
pub use verify::{Settings, Trusted, Verified, verify, verify_chain};
pub use walk::Counts;
pub use wrong::Wrong;
