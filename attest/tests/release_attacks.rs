//! Attacks on releases off the ledger, each test named after its attack; and what honest ones look like.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use instar_attest::dsse::{Base64, Envelope, EnvelopeSignature, pae};
use instar_attest::provenance::{BuilderId, GitLabFacts, Provenance, sign, test_result};
use instar_attest::received::{MAX_RECEIVED_BYTES, Named, Received};
use instar_attest::release_check::{Answer, Document, ReleaseInput, verify_release};
use instar_attest::release_policy::{ReleasePolicy, ReleasePolicyError};
use instar_attest::review::review_message;
use instar_attest::statement::PAYLOAD_TYPE;
use instar_attest::{Digest, SecretKey, VerifyKey, json};
use p256::ecdsa::signature::Signer as _;
use serde_json::{Value, json};

const REPOSITORY: &str = "https://git.example.org/coin.git";
/// Made with `ssh-keygen -t ed25519` and `ssh-keygen -Y sign -n instar-review`, over the commit of `common::source`.
const MAINTAINER: &str = include_str!("vectors/review/maintainer.pub");
const REVIEW: &[u8] = include_bytes!("vectors/review/review.sig");
const REVIEW_FOR_GIT: &[u8] = include_bytes!("vectors/review/namespace-git.sig");
const REVIEW_OF_ANOTHER: &[u8] = include_bytes!("vectors/review/other-commit.sig");

fn provenance(i: u8) -> Provenance {
    Provenance {
        builder: BuilderId::Key(builder(i).public()),
        name: "coin".parse().unwrap(),
        recipe: "cargo-vendored-v1".parse().unwrap(),
        source: source(),
        repository: Some(REPOSITORY.into()),
        reference: Some("refs/heads/main".into()),
        targets: vec![TARGET.parse().unwrap()],
        lock: Digest::of(b"Cargo.lock"),
        toolchain: Digest::of(b"toolchain"),
        vendor: Digest::of(b"vendor"),
        equal_builds: 2,
        gitlab: None,
    }
}

fn statement_of(i: u8) -> Vec<u8> {
    provenance(i).statement(&files(), &sbom()).unwrap()
}

fn built(i: u8) -> Vec<u8> {
    sign(&builder(i), statement_of(i)).unwrap()
}

/// A statement changed as JSON and signed again, so that nothing but the change is wrong.
fn changed(i: u8, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(&statement_of(i)).unwrap();
    change(&mut value);
    sign(&builder(i), serde_json::to_vec(&value).unwrap()).unwrap()
}

fn have() -> Vec<Named> {
    let named = |name: String, sha256| Named { name, sha256 };
    let mut all: Vec<Named> = files()
        .iter()
        .map(|f| named(f.path.to_string(), f.sha256))
        .collect();
    all.push(named("sbom.cdx.json".into(), sbom().sha256));
    all
}

fn policy_with(change: impl FnOnce(&mut Value)) -> Result<ReleasePolicy, ReleasePolicyError> {
    let party = |i: u8| json!({"name": format!("builder-{i}"), "operator": format!("operator-{i}"), "key": builder(i).public()});
    let mut value = json!({
        "format": "instar-release-policy-v1",
        "builders": {"threshold": 2, "of": [party(0), party(1), party(2)]},
        "recipes": ["cargo-vendored-v1"],
        "source": {"repository": REPOSITORY, "refs": ["refs/heads/main", "refs/tags/*"]},
        "targets": [TARGET],
    });
    change(&mut value);
    ReleasePolicy::parse(value.to_string().as_bytes())
}

fn policy() -> ReleasePolicy {
    policy_with(|_| {}).unwrap()
}

fn answer_for(
    bundles: &[Vec<u8>],
    reviews: &[&[u8]],
    files: &[Named],
    policy: &ReleasePolicy,
) -> Answer {
    let document = |bytes| Document {
        name: "a file",
        bytes,
    };
    let bundles: Vec<Document> = bundles.iter().map(|b| document(b.as_slice())).collect();
    let reviews: Vec<Document> = reviews.iter().map(|r| document(r)).collect();
    let input = ReleaseInput {
        files,
        bundles: &bundles,
        reviews: &reviews,
        trusted_root: None,
    };
    verify_release(&input, policy)
}

fn answer(bundles: &[Vec<u8>]) -> Answer {
    answer_for(bundles, &[], &have(), &policy())
}

/// One good bundle is not enough; with the bad one refused for `rule`, the release is refused.
fn refused(bad: Vec<u8>, rule: &str) -> Answer {
    let answer = answer(&[built(0), bad]);
    let why = answer.checks.iter().find(|c| !c.ok && !c.decides);
    let why = why.unwrap_or_else(|| panic!("nothing was refused: {answer:#?}"));
    assert_eq!(why.rule, rule, "{}", why.detail);
    assert!(!answer.ok);
    assert_eq!(
        answer.refused_by().unwrap().rule,
        "builders-below-threshold"
    );
    answer
}

#[test]
fn an_honest_release_passes_and_says_why() {
    let answer = answer(&[built(0), built(1)]);
    assert!(answer.ok, "{answer:#?}");
    assert_eq!(answer.commit, Some(source().commit));
    let names: Vec<&str> = answer.signers.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["builder-0", "builder-1"]);
    assert!(
        answer
            .checks
            .iter()
            .any(|c| c.detail.contains("2 of 3 builders"))
    );
    // What a build round's reveal carries is a provenance too; it names no repository, so a policy must not ask for one.
    let on_ledger = [bundle(0), bundle(1)];
    let policy = policy_with(|p| p["source"] = json!({"commit": source().commit})).unwrap();
    assert!(answer_for(&on_ledger, &[], &have(), &policy).ok);
}

#[test]
fn changed_byte() {
    let good = built(1);
    let original = Received::parse(&good).unwrap();
    for at in (0..good.len()).step_by(if cfg!(debug_assertions) { 41 } else { 1 }) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let answer = answer(&[built(0), bad.clone()]);
        if !answer.ok {
            continue;
        }
        // Hints and what we don't read may be anything; what was signed and the signature may not.
        let read = Received::parse(&bad).unwrap();
        assert_eq!(
            (read.payload, read.signature),
            (original.payload.clone(), original.signature.clone()),
            "byte {at}"
        );
    }
}

#[test]
fn changed_subject() {
    let bad = changed(1, |s| {
        s["subject"][0]["digest"]["sha256"] = json!("0".repeat(64))
    });
    let answer = refused(bad, "subject-differs");
    let said = answer
        .checks
        .iter()
        .find(|c| c.rule == "subject-differs")
        .unwrap();
    assert!(
        said.detail.contains("sbom.cdx.json has sha256"),
        "{}",
        said.detail
    );
}

#[test]
fn changed_file() {
    let mut files = have();
    files[1].sha256 = Digest::of(b"evil");
    let answer = answer_for(&[built(0), built(1)], &[], &files, &policy());
    assert!(!answer.ok);
    assert_eq!(
        answer
            .checks
            .iter()
            .filter(|c| c.rule == "subject-differs")
            .count(),
        2
    );
}

#[test]
fn an_added_file_and_a_missing_one() {
    let mut more = have();
    more.push(Named {
        name: format!("{TARGET}/rootfs/bin/evil"),
        sha256: Digest::of(b"evil"),
    });
    let added = answer_for(&[built(0), built(1)], &[], &more, &policy());
    let why = added.refused_by().unwrap();
    assert!(
        why.detail.contains("0 of 3") && why.detail.contains("evil"),
        "{}",
        why.detail
    );
    let missing = answer_for(&[built(0), built(1)], &[], &have()[1..], &policy());
    assert_eq!(missing.refused_by().unwrap().rule, "files-complete");
    let no_sbom = answer_for(&[built(0), built(1)], &[], &have()[..2], &policy());
    assert_eq!(no_sbom.refused_by().unwrap().rule, "sbom");
}

#[test]
fn swapped_payload_type() {
    let text = String::from_utf8(built(1)).unwrap();
    refused(
        text.replace("vnd.in-toto+json", "vnd.in-toto+yaml")
            .into_bytes(),
        "attestation-payload-type",
    );
    let mut value: Value = serde_json::from_slice(&built(1)).unwrap();
    let envelope = Envelope::sign(&builder(1), "text/plain", statement_of(1));
    value["dsseEnvelope"] = serde_json::to_value(&envelope).unwrap();
    refused(value.to_string().into_bytes(), "attestation-payload-type");
}

#[test]
fn other_key() {
    refused(
        sign(&account(0), statement_of(1)).unwrap(),
        "unknown-signer",
    );
    // With the hint of a builder.
    let text = String::from_utf8(sign(&account(0), statement_of(1)).unwrap()).unwrap();
    let lie = text.replace(&account(0).public().key_id(), &builder(1).public().key_id());
    refused(lie.into_bytes(), "attestation-signature");
}

#[test]
fn a_duplicate_signature_counted_twice() {
    refused(built(0), "attestation-duplicate");
    // Another statement of the same builder is still the same builder.
    refused(
        changed(0, |s| s["predicate"]["runDetails"]["x"] = json!(1)),
        "attestation-duplicate",
    );
    let mut value: Value = serde_json::from_slice(&built(1)).unwrap();
    let again = value["dsseEnvelope"]["signatures"][0].clone();
    value["dsseEnvelope"]["signatures"]
        .as_array_mut()
        .unwrap()
        .push(again);
    refused(value.to_string().into_bytes(), "attestation-malformed");
    // Two keys of one operator are one operator.
    let one = policy_with(|p| {
        p["builders"]["of"][1]["operator"] = json!("operator-0");
    })
    .unwrap();
    let answer = answer_for(&[built(0), built(1)], &[], &have(), &one);
    assert!(answer.refused_by().unwrap().detail.contains("1 of 3"));
}

#[test]
fn truncated_and_oversized_files() {
    let good = built(1);
    refused(good[..good.len() - 1].to_vec(), "attestation-malformed");
    refused(Vec::new(), "attestation-malformed");
    refused(vec![b'['; 100_000], "attestation-malformed");
    let answer = refused(vec![b' '; MAX_RECEIVED_BYTES + 1], "attestation-malformed");
    assert!(answer.checks.iter().any(|c| c.detail.contains("at most")));
    let mut long: Value = serde_json::from_slice(&good).unwrap();
    long["filler"] = json!("x".repeat(MAX_RECEIVED_BYTES));
    refused(long.to_string().into_bytes(), "attestation-malformed");
}

#[test]
fn a_statement_with_a_digest_that_is_not_hex() {
    for digest in [
        "zz".repeat(32),
        "AB".repeat(32),
        "ab".repeat(31),
        String::new(),
    ] {
        refused(
            changed(1, |s| s["subject"][0]["digest"]["sha256"] = json!(digest)),
            "attestation-malformed",
        );
    }
    let without = changed(1, |s| s["subject"][0]["digest"] = json!({"sha512": "ab"}));
    refused(without, "attestation-malformed");
}

#[test]
fn two_files_of_the_same_name() {
    let twice = changed(1, |s| {
        let first = s["subject"][0].clone();
        s["subject"].as_array_mut().unwrap().push(first);
    });
    refused(twice, "attestation-malformed");
    let mut files = have();
    files.push(files[0].clone());
    let answer = answer_for(&[built(0), built(1)], &[], &files, &policy());
    assert_eq!(answer.refused_by().unwrap().rule, "bounds");
}

#[test]
fn a_key_that_stands_twice_in_an_object() {
    let text = String::from_utf8(statement_of(1)).unwrap();
    let twice = text.replacen("\"predicateType\"", "\"subject\":[],\"predicateType\"", 1);
    refused(
        sign(&builder(1), twice.into_bytes()).unwrap(),
        "attestation-malformed",
    );
}

#[test]
fn a_policy_with_threshold_0() {
    for threshold in [0, 4] {
        let error = policy_with(|p| p["builders"]["threshold"] = json!(threshold)).unwrap_err();
        assert!(
            matches!(error, ReleasePolicyError::Threshold { .. }),
            "{error}"
        );
        let mut in_memory = policy();
        in_memory.builders.threshold = threshold;
        let answer = answer_for(&[built(0), built(1)], &[], &have(), &in_memory);
        assert_eq!(answer.refused_by().unwrap().rule, "policy-valid");
    }
    let reviews = json!({"threshold": 0, "of": [{"name": "m", "ssh": MAINTAINER.trim()}]});
    assert!(policy_with(|p| p["reviews"] = reviews).is_err());
    let tests =
        json!({"threshold": 0, "of": [{"name": "t", "operator": "o", "key": account(0).public()}]});
    assert!(policy_with(|p| p["tests"] = tests).is_err());
}

#[test]
fn an_unknown_field_in_a_policy() {
    for pointer in ["", "/builders", "/builders/of/0", "/source"] {
        let error = policy_with(|p| p.pointer_mut(pointer).unwrap()["thresold"] = json!(1));
        let said = error.unwrap_err().to_string();
        assert!(said.contains("thresold"), "{said}");
    }
    let twice = r#"{"format":"instar-release-policy-v1","format":"instar-release-policy-v1"}"#;
    let said = ReleasePolicy::parse(twice.as_bytes())
        .unwrap_err()
        .to_string();
    assert!(said.contains("twice"), "{said}");
}

#[test]
fn a_policy_that_names_somebody_twice_or_by_nothing() {
    let error = policy_with(|p| p["builders"]["of"][1]["key"] = json!(builder(0).public()));
    assert!(matches!(error, Err(ReleasePolicyError::Twice(_))));
    let nobody = policy_with(|p| {
        p["builders"]["of"][1]
            .as_object_mut()
            .unwrap()
            .remove("key");
    });
    assert!(matches!(nobody, Err(ReleasePolicyError::Party { .. })));
    let anybody = policy_with(|p| {
        p["builders"]["of"][1] =
            json!({"name": "x", "operator": "y", "keyless": {"issuer": "https://gitlab.com"}});
    });
    assert!(matches!(anybody, Err(ReleasePolicyError::Party { .. })));
    assert!(matches!(
        policy_with(|p| p["recipes"] = json!([])),
        Err(ReleasePolicyError::NoRecipes)
    ));
}

#[test]
fn another_repository_ref_commit_or_recipe() {
    let parameters = |s: &mut Value, field: &str, value: &str| {
        s["predicate"]["buildDefinition"]["externalParameters"][field] = json!(value);
    };
    refused(
        changed(1, |s| {
            parameters(s, "repository", "https://git.example.org/evil.git")
        }),
        "source-repository",
    );
    refused(
        changed(1, |s| parameters(s, "ref", "refs/heads/evil")),
        "source-ref",
    );
    refused(
        changed(1, |s| parameters(s, "ref", "refs/heads/main2")),
        "source-ref",
    );
    refused(
        changed(1, |s| {
            s["predicate"]["buildDefinition"]["buildType"] =
                json!("urn:instar:recipe:cargo-warm-v1");
        }),
        "recipe-not-allowed",
    );
    // A tag is allowed by its beginning.
    let tag = changed(1, |s| parameters(s, "ref", "refs/tags/v1"));
    assert!(answer(&[built(0), tag]).ok);
    // A commit in one of its two places.
    let split = changed(1, |s| {
        s["predicate"]["buildDefinition"]["externalParameters"]["source"]["commit"] =
            json!("33".repeat(20));
    });
    refused(split, "source-commit");
    // In both: equal bytes from another commit don't count for this one.
    let other = changed(1, |s| {
        let definition = &mut s["predicate"]["buildDefinition"];
        definition["externalParameters"]["source"]["commit"] = json!("33".repeat(20));
        definition["resolvedDependencies"][0]["digest"]["gitCommit"] = json!("33".repeat(20));
    });
    refused(other, "source-commit");
}

#[test]
fn bytes_of_somebody_elses_release() {
    let elsewhere = changed(1, |s| {
        for subject in s["subject"].as_array_mut().unwrap() {
            subject["name"] = json!(format!("other/{}", subject["name"].as_str().unwrap()));
        }
    });
    refused(elsewhere, "subject-elsewhere");
}

#[test]
fn a_p256_key_of_somebody_elses_ci_counts_and_only_with_its_own_signature() {
    let theirs = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
    let key = VerifyKey::P256(Box::new(*theirs.verifying_key()));
    let policy = policy_with(|p| p["builders"]["of"][1]["key"] = json!(key.to_pem())).unwrap();
    let payload = statement_of(1);
    let sig: p256::ecdsa::Signature = theirs.sign(&pae(PAYLOAD_TYPE, &payload));
    let bundle = |sig: &[u8]| {
        let envelope = Envelope {
            payload: Base64(payload.clone()),
            payload_type: PAYLOAD_TYPE.into(),
            signatures: vec![EnvelopeSignature {
                keyid: String::new(),
                sig: Base64(sig.to_vec()),
            }],
        };
        // As cosign writes it: a hint of its own, fields that we don't know.
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "abc="}, "tlogEntries": []},
            "dsseEnvelope": envelope,
        })
        .to_string()
        .into_bytes()
    };
    let good = answer_for(
        &[built(0), bundle(sig.to_der().as_bytes())],
        &[],
        &have(),
        &policy,
    );
    assert!(good.ok, "{good:#?}");
    let bad = answer_for(
        &[built(0), bundle(&[0x30, 0x06, 2, 1, 1, 2, 1, 1])],
        &[],
        &have(),
        &policy,
    );
    assert!(!bad.ok);
}

#[test]
fn reviews_count_only_for_their_commit_namespace_and_maintainer() {
    let policy = policy_with(|p| {
        p["reviews"] = json!({"threshold": 1, "of": [{"name": "m", "ssh": MAINTAINER.trim()}]});
    })
    .unwrap();
    let bundles = [built(0), built(1)];
    let with = |reviews: &[&[u8]], policy| answer_for(&bundles, reviews, &have(), policy);
    let good = with(&[REVIEW, REVIEW], &policy);
    assert!(good.ok, "{good:#?}");
    assert_eq!(
        good.signers.iter().filter(|s| s.role == "review").count(),
        1
    );
    for (bad, why) in [
        (REVIEW_FOR_GIT, "namespace"),
        (REVIEW_OF_ANOTHER, "not valid for this commit"),
        (&REVIEW[..REVIEW.len() - 40], "not an armoured"),
    ] {
        let refused = with(&[bad], &policy);
        assert_eq!(refused.refused_by().unwrap().rule, "reviews-threshold");
        assert!(
            refused.checks.iter().any(|c| c.detail.contains(why)),
            "{refused:#?}"
        );
    }
    assert_eq!(
        with(&[], &policy).refused_by().unwrap().rule,
        "reviews-threshold"
    );
    assert_eq!(
        review_message(&source().commit),
        format!("instar/review/v1 {}\n", source().commit).into_bytes()
    );
}

#[test]
fn tests_must_have_passed_and_cover_every_file() {
    let tester = account(3);
    let policy = policy_with(|p| {
        let one = json!({"name": "tester", "operator": "lab", "key": tester.public()});
        p["tests"] = json!({"threshold": 1, "of": [one]});
    })
    .unwrap();
    let with = |key: &SecretKey, statement: Vec<u8>| {
        let bundles = [built(0), built(1), sign(key, statement).unwrap()];
        answer_for(&bundles, &[], &have(), &policy)
    };
    let passed = test_result(true, "cargo test", &files(), &sbom()).unwrap();
    assert!(with(&tester, passed.clone()).ok);
    let failed = with(
        &tester,
        test_result(false, "cargo test", &files(), &sbom()).unwrap(),
    );
    assert!(failed.checks.iter().any(|c| c.rule == "test-not-passed"));
    assert_eq!(failed.refused_by().unwrap().rule, "tests-threshold");
    let part = with(
        &tester,
        test_result(true, "x", &files()[..1], &sbom()).unwrap(),
    );
    assert_eq!(part.refused_by().unwrap().rule, "tests-threshold");
    // A builder's key is no tester's.
    assert!(!with(&builder(0), passed).ok);
}

#[test]
fn gitlab_facts_are_taken_from_its_variables_alone() {
    let variables = |name: &str| {
        Some(match name {
            "GITLAB_CI" | "CI_COMMIT_REF_PROTECTED" => "true".to_owned(),
            "CI_PROJECT_PATH" => "chain/builder\n\u{1b}[31m".to_owned(),
            "CI_JOB_URL" => "https://gitlab.example.org/j/7".to_owned(),
            "CI_JOB_ID" => "9".repeat(10_000),
            _ => return None,
        })
    };
    let facts = GitLabFacts::from_variables(variables).unwrap();
    assert!(facts.protected);
    assert_eq!(facts.project, "chain/builder[31m");
    assert_eq!(facts.job.len(), 512);
    assert_eq!(GitLabFacts::from_variables(|_| None), None);
    let mut with_facts = provenance(0);
    with_facts.gitlab = Some(facts);
    let statement = with_facts.statement(&files(), &sbom()).unwrap();
    assert_eq!(
        json::to_vec(&serde_json::from_slice::<Value>(&statement).unwrap()).unwrap(),
        statement
    );
    let bundles = [sign(&builder(0), statement).unwrap(), built(1)];
    let answer = answer_for(&bundles, &[], &have(), &policy());
    assert!(answer.ok);
    assert_eq!(
        answer.signers[0].ci.as_ref().unwrap()["protected"],
        json!(true)
    );
}
