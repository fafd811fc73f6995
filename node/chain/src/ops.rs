//! The bodies of native entries: what can be said under the topics `build` and `upgrade`. Those of `govern` are in
//! [`crate::govern::ops`].

use instar_attest::release::{
    Activation, Cid, FileReveal, Nonce, ProgramName, SbomReveal, Slot, Source, Target,
};
use instar_attest::{Digest, json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The topic of build rounds.
pub const BUILD: &str = "build";
/// The topic of upgrades.
pub const UPGRADE: &str = "upgrade";
/// The topic of motions and evidence.
pub const GOVERN: &str = "govern";
/// The topic of statements that stand in the history and change nothing.
pub const NOTE: &str = "note";
/// The longest reason that somebody may give, in bytes of its canonical JSON with quotes. With the largest validator set
/// a proposal's record, which holds three of each validator, still fits a value.
pub const MAX_REASON_BYTES: usize = 256;

/// What can be said under `build`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum BuildOp {
    /// Opens a build round; the entry's id becomes the round's.
    Open(Open),
    /// A builder commits to what it built.
    Commit(Commit),
    /// A builder shows what it built.
    Reveal(Reveal),
}

/// Opens a build round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// How the release would go live.
    pub activation: Activation,
    /// The program's name.
    pub name: ProgramName,
    /// The release number.
    pub number: u64,
    /// The protocol number that its code speaks.
    pub protocol: u32,
    /// What it would replace.
    pub slot: Slot,
    /// What is to be built.
    pub source: Source,
    /// For which targets; those of the policy are among them.
    pub targets: Vec<Target>,
}

/// What hides a target's digest until it is revealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetCommitment {
    /// `instar_attest::release::commitment`.
    pub digest: Digest,
    /// The target.
    pub target: Target,
}

/// A builder commits to what it built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// One for each target that it built.
    pub commitments: Vec<TargetCommitment>,
    /// The round.
    pub round: Digest,
}

/// What a builder built for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetReveal {
    /// Its files, sorted by path.
    pub files: Vec<FileReveal>,
    /// What hid the digest.
    pub nonce: Nonce,
    /// The target.
    pub target: Target,
}

/// A builder shows what it built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reveal {
    /// Its attestation: a Sigstore bundle, as text.
    pub bundle: String,
    /// One for each target that it committed to.
    pub reveals: Vec<TargetReveal>,
    /// The round.
    pub round: Digest,
    /// The software bill of materials.
    pub sbom: SbomReveal,
}

/// What can be said under `upgrade`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum UpgradeOp {
    /// Proposes what a round agreed on; the entry's id becomes the proposal's.
    Propose(Propose),
    /// A validator votes.
    Vote(Vote),
    /// A validator has rehearsed.
    Ready(Ready),
    /// A validator says how the new release runs.
    Report(Report),
    /// The proposer takes it back.
    Cancel(Cancel),
}

/// Proposes what a round agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Propose {
    /// The release's root CID.
    pub release: Cid,
    /// The round.
    pub round: Digest,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ballot {
    /// For it.
    Yes,
    /// Against it.
    No,
}

/// A validator votes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// The proposal.
    pub proposal: Digest,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The target digest that the validator's own rebuild came to, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<Digest>,
    /// Yes or no.
    pub vote: Ballot,
}

/// A validator has rehearsed, or says that it can't.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// R: the height from which blocks were replayed.
    pub height: u64,
    /// The proposal.
    pub proposal: Digest,
    /// Why there is no root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The state root after the last replayed block; none where staging or the rehearsal failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Digest>,
}

/// How the new release runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It runs and follows the chain.
    Healthy,
    /// It did not; the release before runs again.
    Reverted,
}

/// A validator says how the new release runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The proposal.
    pub proposal: Digest,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How it runs.
    pub result: Health,
    /// The root CID of the release that runs now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Cid>,
}

/// The proposer takes it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// The proposal.
    pub proposal: Digest,
}

impl BuildOp {
    /// Reads the body of an entry under the topic [`BUILD`].
    pub fn from_value(body: &Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(body.clone())
    }

    /// The body of an entry.
    pub fn to_value(&self) -> Value {
        to_value(self)
    }
}

impl UpgradeOp {
    /// Reads the body of an entry under the topic [`UPGRADE`].
    pub fn from_value(body: &Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(body.clone())
    }

    /// The body of an entry.
    pub fn to_value(&self) -> Value {
        to_value(self)
    }
}

/// Cuts a reason to what an operation may carry.
pub fn clip_reason(reason: &str) -> String {
    let mut text: String = reason.chars().take(MAX_REASON_BYTES).collect();
    while !is_reason(&text) {
        text.pop();
    }
    text
}

/// Whether a reason is short enough.
pub fn is_reason(reason: &str) -> bool {
    json::to_vec(reason).is_ok_and(|bytes| bytes.len() <= MAX_REASON_BYTES)
}

/// Whether the ledger's own rules own a topic, so that no dapp may.
pub fn is_native(topic: &str) -> bool {
    matches!(topic, BUILD | UPGRADE | GOVERN | NOTE)
}

pub(crate) fn to_value<T: Serialize>(op: &T) -> Value {
    let value = serde_json::to_value(op).expect("operations are plain structures with text keys");
    debug_assert!(json::to_vec(&value).is_ok());
    value
}
