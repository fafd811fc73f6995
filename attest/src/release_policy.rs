//! A policy for anybody's release, on a ledger or not: who must have built it, from where, reviewed and tested by whom.
//!
//! A build round on the ledger has a policy of its own ([`crate::policy`]), which names chain and round. This one is
//! written by a person and checked against a folder and the bundles that came with it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::json::{self, JsonError};
use crate::names::{Recipe, Target};
use crate::review::ssh_public_key;
use crate::verify_key::VerifyKey;

/// The largest policy document.
pub const MAX_POLICY_BYTES: usize = 256 << 10;
/// How many builders, maintainers or testers a policy may name; each bundle is tried against all of them.
pub const MAX_PARTIES: usize = 64;

/// The only format there is so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Format {
    /// Version 1.
    #[default]
    #[serde(rename = "instar-release-policy-v1")]
    V1,
}

/// What a release must satisfy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasePolicy {
    /// The format of this document.
    pub format: Format,
    /// Who must have built it, each file to the same bytes.
    pub builders: Quorum<Party>,
    /// The recipes that are allowed: names of ours, or the whole `buildType` of somebody else's provenance.
    pub recipes: Vec<String>,
    /// Where the source must come from.
    #[serde(default)]
    pub source: SourceRule,
    /// Who must have reviewed the source commit; nobody, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reviews: Option<Quorum<Maintainer>>,
    /// Who must have tested what was built; nobody, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<Quorum<Party>>,
    /// Whether the software bill of materials must be there and attested; so it is unless this says `false`.
    #[serde(default = "yes")]
    pub sbom: bool,
    /// The targets that must be there; others may be.
    #[serde(default)]
    pub targets: Vec<Target>,
}

const fn yes() -> bool {
    true
}

/// `threshold` of those named, counted by operator where there are operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quorum<T> {
    /// All who count: the denominator, whoever answers.
    pub of: Vec<T>,
    /// How many of them it takes; never 0.
    pub threshold: u32,
}

/// Somebody whose bundles count: with a key, or with an identity that Fulcio certified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// The key, 64 hex digits or PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<VerifyKey>,
    /// The identity, in the place of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyless: Option<Identity>,
    /// What people call it.
    pub name: String,
    /// Whose it is; an operator counts once.
    pub operator: String,
}

/// What a certificate must say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Who vouched for the identity: `https://gitlab.com`.
    pub issuer: String,
    /// The project, as a URI without scheme tricks: `https://gitlab.com/chain/releases`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The certificate's subject, whole; where it is left out, `project` must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// A maintainer and the SSH key of the reviews.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintainer {
    /// What people call them.
    pub name: String,
    /// The line of an `authorized_keys` file: `ssh-ed25519 …`.
    pub ssh: String,
}

/// Where the source must come from; what is left out is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRule {
    /// The one commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The refs that are allowed, `refs/heads/main`; one that ends in `*` allows all that begin with the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<String>,
    /// The repository's URL, as the provenance writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
}

/// Why a policy is refused, before anything is verified by it.
#[derive(Debug, thiserror::Error)]
pub enum ReleasePolicyError {
    /// Not JSON of this shape; an unknown field is named.
    #[error("the policy: {0}")]
    Json(#[from] JsonError),
    /// A threshold that is always met, or never.
    #[error("{what}: a threshold of {threshold} can't be used with {have} who count")]
    Threshold {
        /// Which quorum.
        what: &'static str,
        /// The threshold.
        threshold: u32,
        /// How many count at most.
        have: usize,
    },
    /// Too many parties.
    #[error("{0}: more than {MAX_PARTIES} are named")]
    TooMany(&'static str),
    /// A name, key or identity given twice.
    #[error("{0:?} stands in the policy twice")]
    Twice(String),
    /// A party without, or with too much, to know it by.
    #[error("{name}: {why}")]
    Party {
        /// Which.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No recipe is allowed, so nothing could pass.
    #[error("the policy allows no recipe")]
    NoRecipes,
}

impl ReleasePolicy {
    /// Reads a policy: JSON in any layout, no unknown field, no key twice, and rules that can be met.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleasePolicyError> {
        let policy: Self = json::from_slice_of_others(bytes, MAX_POLICY_BYTES)?;
        policy.check()?;
        Ok(policy)
    }

    /// Checks what the shape does not hold.
    pub fn check(&self) -> Result<(), ReleasePolicyError> {
        check_parties("builders", &self.builders)?;
        if let Some(tests) = &self.tests {
            check_parties("tests", tests)?;
        }
        if let Some(reviews) = &self.reviews {
            let mut keys = BTreeSet::new();
            let mut names = BTreeSet::new();
            for one in &reviews.of {
                let Some(key) = ssh_public_key(&one.ssh) else {
                    let why = "`ssh` is no line with an ssh-ed25519 key";
                    return Err(party(&one.name, why));
                };
                if !keys.insert(key) || !names.insert(&one.name) {
                    return Err(ReleasePolicyError::Twice(one.name.clone()));
                }
            }
            check_threshold("reviews", reviews.threshold, keys.len())?;
        }
        if self.recipes.is_empty() {
            return Err(ReleasePolicyError::NoRecipes);
        }
        Ok(())
    }

    /// Whether a provenance's `buildType` is allowed.
    pub(crate) fn allows(&self, build_type: &str) -> bool {
        self.recipes.iter().any(|allowed| {
            allowed == build_type
                || Recipe::new(allowed.as_str()).is_ok_and(|recipe| recipe.uri() == build_type)
        })
    }
}

impl SourceRule {
    /// Whether a ref is allowed.
    pub(crate) fn allows_ref(&self, name: &str) -> bool {
        self.refs.is_empty()
            || self.refs.iter().any(|allowed| {
                allowed
                    .strip_suffix('*')
                    .map_or(allowed == name, |beginning| name.starts_with(beginning))
            })
    }
}

fn party(name: &str, why: &'static str) -> ReleasePolicyError {
    ReleasePolicyError::Party {
        name: name.chars().take(80).collect(),
        why,
    }
}

fn check_threshold(
    what: &'static str,
    threshold: u32,
    have: usize,
) -> Result<(), ReleasePolicyError> {
    if have > MAX_PARTIES {
        return Err(ReleasePolicyError::TooMany(what));
    }
    if threshold == 0 || threshold as usize > have {
        return Err(ReleasePolicyError::Threshold {
            what,
            threshold,
            have,
        });
    }
    Ok(())
}

fn check_parties(what: &'static str, quorum: &Quorum<Party>) -> Result<(), ReleasePolicyError> {
    let (mut names, mut known) = (BTreeSet::new(), BTreeSet::new());
    for one in &quorum.of {
        let by = match (&one.key, &one.keyless) {
            (Some(key), None) => key.key_id(),
            (
                None,
                Some(Identity {
                    subject: None,
                    project: None,
                    ..
                }),
            ) => {
                return Err(party(&one.name, "`keyless` needs a subject or a project"));
            }
            (None, Some(identity)) => format!("{identity:?}"),
            _ => return Err(party(&one.name, "needs either `key` or `keyless`")),
        };
        if !names.insert(&one.name) || !known.insert(by) {
            return Err(ReleasePolicyError::Twice(one.name.clone()));
        }
    }
    if quorum.of.len() > MAX_PARTIES {
        return Err(ReleasePolicyError::TooMany(what));
    }
    let operators: BTreeSet<&str> = quorum.of.iter().map(|b| b.operator.as_str()).collect();
    check_threshold(what, quorum.threshold, operators.len())
}
