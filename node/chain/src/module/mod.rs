//! The upgrade module's deciding half: what a validator's node does next, as a pure function of the ledger and of what
//! it knows locally.
//!
//! It keeps nothing. What was said already stands on the ledger or is pending in the own lane, so a restart can't make
//! a node act twice. The doing half fetches, verifies, replays, swaps and signs.

mod decide;
mod view;

use std::collections::BTreeMap;

use instar_attest::{Digest, PublicKey};

pub use decide::decide;
pub use view::{SlotView, UpgradeView};

use crate::ops::{Ballot, Health, Ready, Report, UpgradeOp, Vote};

/// Which validator this node speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// Its account key.
    pub account: PublicKey,
    /// Its name.
    pub name: String,
}

/// When a node votes yes without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoVote {
    /// Never: its operator votes.
    Off,
    /// Only where its own builder built the same bytes.
    #[default]
    OwnBuild,
    /// Also where the round did not ask its own builder: then the attestations of those asked are enough. It trusts
    /// the policy's builders, and says so in its reason.
    Attested,
}

/// How far a release is on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staging {
    /// It is fetched and verified just now.
    Running,
    /// All its bytes are on disk, and its attestations satisfy the policy.
    Verified,
    /// It is not what it should be.
    Failed(String),
}

/// How far a rehearsal is on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rehearsed {
    /// Blocks are replayed just now.
    Running,
    /// The state root after the last one.
    Root(Digest),
    /// It did not get to the last one.
    Failed(String),
}

/// What this node knows that the ledger does not. Times and disks are behind it.
#[derive(Debug, Clone, Default)]
pub struct LocalFacts {
    /// When it votes by itself.
    pub auto_vote: AutoVote,
    /// Whether the running program follows the chain: what it would report as healthy.
    pub healthy: bool,
    /// The operator holds this node back: it does not swap.
    pub hold: bool,
    /// The newest generation whose probation is over here.
    pub kept: Option<u64>,
    /// What it said under the topic `upgrade` that is not merged yet.
    pub pending: Vec<UpgradeOp>,
    /// Rehearsals, by proposal and R.
    pub rehearsals: BTreeMap<(Digest, u64), Rehearsed>,
    /// Releases of the node slot that the upgrader went back from, with the reason: they are not tried again.
    pub reverted: BTreeMap<String, String>,
    /// The root CID of the release that this program runs from, if it runs from one.
    pub running: Option<String>,
    /// Releases by root CID.
    pub staged: BTreeMap<String, Staging>,
    /// Whether an upgrader stands above this program. Without one it can't swap.
    pub supervised: bool,
    /// The newest generation that was handed to the upgrader and is not settled.
    pub swapping: Option<u64>,
}

/// What is to be done. Doing an action twice does no harm; not knowing of it any more is no harm either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Fetch a release, check every block, and verify its attestations against the policy of its round.
    Stage {
        /// The release's root CID.
        release: String,
        /// Its round; none for a release that genesis admitted.
        round: Option<Digest>,
        /// What it replaces.
        slot: String,
    },
    /// Sign a vote.
    Vote(Vote),
    /// Replay blocks `from + 1` to `from + blocks` on a fork of the state at `from`, with the release in its slot.
    Rehearse {
        /// N.
        blocks: u64,
        /// R.
        from: u64,
        /// The proposal.
        proposal: Digest,
        /// The release's root CID.
        release: String,
        /// What it replaces.
        slot: String,
    },
    /// Sign what the rehearsal came to.
    Ready(Ready),
    /// Hand a verified release to the upgrader.
    Swap {
        /// Counts up from rollout to rollout; an executor refuses an older one.
        generation: u64,
        /// The proposal; none when a node catches up with a rollout that is over.
        proposal: Option<Digest>,
        /// The release's root CID.
        release: String,
    },
    /// Sign how the new release runs.
    Report(Report),
    /// The rollout of the running release is complete: probation is over.
    Keep {
        /// The generation that is kept.
        generation: u64,
        /// The release's root CID.
        release: String,
    },
}

impl Action {
    /// The operation to be signed and appended to the own lane, if the action is one.
    pub fn to_op(&self) -> Option<UpgradeOp> {
        match self {
            Self::Vote(vote) => Some(UpgradeOp::Vote(vote.clone())),
            Self::Ready(ready) => Some(UpgradeOp::Ready(ready.clone())),
            Self::Report(report) => Some(UpgradeOp::Report(report.clone())),
            _ => None,
        }
    }
}

impl LocalFacts {
    fn said_vote(&self, id: &Digest) -> bool {
        self.pending
            .iter()
            .any(|op| matches!(op, UpgradeOp::Vote(v) if v.proposal == *id))
    }

    fn said_ready(&self, id: &Digest, from: u64) -> bool {
        self.pending
            .iter()
            .any(|op| matches!(op, UpgradeOp::Ready(r) if r.proposal == *id && r.height == from))
    }

    fn said_report(&self, id: &Digest, result: Health) -> bool {
        self.pending
            .iter()
            .any(|op| matches!(op, UpgradeOp::Report(r) if r.proposal == *id && r.result == result))
    }

    fn is_verified(&self, release: &str) -> bool {
        self.staged.get(release) == Some(&Staging::Verified)
    }
}

impl Action {
    fn yes(proposal: Digest, rebuilt: Option<Digest>, reason: &str) -> Self {
        Self::Vote(Vote {
            proposal,
            reason: Some(reason.to_owned()),
            rebuilt,
            vote: Ballot::Yes,
        })
    }
}
