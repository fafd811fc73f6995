//! Deltas between peers: who has one release and wants another asks for what leads from the one to the other.
//!
//! Asking ([`obtain()`]) costs a few hundred bytes and can only save: what comes is held to a size that is smaller than the
//! blocks would be, applied beside everything else, and kept only under the address that was wanted; else the blocks come.
//! Answering ([`Maker`]) costs a processor for seconds, so it is done in a process of its own at the lowest priority, one
//! at a time, with rests, and only between what is pinned.

mod cost;
mod kept;
mod maker;
mod obtain;

pub use cost::missing_bytes;
pub use maker::{Between, Maker};
pub use obtain::{Got, MIN_WORTH_BYTES, Old, Outcome, Wish, obtain};
