//! Dapps: the ABI for merges and questions, images from content addresses, budgets.
//!
//! A dapp is a program in a sealed container. For each block it is asked, in lines of JSON, to test and apply the
//! entries of its topic; what it may use is counted by this side, so that the same call comes to the same end on every
//! node. Time is not counted: a call that takes far too long, or is ended by the machine, makes this node *abstain*.
//!
//! The conversation is specified in `docs/formats/dapps.md`.
//!
//! Invariant: this crate knows no rule of the state machine and no network; it sees a state and a block store.

pub mod embedded;

#[doc(hidden)]
pub mod fuzzing;

mod budget;
mod containers;
mod duplex;
mod image;
mod manifest;
mod runtime;
mod session;
mod wire;

pub use budget::Budget;
pub use image::{Image, ImageError};
pub use manifest::{ABI, Manifest, ManifestError};
pub use runtime::{Question, Runtime};
