//! The state machine, pure: operators, devices, validators, policy, build rounds, proposals and tally, the dapp
//! registry.
//!
//! A block goes in as a value, changes to the state and receipts come out. This room reads no clock, draws no
//! randomness and does no I/O: times and heights stand in the block, the state is behind [`StateView`], dapps are
//! behind [`DappHost`]. It knows nothing of disks, networks or consensus.

pub mod keys;
pub mod record;
pub mod view;

pub mod block;
pub mod host;
pub mod lanes;
pub mod ops;
pub mod policy;

pub mod build;
pub mod dapps;
pub mod forks;
pub mod govern;
pub mod upgrade;

mod apply;
mod due;
mod gates;
mod genesis;
mod machine;

pub mod fake;
pub mod merge;
pub mod module;
pub mod query;
pub mod rehearsal;

pub use apply::{MAX_COUNT, apply_block, seed};
pub use block::{BlockError, BlockInput, BlockOutput};
pub use due::{WAVE_PULSE_MS, due};
pub use genesis::{GenesisError, fork_writes, genesis_writes};
pub use host::{
    DappCall, DappContext, DappEntry, DappFailure, DappHost, DappResult, Migration, Verdict,
};
pub use lanes::Quota;
pub use policy::{Policy, PolicyError, SlotPolicy};
pub use view::{KeySpace, MemoryState, Overlay, StateError, StateView, Writes};

#[cfg(test)]
mod tests;
