//! What the state keeps of a build round.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::policy::PolicyBuilder;
use instar_attest::release::{Activation, Cid, ProgramName, Slot, Source, Target};
use instar_attest::{Digest, PublicKey};
use serde::{Deserialize, Serialize};

use crate::machine::Author;
use crate::policy::SlotPolicy;
use crate::record::Deadline;

/// Where a round stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoundPhase {
    /// Builders commit.
    Commit,
    /// Nobody commits any more; those who did reveal.
    Reveal,
    /// Enough builders agree: there is a release.
    Agreed,
    /// There is no release; the round says why.
    Failed,
}

/// What a builder revealed, in short. The files themselves are in the entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revealed {
    /// SHA-256 of its bundle.
    pub bundle: Digest,
    /// The entry that reveals, and carries the bundle.
    pub entry: Digest,
    /// SHA-256 of the SBOM.
    pub sbom: Digest,
    /// The digest of each target.
    pub targets: BTreeMap<Target, Digest>,
}

/// A builder that the round asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuilderRecord {
    /// The account key that speaks for it.
    pub account: PublicKey,
    /// What it committed to; empty before.
    pub commitments: BTreeMap<Target, Digest>,
    /// The entry that commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Digest>,
    /// Its attestation key.
    pub key: PublicKey,
    /// The validator that it belongs to.
    pub name: String,
    /// Whose it is: what quorums count.
    pub operator: String,
    /// What it revealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revealed: Option<Revealed>,
}

/// A build round. Who counts and by which policy was fixed when it opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// How the release would go live.
    pub activation: Activation,
    /// The target digests that were agreed on.
    pub agreed: BTreeMap<Target, Digest>,
    /// The builders that are asked: the denominator.
    pub builders: Vec<BuilderRecord>,
    /// The height at which it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<u64>,
    /// When the phase is over, if it is not before.
    pub deadline: Deadline,
    /// Why it failed, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The id of the entry that opened it.
    pub id: Digest,
    /// The builders that built what was agreed on, by name.
    pub matched: Vec<String>,
    /// The program's name.
    pub name: ProgramName,
    /// The release number.
    pub number: u64,
    /// The height at which it was opened.
    pub opened_at: u64,
    /// The account that opened it.
    pub opened_by: PublicKey,
    /// Where it stands.
    pub phase: RoundPhase,
    /// The policy as it was.
    pub policy: SlotPolicy,
    /// The protocol number that the code speaks.
    pub protocol: u32,
    /// The release's root CID, computed by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Cid>,
    /// The rule by which it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What it would replace.
    pub slot: Slot,
    /// What is built.
    pub source: Source,
    /// The targets that are built.
    pub targets: Vec<Target>,
    /// The release that a failed round would have had, so that it can be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_be: Option<Cid>,
}

impl Round {
    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, RoundPhase::Agreed | RoundPhase::Failed)
    }

    /// How many distinct operators it asks.
    pub fn operators(&self) -> usize {
        let all: BTreeSet<&str> = self.builders.iter().map(|b| b.operator.as_str()).collect();
        all.len()
    }

    /// The builders that it asks, as the verifier of attestations names them.
    pub fn policy_builders(&self) -> Vec<PolicyBuilder> {
        let named = self.builders.iter().map(|b| PolicyBuilder {
            key: b.key,
            name: b.name.clone(),
            operator: b.operator.clone(),
        });
        named.collect()
    }

    /// The builder of a validator. Names are never used again, so it is the same one whichever keys it has by now.
    pub fn builder_of(&self, validator: &str) -> Option<&BuilderRecord> {
        self.builders.iter().find(|b| b.name == validator)
    }

    /// The builder that an author speaks for.
    pub(super) fn builder_by(&self, author: &Author) -> Option<&BuilderRecord> {
        self.builder_of(author.validator.as_ref()?)
    }

    pub(super) fn builder_by_mut(&mut self, author: &Author) -> Option<&mut BuilderRecord> {
        let name = author.validator.as_ref()?;
        self.builders.iter_mut().find(|b| b.name == *name)
    }

    /// Whether a validator's own reveal says something else than what was agreed on.
    pub fn contradicted_by(&self, validator: &str) -> bool {
        let Some(revealed) = self.builder_of(validator).and_then(|b| b.revealed.as_ref()) else {
            return false;
        };
        self.agreed
            .iter()
            .any(|(target, digest)| revealed.targets.get(target).is_some_and(|d| d != digest))
    }
}
