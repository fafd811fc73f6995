//! The node: the one place where adapters meet.
//!
//! It knows no rule of its own: rules live in `chain`, bytes in `ledger`, finality in `consensus`. Here they are run.

pub mod api;
pub mod core;
pub mod deltas;
pub mod gateway;
pub mod home;
pub mod join;
pub mod log;
pub mod rehearse;
pub mod run;
pub mod snapshots;
pub mod watchdog;

mod announce;
mod answers;
mod follow;
mod fresh;
mod gossip;
mod host;
mod index;
mod metrics;
mod node;
mod prune;
mod supervised;
mod trim;
mod upgrade;
