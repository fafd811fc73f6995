//! What the state keeps of a proposal.

use std::collections::BTreeMap;

use instar_attest::release::{Activation, Cid, Slot};
use instar_attest::{Digest, PublicKey};
use serde::{Deserialize, Serialize};

use crate::ops::{Ballot, Health};
use crate::policy::SlotPolicy;
use crate::record::Deadline;

/// Where a proposal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Validators vote.
    Voting,
    /// It is accepted; validators rehearse.
    Rehearsing,
    /// Enough are ready; the height of its activation is set.
    Scheduled,
    /// Nodes swap, wave after wave.
    Rolling,
    /// It is what the slot holds, or has held.
    Activated,
    /// A rule refused it.
    Refused,
    /// The proposer took it back.
    Cancelled,
    /// The migration failed at the height of its activation.
    Void,
    /// Too many validators went back.
    Halted,
}

/// A validator, as it was when the proposal was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The account key that speaks for it.
    pub account: PublicKey,
    /// Its consensus key.
    pub key: PublicKey,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub operator: String,
    /// Its voting power.
    pub power: u64,
}

/// A vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoteRecord {
    /// The entry that says so.
    pub entry: Digest,
    /// The block that merged it.
    pub height: u64,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the validator's own rebuild came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<Digest>,
    /// Yes or no.
    pub vote: Ballot,
}

/// The blocks that are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearsal {
    /// N: how many blocks.
    pub blocks: u64,
    /// R: the height whose state is forked.
    pub from: u64,
}

impl Rehearsal {
    /// The height of the last replayed block.
    pub fn last(&self) -> u64 {
        self.from + self.blocks
    }
}

/// What a validator's rehearsal came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadyRecord {
    /// The entry that says so.
    pub entry: Digest,
    /// The block that merged it.
    pub height: u64,
    /// Why there is no root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The state root after the last replayed block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Digest>,
}

/// What a validator said of the release that it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportRecord {
    /// The entry that says so.
    pub entry: Digest,
    /// The block that merged it.
    pub height: u64,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Healthy or reverted.
    pub result: Health,
    /// The height of a later block with this validator's precommit in its certificate: words alone are no health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<u64>,
}

/// A rollout: which validators swap when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// When the present wave is given up.
    pub deadline: Deadline,
    /// The present wave, from 0.
    pub index: usize,
    /// The rollout rests until then after a revert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<Deadline>,
    /// What each validator reported, by name.
    pub reports: BTreeMap<String, ReportRecord>,
    /// Validators whose wave was given up before they were healthy, by name.
    pub silent: Vec<String>,
    /// The height at which the present wave began.
    pub since: u64,
    /// The names of each wave.
    pub waves: Vec<Vec<String>>,
}

/// A proposal. Who decides and by which policy was fixed when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The height at which it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<u64>,
    /// The height at which it went live, or the rollout began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<u64>,
    /// How it goes live.
    pub activation: Activation,
    /// The height of its activation, once it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_height: Option<u64>,
    /// The height at which it was live everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<u64>,
    /// When the phase is over, if it has an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Deadline>,
    /// Why it came to nothing, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The release that it replaced, once it is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The id of the entry that made it.
    pub id: Digest,
    /// The release number.
    pub number: u64,
    /// Where it stands.
    pub phase: Phase,
    /// The policy as it was when the round opened.
    pub policy: SlotPolicy,
    /// The height at which it was made.
    pub proposed_at: u64,
    /// The account that made it.
    pub proposed_by: PublicKey,
    /// What the rehearsals came to, by name.
    pub ready: BTreeMap<String, ReadyRecord>,
    /// What is rehearsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Rehearsal>,
    /// The release's root CID.
    pub release: Cid,
    /// How nodes swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// The build round that it comes from.
    pub round: Digest,
    /// The rule by which it came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What it replaces.
    pub slot: Slot,
    /// Who decides, sorted by consensus key.
    pub validators: Vec<Member>,
    /// The votes, by name.
    pub votes: BTreeMap<String, VoteRecord>,
}

impl Proposal {
    /// Whether nothing more will happen to it.
    pub fn is_closed(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Voting | Phase::Rehearsing | Phase::Scheduled | Phase::Rolling
        )
    }

    /// The sum of all powers.
    pub fn total_power(&self) -> u64 {
        self.validators.iter().map(|v| v.power).sum()
    }

    /// The power of those validators that `is` holds for.
    pub fn power_where(&self, is: impl Fn(&Member) -> bool) -> u64 {
        self.validators
            .iter()
            .filter(|v| is(v))
            .map(|v| v.power)
            .sum()
    }

    /// Whether `power` is more than two thirds of the total.
    pub fn is_quorum(&self, power: u64) -> bool {
        u128::from(power) * 3 > u128::from(self.total_power()) * 2
    }

    /// f: the most power that may be faulty while the rest is still a quorum.
    pub fn faulty_power(&self) -> u64 {
        self.total_power().saturating_sub(1) / 3
    }
}
