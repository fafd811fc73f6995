//! One attestation against what the ledger expects of it: the check behind a `build.reveal`.

use crate::bundle::{Bundle, BundleError};
use crate::digest::{ChainId, Digest};
use crate::dsse::EnvelopeError;
use crate::key::{PublicKey, Purpose};
use crate::names::{ProgramName, Recipe, Slot, Target};
use crate::release::Source;
use crate::reveal::{FileReveal, SbomReveal};
use crate::statement::{Statement, StatementError, Subject, subjects};

/// A key that is registered, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The key.
    pub key: PublicKey,
    /// Its one purpose.
    pub purpose: Purpose,
}

/// What an attestation has to say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The registered builder key of whoever reveals.
    pub builder: &'a PublicKey,
    /// The chain.
    pub chain: &'a ChainId,
    /// The build round.
    pub round: &'a Digest,
    /// What the release replaces.
    pub slot: &'a Slot,
    /// The release number.
    pub number: u64,
    /// The program's name.
    pub name: &'a ProgramName,
    /// What it was built from.
    pub source: &'a Source,
    /// The targets that are revealed.
    pub targets: &'a [Target],
    /// The revealed files of all these targets.
    pub files: &'a [FileReveal],
    /// The revealed SBOM.
    pub sbom: &'a SbomReveal,
    /// The recipes that the policy allows.
    pub recipes: &'a [Recipe],
    /// Keys that are registered, so that one of another purpose is named as such.
    pub registered: &'a [Registered],
}

/// Why an attestation is refused. [`Refusal::rule`] is the short name that stands in receipts.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Signed by a key whose purpose is another one.
    #[error("the attestation is signed by {key}, which is registered as a {purpose} key")]
    WrongKeyPurpose {
        /// The key.
        key: PublicKey,
        /// What it is registered for.
        purpose: Purpose,
    },
    /// Signed by somebody else.
    #[error("the attestation is signed by key {got}, expected was builder key {expected}")]
    OtherKey {
        /// The key id in the bundle.
        got: String,
        /// The key id that was expected.
        expected: String,
    },
    /// The signature does not verify.
    #[error("{0}")]
    Signature(#[source] EnvelopeError),
    /// The payload is of another type.
    #[error("{0}")]
    PayloadType(#[source] EnvelopeError),
    /// Not the bundle, envelope or statement that it should be.
    #[error("{0}")]
    Malformed(#[source] BundleError),
    /// The statement names another builder than the one that signed.
    #[error("the statement names builder {got}, it is signed by {expected}")]
    BuilderId {
        /// The builder in the statement.
        got: PublicKey,
        /// The builder that signed.
        expected: PublicKey,
    },
    /// The statement is about another chain.
    #[error("the statement is for chain {got}, this is chain {expected}")]
    Chain {
        /// The chain in the statement.
        got: ChainId,
        /// This chain.
        expected: ChainId,
    },
    /// The statement is about another round.
    #[error("the statement is for round {got}, not for round {expected}")]
    Round {
        /// The round in the statement.
        got: Digest,
        /// The round that was expected.
        expected: Digest,
    },
    /// The statement is about another release.
    #[error("the statement is for {got}, the round is for {expected}")]
    Release {
        /// Slot, number, name and targets in the statement.
        got: String,
        /// The same of the round.
        expected: String,
    },
    /// Built from another source.
    #[error("built from commit {got}, the round is for commit {expected}")]
    Source {
        /// The commit (and tree) in the statement.
        got: String,
        /// The same of the round.
        expected: String,
    },
    /// Built by a recipe that the policy does not allow.
    #[error("built by recipe {0}, which the policy does not allow")]
    Recipe(Recipe),
    /// The SBOM is not among the subjects as it was revealed.
    #[error("the SBOM {0} is not among the subjects with the revealed digest")]
    Sbom(Digest),
    /// The subjects are not the revealed files.
    #[error("the subjects are not the revealed files: {0}")]
    Subjects(String),
}

impl Refusal {
    /// The rule's short name.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::WrongKeyPurpose { .. } => "wrong-key-purpose",
            Self::OtherKey { .. } => "attestation-other-key",
            Self::Signature(_) => "attestation-signature",
            Self::PayloadType(_) => "attestation-payload-type",
            Self::Malformed(_) => "attestation-malformed",
            Self::BuilderId { .. } => "attestation-builder-id",
            Self::Chain { .. } => "attestation-chain",
            Self::Round { .. } => "attestation-round",
            Self::Release { .. } => "attestation-release",
            Self::Source { .. } => "attestation-source",
            Self::Recipe(_) => "recipe-not-allowed",
            Self::Sbom(_) => "sbom-not-attested",
            Self::Subjects(_) => "attestation-subjects",
        }
    }
}

/// Checks one bundle, as bytes, against what is expected. Everything in it is either compared or refused.
pub fn check_attestation(bundle: &[u8], expected: &Expected<'_>) -> Result<Statement, Refusal> {
    let bundle = Bundle::parse(bundle).map_err(Refusal::Malformed)?;
    let statement = verify_signature(&bundle, expected.builder, expected.registered)?;
    check_statement(&statement, expected)?;
    Ok(statement)
}

/// Checks the signature, and says so when it is that of a key with another purpose.
pub(crate) fn verify_signature(
    bundle: &Bundle,
    builder: &PublicKey,
    registered: &[Registered],
) -> Result<Statement, Refusal> {
    bundle.verify(builder).map_err(|error| match error {
        BundleError::Envelope(error @ EnvelopeError::PayloadType { .. }) => {
            Refusal::PayloadType(error)
        }
        BundleError::Envelope(
            error @ (EnvelopeError::KeyId { .. } | EnvelopeError::Signature(_)),
        ) => {
            // The hint may be a lie, so the signature itself decides whose it is.
            let signer = registered
                .iter()
                .filter(|r| r.purpose != Purpose::Builder)
                .find(|r| {
                    r.key.key_id() == bundle.key_id()
                        || bundle.envelope.verify_bytes(&r.key).is_ok()
                });
            match (signer, error) {
                (Some(signer), _) => Refusal::WrongKeyPurpose {
                    key: signer.key,
                    purpose: signer.purpose,
                },
                (None, EnvelopeError::KeyId { got, expected }) => {
                    Refusal::OtherKey { got, expected }
                }
                (None, error) => Refusal::Signature(error),
            }
        }
        other => Refusal::Malformed(other),
    })
}

/// Compares everything that a statement says with what is expected.
pub(crate) fn check_statement(
    statement: &Statement,
    expected: &Expected<'_>,
) -> Result<(), Refusal> {
    check_head(statement, expected)?;
    let mut targets = expected.targets.to_vec();
    targets.sort();
    if statement.parameters().targets != targets {
        return Err(Refusal::Release {
            got: format!("targets {:?}", statement.parameters().targets),
            expected: format!("targets {targets:?}"),
        });
    }
    check_subjects(
        &statement.subject,
        &subjects(expected.files, expected.sbom),
        expected.sbom,
    )
}

/// Compares all but the targets and subjects.
pub(crate) fn check_head(statement: &Statement, expected: &Expected<'_>) -> Result<(), Refusal> {
    let malformed = |e: StatementError| Refusal::Malformed(BundleError::Statement(e));
    let said = statement.parameters();
    let builder = statement.builder().map_err(malformed)?;
    if builder != *expected.builder {
        return Err(Refusal::BuilderId {
            got: builder,
            expected: *expected.builder,
        });
    }
    if said.chain != *expected.chain {
        return Err(Refusal::Chain {
            got: said.chain,
            expected: *expected.chain,
        });
    }
    if said.round != *expected.round {
        return Err(Refusal::Round {
            got: said.round,
            expected: *expected.round,
        });
    }
    let release = |slot: &Slot, number: u64, name: &ProgramName| {
        format!("{slot} number {number}, program {name}")
    };
    let got = release(&said.slot, said.number, &said.name);
    let wanted = release(expected.slot, expected.number, expected.name);
    if got != wanted {
        return Err(Refusal::Release {
            got,
            expected: wanted,
        });
    }
    if said.source != *expected.source {
        let text = |s: &Source| format!("{} (tree {}, {:?})", s.commit, s.tree, s.format);
        return Err(Refusal::Source {
            got: text(&said.source),
            expected: text(expected.source),
        });
    }
    let recipe = statement.recipe().map_err(malformed)?;
    if !expected.recipes.contains(&recipe) {
        return Err(Refusal::Recipe(recipe));
    }
    Ok(())
}

/// Compares subjects, and names the first difference.
pub(crate) fn check_subjects(
    said: &[Subject],
    wanted: &[Subject],
    sbom: &SbomReveal,
) -> Result<(), Refusal> {
    if said == wanted {
        return Ok(());
    }
    if !said.contains(&subjects(&[], sbom)[0]) {
        return Err(Refusal::Sbom(sbom.sha256));
    }
    let differs = wanted
        .iter()
        .find(|w| !said.contains(w))
        .map(|w| {
            format!(
                "{} with sha256 {} is not among them",
                w.name, w.digest.sha256
            )
        })
        .or_else(|| {
            let extra = said.iter().find(|s| !wanted.contains(s))?;
            Some(format!("{} was not expected", extra.name))
        })
        .unwrap_or_else(|| "a file was revealed twice".into());
    Err(Refusal::Subjects(differs))
}
