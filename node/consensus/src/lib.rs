//! The Malachite adapter: context, signatures, codecs, and the loop between the engine and the node.
//!
//! A value is a block's commit id; what is needed to test it travels beside it, in proposal parts. This room is the
//! *frozen kernel* of the chain: signed bytes, codecs, the write-ahead log and the locks stay as they are in
//! `docs/formats/consensus.md`, whatever release runs. It knows no rule of the state machine: whether a block is good
//! is the [`Host`]'s answer.

mod config;
mod event;
mod host;
mod work;

mod engine;
mod run;
mod standing;

mod app;
mod certificate;
mod log;
mod overheard;
mod parts;

mod codec;
mod context;
pub mod marks;
mod medium;
mod signing;

pub mod bare;

#[doc(hidden)]
pub mod fuzzing;

pub use config::{Config, Timeouts};
pub use event::Event;
pub use host::{Candidate, Host, MAX_PAYLOAD_BYTES, Next, Origin, Proposed, Start, Verdict};
pub use medium::Medium;
pub use run::{RunError, run};
pub use work::WorkSignal;

/// The engine's own counters, in the text format of OpenMetrics, without the line that ends it.
pub fn metrics() -> String {
    let mut out = String::new();
    malachite_metrics::export(&mut out);
    out.truncate(out.trim_end_matches("# EOF\n").len());
    out
}
