//! The verification policy: is a release attested by enough independent builders?
//!
//! The denominator is fixed: it is the number of builders that the policy names, whoever answers. Operators are
//! counted, not keys or bundles, and each counts once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::check::{self, Expected, Refusal, Registered};
use crate::digest::{ChainId, Digest};
use crate::json::{self, JsonError};
use crate::key::{PublicKey, Purpose};
use crate::names::{Recipe, Target};
use crate::release::{Release, Source};
use crate::statement::{Statement, subjects};

/// The largest policy document.
pub const MAX_POLICY_BYTES: usize = 256 << 10;
/// How many bundles are looked at; builders send one each.
pub const MAX_BUNDLES: usize = 256;

/// The only format there is so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PolicyFormat {
    /// Version 1.
    #[default]
    #[serde(rename = "instar-policy-v1")]
    V1,
}

/// A builder that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyBuilder {
    /// Its attestation key.
    pub key: PublicKey,
    /// What people call it.
    pub name: String,
    /// Whose it is.
    pub operator: String,
}

/// A key that is registered for something else than attestations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherKey {
    /// The key.
    pub key: PublicKey,
    /// Its purpose.
    pub purpose: Purpose,
}

/// What a release must satisfy. The ledger's build round fixes all of it when it opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// All builders that count: the denominator.
    pub builders: Vec<PolicyBuilder>,
    /// The chain.
    pub chain: ChainId,
    /// The format of this document.
    pub format: PolicyFormat,
    /// Keys that must not sign attestations, so that their misuse is named.
    pub other_keys: Vec<OtherKey>,
    /// The recipes that are allowed.
    pub recipes: Vec<Recipe>,
    /// The build round.
    pub round: Digest,
    /// The source that must have been built.
    pub source: Source,
    /// The targets that a release must have; it may have more.
    pub targets: Vec<Target>,
    /// How many distinct operators must have built each target to the same bytes.
    pub threshold: u32,
}

/// What is verified.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The bytes of release.json.
    pub release: &'a [u8],
    /// The bundles, in any order.
    pub bundles: &'a [Vec<u8>],
}

/// One rule and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether the verdict depends on it. A refused attestation only doesn't count; the threshold decides.
    pub decides: bool,
    /// One sentence for people.
    pub detail: String,
    /// Whether it holds.
    pub ok: bool,
    /// The rule's short name.
    pub rule: String,
}

/// The answer: every rule that was looked at, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The rules.
    pub checks: Vec<Check>,
    /// Whether every deciding rule holds.
    pub ok: bool,
}

impl Verdict {
    /// The first deciding rule that does not hold.
    pub fn refused_by(&self) -> Option<&Check> {
        self.checks.iter().find(|c| c.decides && !c.ok)
    }
}

impl Policy {
    /// Reads a policy, strictly: canonical JSON, no unknown field, and rules that can be met.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let policy: Self = json::from_slice(bytes, MAX_POLICY_BYTES)?;
        policy.check()?;
        Ok(policy)
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PolicyError> {
        self.check()?;
        Ok(json::to_vec(self)?)
    }

    /// How many distinct operators there are.
    pub fn operators(&self) -> usize {
        let distinct: BTreeSet<&str> = self.builders.iter().map(|b| b.operator.as_str()).collect();
        distinct.len()
    }

    fn check(&self) -> Result<(), PolicyError> {
        let operators = self.operators();
        if self.threshold == 0 || self.threshold as usize > operators {
            return Err(PolicyError::Threshold {
                threshold: self.threshold,
                operators,
            });
        }
        if self.targets.is_empty() {
            return Err(PolicyError::NoTargets);
        }
        self.source
            .check()
            .map_err(|e| PolicyError::Source(e.to_string()))?;
        let mut names = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for builder in &self.builders {
            if !names.insert(&builder.name) {
                return Err(PolicyError::Twice(builder.name.clone()));
            }
            if !keys.insert(builder.key) {
                return Err(PolicyError::Twice(builder.key.to_hex()));
            }
        }
        for other in &self.other_keys {
            if other.purpose == Purpose::Builder || keys.contains(&other.key) {
                return Err(PolicyError::Purpose(other.key));
            }
        }
        Ok(())
    }
}

/// Why a policy is refused, before anything is verified by it.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not canonical JSON of this shape.
    #[error("the policy: {0}")]
    Json(#[from] JsonError),
    /// A threshold that is always met, or never.
    #[error("a threshold of {threshold} can't be used with {operators} distinct operators")]
    Threshold {
        /// The threshold.
        threshold: u32,
        /// The number of distinct operators.
        operators: usize,
    },
    /// No target is required.
    #[error("the policy names no targets")]
    NoTargets,
    /// A malformed source.
    #[error("the policy's source: {0}")]
    Source(String),
    /// A builder's name or key given twice.
    #[error("the builder {0} stands in the policy twice")]
    Twice(String),
    /// One key with two purposes.
    #[error("the key {0} is given as a builder's and for another purpose")]
    Purpose(PublicKey),
}

/// Verifies a release and its attestations. It never fails: whatever is wrong stands in the verdict.
pub fn verify(input: &Input<'_>, policy: &Policy) -> Verdict {
    let mut checks = Vec::new();
    let ok = run(input, policy, &mut checks);
    Verdict { checks, ok }
}

fn run(input: &Input<'_>, policy: &Policy, checks: &mut Vec<Check>) -> bool {
    let mut decide = |rule: &str, ok: bool, detail: String| {
        checks.push(Check {
            decides: true,
            detail,
            ok,
            rule: rule.to_owned(),
        });
        ok
    };
    // A policy may have been put together in memory, so its own rules are checked here too.
    if let Err(error) = policy.check() {
        return decide("policy-valid", false, error.to_string());
    }
    let (n, k) = (policy.builders.len(), policy.threshold);
    decide("policy-valid", true, format!("{k} of {n} builders"));
    let release = match Release::parse(input.release) {
        Ok(release) => release,
        Err(error) => return decide("release-valid", false, error.to_string()),
    };
    let digest = Digest::of(input.release);
    decide("release-valid", true, format!("sha256 {digest}"));
    let mut ok = decide(
        "release-chain",
        release.chain == policy.chain,
        format!("the release is for chain {}", release.chain),
    );
    ok &= decide(
        "release-source",
        release.source == policy.source,
        format!("the release is of commit {}", release.source.commit),
    );
    let have: BTreeSet<&Target> = release.targets().into_iter().collect();
    let missing: Vec<&Target> = policy
        .targets
        .iter()
        .filter(|t| !have.contains(t))
        .collect();
    ok &= decide(
        "release-targets",
        missing.is_empty(),
        match missing.as_slice() {
            [] => format!("all {} required targets are there", policy.targets.len()),
            some => format!("missing: {some:?}"),
        },
    );
    ok &= decide(
        "bundle-count",
        input.bundles.len() <= MAX_BUNDLES,
        format!("{} bundles, at most {MAX_BUNDLES}", input.bundles.len()),
    );
    if !ok {
        return false;
    }

    let mut votes: BTreeMap<&Target, BTreeSet<&str>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for bytes in input.bundles {
        let (ok, rule, detail) = match attested(bytes, &release, policy) {
            Err((rule, detail)) => (false, rule, detail),
            Ok((builder, _)) if !seen.insert(builder.key) => {
                let detail = format!(
                    "builder {}: another bundle was counted already",
                    builder.name
                );
                (false, "attestation-duplicate", detail)
            }
            Ok((builder, targets)) => {
                let detail = format!(
                    "builder {} ({}): {targets:?}",
                    builder.name, builder.operator
                );
                for target in targets {
                    votes.entry(target).or_default().insert(&builder.operator);
                }
                (true, "attestation", detail)
            }
        };
        checks.push(Check {
            decides: false,
            detail,
            ok,
            rule: rule.to_owned(),
        });
    }
    // Targets beyond the required ones are in a release only if they reached the same threshold.
    for target in have {
        let got = votes.get(target).map_or(0, BTreeSet::len);
        let enough = got >= k as usize;
        ok &= enough;
        checks.push(Check {
            decides: true,
            detail: format!("{target}: {got} of {n} builders by distinct operators, {k} needed"),
            ok: enough,
            rule: if enough {
                "builders-threshold".into()
            } else {
                "builders-below-threshold".into()
            },
        });
    }
    ok
}

/// Whose bundle this is, and for which of the release's targets it holds.
fn attested<'p, 'r>(
    bytes: &[u8],
    release: &'r Release,
    policy: &'p Policy,
) -> Result<(&'p PolicyBuilder, Vec<&'r Target>), (&'static str, String)> {
    let refuse = |r: Refusal| (r.rule(), r.to_string());
    let bundle = Bundle::parse(bytes).map_err(|e| refuse(Refusal::Malformed(e)))?;
    let others: Vec<Registered> = policy
        .other_keys
        .iter()
        .map(|o| Registered {
            key: o.key,
            purpose: o.purpose,
        })
        .collect();
    let Some(builder) = policy
        .builders
        .iter()
        .find(|b| b.key.key_id() == bundle.key_id())
    else {
        if let Some(other) = others.iter().find(|o| o.key.key_id() == bundle.key_id()) {
            return Err(refuse(Refusal::WrongKeyPurpose {
                key: other.key,
                purpose: other.purpose,
            }));
        }
        let detail = format!(
            "key {:.80} is not a builder of this policy",
            bundle.key_id()
        );
        return Err(("unknown-builder", detail));
    };
    let whose = |r: Refusal| (r.rule(), format!("builder {}: {r}", builder.name));
    let statement = check::verify_signature(&bundle, &builder.key, &others).map_err(whose)?;
    let targets = matching_targets(&statement, release, policy, builder).map_err(whose)?;
    Ok((builder, targets))
}

fn matching_targets<'r>(
    statement: &Statement,
    release: &'r Release,
    policy: &Policy,
    builder: &PolicyBuilder,
) -> Result<Vec<&'r Target>, Refusal> {
    let expected = Expected {
        builder: &builder.key,
        chain: &policy.chain,
        round: &policy.round,
        slot: &release.slot,
        number: release.number,
        name: &release.name,
        source: &policy.source,
        targets: &[],
        files: &[],
        sbom: &release.sbom,
        recipes: &policy.recipes,
        registered: &[],
    };
    check::check_head(statement, &expected)?;
    // A builder may have built targets that did not reach the threshold and so are not in the release. Such subjects
    // say nothing here, but all others must be the release's own.
    let said = &statement.parameters().targets;
    let mut matching = Vec::new();
    let mut files = Vec::new();
    for target in release.targets() {
        if said.contains(target) {
            files.extend(release.files_of(target));
            matching.push(target);
        }
    }
    let elsewhere = |name: &str| {
        said.iter()
            .filter(|t| !matching.contains(t))
            .any(|t| name.starts_with(&format!("{t}/")))
    };
    let here: Vec<_> = statement
        .subject
        .iter()
        .filter(|s| !elsewhere(&s.name))
        .cloned()
        .collect();
    check::check_subjects(&here, &subjects(&files, &release.sbom), &release.sbom)?;
    Ok(matching)
}
