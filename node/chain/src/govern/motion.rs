//! What the state keeps of a motion.

use std::collections::BTreeMap;

use instar_attest::{Digest, PublicKey};
use serde::{Deserialize, Serialize};

use super::ops::Change;
use crate::ops::Ballot;
use crate::record::Deadline;
use crate::upgrade::Member;

/// Where a motion stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MotionPhase {
    /// Validators vote.
    Voting,
    /// It has passed, and waits for its height.
    Passed,
    /// It has taken effect.
    Done,
    /// It was voted down, or its time was over.
    Refused,
    /// The operator who moved it took it back.
    Withdrawn,
    /// It had passed, and at its height a rule refused it.
    Void,
}

/// A vote on a motion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MotionBallot {
    /// The entry that says so.
    pub entry: Digest,
    /// The block that merged it.
    pub height: u64,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Yes or no.
    pub vote: Ballot,
}

/// A motion. Who decides was fixed when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Motion {
    /// What it changes.
    pub change: Change,
    /// When voting is over.
    pub deadline: Deadline,
    /// How many blocks after it has passed it takes effect.
    pub delay: u64,
    /// Why it came to nothing, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The height at whose start it takes effect, once it has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<u64>,
    /// The id of the entry that made it.
    pub id: Digest,
    /// The operator who made it.
    pub operator: String,
    /// The height at which it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_at: Option<u64>,
    /// Where it stands.
    pub phase: MotionPhase,
    /// The height at which it was made.
    pub proposed_at: u64,
    /// The account that made it.
    pub proposed_by: PublicKey,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rule by which it came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Who decides, with their powers, sorted by consensus key.
    pub validators: Vec<Member>,
    /// The votes, by validator's name.
    pub votes: BTreeMap<String, MotionBallot>,
}

impl Motion {
    /// Whether nothing more will happen to it.
    pub fn is_closed(&self) -> bool {
        !matches!(self.phase, MotionPhase::Voting | MotionPhase::Passed)
    }

    /// The power of all who decide.
    pub fn total_power(&self) -> u64 {
        self.validators.iter().map(|v| v.power).sum()
    }

    /// The power of those who voted so.
    pub fn power_of(&self, ballot: Ballot) -> u64 {
        let said = |v: &&Member| self.votes.get(&v.name).is_some_and(|b| b.vote == ballot);
        self.validators.iter().filter(said).map(|v| v.power).sum()
    }
}
