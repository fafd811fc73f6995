//! A release's files and bundles against a [`ReleasePolicy`]: the verdict, and why.
//!
//! Pure: digests of files, bytes of bundles and of reviews come in, an answer goes out. It never fails: whatever is
//! wrong stands in the answer. A bundle that is refused does not count and decides nothing; thresholds decide.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::policy::Check;
use crate::received::{Claim, Named};
use crate::release_policy::{Party, ReleasePolicy};
use crate::review::{Review, ssh_public_key};

mod bundle;

use bundle::read_bundle;

/// The predicate of in-toto for results of tests.
pub const TEST_RESULT_TYPE: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// What a test result must say to count.
pub const TEST_PASSED: &str = "PASSED";
/// The software bill of materials among the files.
pub const SBOM_NAME: &str = "sbom.cdx.json";
/// How many bundles are looked at.
pub const MAX_BUNDLES: usize = 256;
/// How many reviews are looked at.
pub const MAX_REVIEWS: usize = 256;
/// How many files a release may have here.
pub const MAX_FILES: usize = 4096;

/// Some bytes and where they come from.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// For people: a file's name.
    pub name: &'a str,
    /// The content.
    pub bytes: &'a [u8],
}

/// What is verified.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseInput<'a> {
    /// The files at hand: release paths and digests.
    pub files: &'a [Named],
    /// The bundles, in any order.
    pub bundles: &'a [Document<'a>],
    /// Armoured SSH signatures over the source commit.
    pub reviews: &'a [Document<'a>],
    /// The trusted root, for keyless bundles.
    pub trusted_root: Option<&'a [u8]>,
}

/// Who signed what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// The bundle or review.
    pub document: String,
    /// The party's name in the policy.
    pub name: String,
    /// Whose it is; for a maintainer nothing.
    pub operator: Option<String>,
    /// `build`, `test` or `review`.
    pub role: &'static str,
    /// By what they are known: a key id, or an identity.
    pub known_by: String,
    /// The source commit that is named.
    pub commit: Option<String>,
    /// Facts of the CI, as the signer states them; the policy does not depend on them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci: Option<serde_json::Value>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether every deciding rule holds.
    pub ok: bool,
    /// The source commit that the builders agree on.
    pub commit: Option<String>,
    /// Every rule that was looked at, in order.
    pub checks: Vec<Check>,
    /// Who signed what, of those that count.
    pub signers: Vec<Signer>,
}

impl Answer {
    /// The first deciding rule that does not hold.
    pub fn refused_by(&self) -> Option<&Check> {
        self.checks.iter().find(|c| c.decides && !c.ok)
    }

    fn note(&mut self, decides: bool, ok: bool, rule: &str, detail: String) -> bool {
        self.checks.push(Check {
            decides,
            detail,
            ok,
            rule: rule.to_owned(),
        });
        self.ok &= ok || !decides;
        ok
    }
}

/// A bundle that counts.
struct Counted<'p> {
    party: &'p Party,
    claim: Claim,
    commit: String,
}

/// Verifies a release.
pub fn verify_release(input: &ReleaseInput<'_>, policy: &ReleasePolicy) -> Answer {
    let mut answer = Answer {
        ok: true,
        commit: None,
        checks: Vec::new(),
        signers: Vec::new(),
    };
    let (n, k) = (policy.builders.of.len(), policy.builders.threshold);
    let held = policy.check();
    let words = held.as_ref().err().map(ToString::to_string);
    let words = words.unwrap_or_else(|| format!("{k} of {n} builders, by distinct operators"));
    if !answer.note(true, held.is_ok(), "policy-valid", words) || !bounds(input, &mut answer) {
        return answer;
    }
    let mut seen = BTreeSet::new();
    let (mut builds, mut tests) = (Vec::new(), Vec::new());
    for bundle in input.bundles {
        match read_bundle(bundle, input, policy) {
            Err((rule, detail)) => {
                answer.note(false, false, rule, format!("{}: {detail}", bundle.name));
            }
            Ok((role, counted, known_by)) => {
                if !seen.insert((role, counted.party.name.clone())) {
                    let detail =
                        format!("{}: {} is counted already", bundle.name, counted.party.name);
                    answer.note(false, false, "attestation-duplicate", detail);
                    continue;
                }
                let said = counted.claim.subjects.len();
                answer.note(
                    false,
                    true,
                    if role == "build" {
                        "attestation"
                    } else {
                        "test-attestation"
                    },
                    format!(
                        "{}: {} ({}) signed for {said} files of commit {:.12}",
                        bundle.name, counted.party.name, counted.party.operator, counted.commit
                    ),
                );
                answer.signers.push(Signer {
                    document: bundle.name.to_owned(),
                    name: counted.party.name.clone(),
                    operator: Some(counted.party.operator.clone()),
                    role,
                    known_by,
                    commit: Some(counted.commit.clone()).filter(|c| !c.is_empty()),
                    ci: counted
                        .claim
                        .predicate
                        .pointer("/buildDefinition/internalParameters/gitlab")
                        .cloned(),
                });
                if role == "build" {
                    builds.push(counted);
                } else {
                    tests.push(counted);
                }
            }
        }
    }
    let commit = agreed_commit(input.files, &builds);
    answer.commit = commit.clone();
    check_files(input.files, &builds, commit.as_deref(), policy, &mut answer);
    check_targets(input.files, policy, &mut answer);
    if policy.sbom {
        let there = input.files.iter().any(|f| f.name == SBOM_NAME);
        let detail = if there {
            "it is there, and counted with the files"
        } else {
            "there is none"
        };
        answer.note(true, there, "sbom", format!("{SBOM_NAME}: {detail}"));
    }
    check_reviews(input, commit.as_deref(), policy, &mut answer);
    check_tests(input.files, &tests, policy, &mut answer);
    answer
}

fn bounds(input: &ReleaseInput<'_>, answer: &mut Answer) -> bool {
    let names: BTreeSet<&str> = input.files.iter().map(|f| f.name.as_str()).collect();
    let (files, bundles, reviews) = (input.files.len(), input.bundles.len(), input.reviews.len());
    let within = (1..=MAX_FILES).contains(&files)
        && bundles <= MAX_BUNDLES
        && reviews <= MAX_REVIEWS
        && names.len() == files;
    let detail = format!("{files} files, {bundles} bundles, {reviews} reviews");
    answer.note(true, within, "bounds", detail)
}

fn confirms(counted: &Counted<'_>, file: &Named) -> bool {
    counted.claim.subjects.contains(file)
}

/// The commit that most operators name for the file with the fewest; the first in order of two alike.
fn agreed_commit(files: &[Named], builds: &[Counted<'_>]) -> Option<String> {
    let commits: BTreeSet<&String> = builds.iter().map(|b| &b.commit).collect();
    let support = |commit: &&&String| {
        let votes = files
            .iter()
            .map(|file| operators(file, builds, Some(commit)).len());
        (votes.clone().min().unwrap_or(0), votes.sum::<usize>())
    };
    let best = commits
        .iter()
        .map(|c| (support(&c), *c))
        .max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(a.1)));
    best.map(|(_, commit)| commit.clone())
}

fn operators<'a>(
    file: &Named,
    builds: &'a [Counted<'_>],
    commit: Option<&str>,
) -> BTreeSet<&'a str> {
    builds
        .iter()
        .filter(|b| commit.is_none_or(|c| c == b.commit) && confirms(b, file))
        .map(|b| b.party.operator.as_str())
        .collect()
}

fn check_files(
    files: &[Named],
    builds: &[Counted<'_>],
    commit: Option<&str>,
    policy: &ReleasePolicy,
    answer: &mut Answer,
) {
    let (n, k) = (policy.builders.of.len(), policy.builders.threshold);
    for other in builds.iter().filter(|b| commit != Some(b.commit.as_str())) {
        let detail = format!(
            "{} built commit {}, the others {}: not counted",
            other.party.name,
            other.commit,
            commit.unwrap_or("none")
        );
        answer.note(false, false, "source-commit", detail);
    }
    // One line a target, for its file with the fewest builders: a release has hundreds of files.
    let mut fewest: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for file in files {
        let target = file
            .name
            .split_once('/')
            .map_or(file.name.as_str(), |(t, _)| t);
        let votes = operators(file, builds, commit).len();
        let entry = fewest.entry(target).or_insert((votes, &file.name));
        if votes < entry.0 {
            *entry = (votes, &file.name);
        }
    }
    for (target, (got, worst)) in fewest {
        let enough = got >= k as usize;
        let rule = if enough {
            "builders-threshold"
        } else {
            "builders-below-threshold"
        };
        let detail =
            format!("{target}: {got} of {n} builders by distinct operators, {k} needed ({worst})");
        answer.note(true, enough, rule, detail);
    }
    // A file that was built and attested but left out of a target at hand makes another release of it.
    let have: BTreeSet<&str> = files.iter().map(|f| f.name.as_str()).collect();
    let here: BTreeSet<&str> = files
        .iter()
        .filter_map(|f| Some(f.name.split_once('/')?.0))
        .collect();
    let missing = builds
        .iter()
        .filter(|b| commit == Some(b.commit.as_str()))
        .flat_map(|b| &b.claim.subjects)
        .find(|s| {
            s.name
                .split_once('/')
                .is_some_and(|(t, _)| here.contains(t))
                && !have.contains(s.name.as_str())
        });
    let detail = missing.map_or("nothing attested is missing".into(), |s| {
        format!("{} is attested and not here", s.name)
    });
    answer.note(true, missing.is_none(), "files-complete", detail);
}

fn check_targets(files: &[Named], policy: &ReleasePolicy, answer: &mut Answer) {
    for target in &policy.targets {
        let there = files
            .iter()
            .any(|f| f.name.starts_with(&format!("{target}/")));
        let detail = format!("{target} {}", if there { "is there" } else { "is missing" });
        answer.note(true, there, "target", detail);
    }
}

fn check_reviews(
    input: &ReleaseInput<'_>,
    commit: Option<&str>,
    policy: &ReleasePolicy,
    answer: &mut Answer,
) {
    let Some(quorum) = &policy.reviews else {
        return;
    };
    let mut reviewers = BTreeSet::new();
    for document in input.reviews {
        let whose = Review::parse(document.bytes).and_then(|review| {
            review.verify(commit.unwrap_or_default())?;
            Ok(review.key)
        });
        let named = whose.map(|key| {
            let known = quorum
                .of
                .iter()
                .find(|m| ssh_public_key(&m.ssh) == Some(key));
            (key, known)
        });
        let (ok, detail) = match named {
            Err(error) => (false, error.to_string()),
            Ok((key, None)) => (
                false,
                format!("key {key} is no maintainer's of this policy"),
            ),
            Ok((key, Some(one))) if reviewers.insert(&one.name) => {
                answer.signers.push(Signer {
                    document: document.name.to_owned(),
                    name: one.name.clone(),
                    operator: None,
                    role: "review",
                    known_by: key.to_hex(),
                    commit: commit.map(str::to_owned),
                    ci: None,
                });
                (true, format!("{} reviewed the source commit", one.name))
            }
            Ok((_, Some(one))) => (false, format!("{} is counted already", one.name)),
        };
        answer.note(false, ok, "review", format!("{}: {detail}", document.name));
    }
    let (got, n, k) = (reviewers.len(), quorum.of.len(), quorum.threshold);
    let detail = format!("{got} of {n} maintainers reviewed the source commit, {k} needed");
    answer.note(true, got >= k as usize, "reviews-threshold", detail);
}

fn check_tests(
    files: &[Named],
    tests: &[Counted<'_>],
    policy: &ReleasePolicy,
    answer: &mut Answer,
) {
    let Some(quorum) = &policy.tests else {
        return;
    };
    // What is run is tested; the bill of materials is not run.
    let run = files.iter().filter(|f| f.name != SBOM_NAME);
    let fewest = run
        .map(|file| (operators(file, tests, None).len(), file.name.as_str()))
        .min();
    let (got, worst) = fewest.unwrap_or((0, "nothing to test"));
    let k = quorum.threshold;
    let detail = format!(
        "{got} of {} testers by distinct operators say that it passed, {k} needed ({worst})",
        quorum.of.len()
    );
    answer.note(true, got >= k as usize, "tests-threshold", detail);
}
