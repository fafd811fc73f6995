//! Release deltas: rebuild a new release from an old one, and believe it only by its content address.
//!
//! Executables change everywhere by small shifts: a function that grows moves all that comes after it, and every call,
//! jump and pointer across it says another number. So a delta first says which stretch of the new file comes from where in
//! the old one ([`mod@align`], [`plan`]); both sides then find the addresses in those bytes ([`fields`]), foretell by the
//! same stretches what became of each ([`map`], [`predict`]), and only what is wrong then is corrected ([`correct`]), by an
//! adaptive range coder ([`coder`]). What comes from nowhere is compressed ([`absolute`], [`literals`]). The format is
//! written down in `docs/formats/delta.md`.
//!
//! A delta is untrusted input with a trusted outcome: everything it claims is bounded before memory or disk suffers
//! ([`error`]), and what it makes is used only if the hash is the one that the caller wanted ([`apply()`]).

pub mod error;

pub mod source;

pub mod coder;

pub mod image;

pub mod fields;

pub mod plan;

pub mod map;

pub mod predict;

pub mod correct;

pub mod absolute;

pub mod literals;

pub mod header;

mod ahead;

pub mod apply;

pub mod elf;

pub mod align;

pub mod make;

pub mod release;

pub use apply::{Wanted, apply};
pub use error::DeltaError;
pub use make::make;
pub use source::Source;
