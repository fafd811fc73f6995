//! Supervise one program: stage, swap, probation, revert.
//!
//! The supervisor starts a program and keeps it running. Asked to, it swaps the program for other bytes that were
//! staged beforehand, watches whether they make progress, and goes back by itself when they don't. At every instant,
//! also in a power cut, the disk holds the old program or the new one and knows which.
//!
//! What it does is decided in [`machine`], which is pure: inputs and the time go in, steps come out. [`supervisor`]
//! carries the steps out. [`state`] is what is on disk, [`layout`] where; [`wire`] is the protocol between the
//! supervisor and the program, and [`client`] the program's side of it. `docs/formats/upgrader.md` describes both for
//! other implementations.
//!
//! This room knows neither ledgers nor networks: what a release is worth is decided elsewhere.

pub mod state;
pub mod timings;

pub mod machine;

pub mod wire;

pub mod history;
pub mod layout;

pub mod client;
pub mod supervisor;

mod child;
mod disk;
mod server;
mod signals;
mod verify;

pub use client::{Client, ClientError, Reporter};
pub use history::history;
pub use layout::Layout;
pub use signals::on_stop;
pub use state::{Release, State};
pub use supervisor::{Config, First, Running, UpgraderError, revert, run, start, status};
pub use timings::Timings;
pub use wire::{Status, Swap};
