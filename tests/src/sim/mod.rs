//! Deterministic simulation: four validators in one thread, a virtual clock, one seeded source of randomness.
//!
//! What runs is the real thing as far as it is pure: Malachite's core with its effects, the app loop, codecs, signer,
//! mark, write-ahead log and proposal log (`instar_consensus::bare`), the merge rules and the state machine
//! (`instar_chain`), the grammar and its checks (`instar_ledger`), the state tree (`instar_state`). What is simulated is
//! what surrounds it: the network, the clocks, the disks. The same seed gives the same run, event by event.

mod attack;
mod check;
mod disk;
mod host;
mod lanes;
mod node;
mod plan;
mod run;
mod store;
mod traffic;
mod wire;
mod world;

pub use check::{Invariant, Violation};
pub use run::{Failure, Summary, run};

/// The node whose lane a broken proposer leaves out.
const LEFT_OUT: usize = 1;

/// What is broken on purpose, to see that the checks see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Disks say that marks and the write-ahead log are synced, and they are not.
    LyingDisk,
    /// Whatever a proposer says is taken for true.
    MergeTestLeftOut,
    /// A block is told to be final before it is durable.
    FinalNotDurable,
    /// Proposers leave one device's lane out.
    LaneLeftOut,
    /// Nobody asks for the values of peers that are further.
    SyncLeftOut,
    /// Two of four validators lie, and vote for everything.
    TwoLiars,
}

impl Broken {
    /// Whether a liar would only stand in the way of seeing it.
    fn wants_honest(self) -> bool {
        !matches!(self, Self::MergeTestLeftOut | Self::TwoLiars)
    }
}

/// How a run is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// What is broken, if anything.
    pub broken: Option<Broken>,
    /// Whether everything that happens is written down.
    pub trace: bool,
}
