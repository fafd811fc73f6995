//! Keyless bundles, recorded: those of others verify, and each attack on one is refused for its own reason.

#![allow(clippy::unwrap_used)]

mod private;

use instar_attest::keyless::{KeylessError, verify};
use instar_attest::received::{Claim, Named, Received};
use instar_attest::release_check::{Answer, Document, ReleaseInput, verify_release};
use instar_attest::release_policy::{Identity, ReleasePolicy};
use serde_json::{Value, json};

const PUBLIC: &str = include_str!("public-good.trusted-root.json");
const STAGING: &str = include_str!("staging.trusted-root.json");
const CONDA: &str = include_str!("conda-attestation.sigstore.json");
const CONDA_LOG_2: &str = include_str!("conda-attestation-rekor2.sigstore.json");
const COSIGN: &str = include_str!("cosign-v3-blob.sigstore.json");
const STAGING_BLOB: &str = include_str!("staging-blob.sigstore.json");
const PROVENANCE: &str = include_str!("staging-provenance.sigstore.json");

pub(crate) fn changed(bundle: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_str(bundle).unwrap();
    change(&mut value);
    value.to_string().into_bytes()
}

pub(crate) fn refused(bundle: &[u8], root: &str, rule: &str) -> KeylessError {
    let error = verify(bundle, root.as_bytes()).expect_err(rule);
    assert_eq!(error.rule(), rule, "{error}");
    error
}

pub(crate) fn entry(bundle: &mut Value) -> &mut Value {
    &mut bundle["verificationMaterial"]["tlogEntries"][0]
}

#[test]
fn recorded_bundles_of_others_verify() {
    let conda = verify(CONDA.as_bytes(), PUBLIC.as_bytes()).unwrap();
    assert_eq!(conda.issuer, "https://token.actions.githubusercontent.com");
    assert!(conda.subject.starts_with("https://github.com/"), "{conda}");
    assert!(conda.project.unwrap().starts_with("https://github.com/"));
    let staging = verify(PROVENANCE.as_bytes(), STAGING.as_bytes()).unwrap();
    assert!(!staging.issuer.is_empty() && !staging.subject.is_empty());
}

#[test]
fn expired_certificate_with_a_good_timestamp() {
    // Certificates live for ten minutes, and these are long over: what counts is the signed time in the log, or the
    // timestamp authority's, whatever today is.
    verify(CONDA.as_bytes(), PUBLIC.as_bytes()).unwrap();
    verify(PROVENANCE.as_bytes(), STAGING.as_bytes()).unwrap();
}

#[test]
fn expired_certificate_without_a_good_timestamp() {
    // Log v2 promises no time; without the authority's timestamp nobody says when.
    let without = changed(PROVENANCE, |b| {
        b["verificationMaterial"]["timestampVerificationData"] = json!({});
    });
    refused(&without, STAGING, "timestamp-missing");
    // A time that nobody signed.
    let said = changed(CONDA, |b| {
        entry(b)["integratedTime"] = json!("1900000000");
    });
    refused(&said, PUBLIC, "log");
    // The timestamp of another signature.
    let other: Value = serde_json::from_str(CONDA_LOG_2).unwrap();
    let swapped = changed(PROVENANCE, |b| {
        b["verificationMaterial"]["timestampVerificationData"] =
            other["verificationMaterial"]["timestampVerificationData"].clone();
    });
    refused(&swapped, STAGING, "timestamp");
}

#[test]
fn log_entry_of_another_artifact() {
    // From the same log, so that proof and checkpoint hold: only the entry's content tells.
    let other: Value = serde_json::from_str(STAGING_BLOB).unwrap();
    let swapped = changed(PROVENANCE, |b| {
        *entry(b) = other["verificationMaterial"]["tlogEntries"][0].clone();
    });
    refused(&swapped, STAGING, "log-entry-of-another");
    // With an older log the entry also carries the time, at which this certificate was not valid.
    let other: Value = serde_json::from_str(COSIGN).unwrap();
    let swapped = changed(CONDA, |b| {
        *entry(b) = other["verificationMaterial"]["tlogEntries"][0].clone();
    });
    refused(&swapped, PUBLIC, "certificate-expired");
}

#[test]
fn bad_inclusion_proof() {
    let bad = changed(CONDA, |b| {
        let hashes = entry(b)["inclusionProof"]["hashes"].as_array_mut().unwrap();
        hashes.swap(0, 1);
    });
    refused(&bad, PUBLIC, "log-inclusion-proof");
    let bad = changed(CONDA, |b| {
        let hashes = entry(b)["inclusionProof"]["hashes"].as_array_mut().unwrap();
        hashes.pop();
    });
    refused(&bad, PUBLIC, "log-inclusion-proof");
    let none = changed(CONDA, |b| {
        b["verificationMaterial"]["tlogEntries"] = json!([]);
    });
    refused(&none, PUBLIC, "log-entry-missing");
}

#[test]
fn changed_byte_of_the_payload() {
    let bad = changed(CONDA, |b| {
        let text = b["dsseEnvelope"]["payload"].as_str().unwrap();
        let first = if text.starts_with('e') { "f" } else { "e" };
        b["dsseEnvelope"]["payload"] = json!(format!("{first}{}", &text[1..]));
    });
    assert!(verify(&bad, PUBLIC.as_bytes()).is_err());
    let sig = changed(CONDA, |b| {
        let other: Value = serde_json::from_str(CONDA_LOG_2).unwrap();
        b["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"].clone();
    });
    assert!(verify(&sig, PUBLIC.as_bytes()).is_err());
}

#[test]
fn another_instances_trusted_root() {
    assert!(verify(CONDA.as_bytes(), STAGING.as_bytes()).is_err());
    assert!(verify(PROVENANCE.as_bytes(), PUBLIC.as_bytes()).is_err());
    // A file that is none: not JSON, another document, one that names nobody, and a bundle in its place.
    let nobody = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;
    for other in ["{", "{}", nobody, r#"{"trustedRoot":{}}"#, CONDA] {
        assert_eq!(
            verify(CONDA.as_bytes(), other.as_bytes())
                .unwrap_err()
                .rule(),
            "keyless-trusted-root",
            "{other:.40}"
        );
    }
}

fn provenance_answer(identity: Value, root: Option<&str>) -> Answer {
    let claim = Claim::parse(&Received::parse(PROVENANCE.as_bytes()).unwrap().payload).unwrap();
    let policy = json!({
        "format": "instar-release-policy-v1",
        "builders": {"threshold": 1, "of": [{"name": "ci", "operator": "o", "keyless": identity}]},
        "recipes": [claim.text("/buildDefinition/buildType").unwrap()],
        "sbom": false,
    });
    let policy = ReleasePolicy::parse(policy.to_string().as_bytes()).unwrap();
    let files: Vec<Named> = claim.subjects.clone();
    let bundle = Document {
        name: "bundle",
        bytes: PROVENANCE.as_bytes(),
    };
    let input = ReleaseInput {
        files: &files,
        bundles: &[bundle],
        reviews: &[],
        trusted_root: root.map(str::as_bytes),
    };
    verify_release(&input, &policy)
}

fn rule(answer: &Answer) -> &str {
    assert!(!answer.ok);
    let refused = answer.checks.iter().find(|c| !c.ok && !c.decides);
    &refused.unwrap().rule
}

#[test]
fn wrong_issuer_subject_and_project() {
    let who = verify(PROVENANCE.as_bytes(), STAGING.as_bytes()).unwrap();
    let right = json!({"issuer": who.issuer, "subject": who.subject});
    let with = |change: fn(&mut Value)| {
        let mut identity = right.clone();
        change(&mut identity);
        provenance_answer(identity, Some(STAGING))
    };
    let issuer = with(|i| i["issuer"] = json!("https://gitlab.example.org"));
    assert_eq!(rule(&issuer), "keyless-issuer");
    let subject = with(|i| i["subject"] = json!("somebody@example.org"));
    assert_eq!(rule(&subject), "keyless-subject");
    let project = with(|i| i["project"] = json!("https://gitlab.com/evil/project"));
    assert_eq!(rule(&project), "keyless-project");
    let no_root = provenance_answer(right.clone(), None);
    assert_eq!(rule(&no_root), "keyless-no-trusted-root");
    // With the right identity everything about the signature holds; this recording names no source commit, though.
    let answer = provenance_answer(right, Some(STAGING));
    assert_eq!(rule(&answer), "source-commit");
    let wanted = Identity {
        issuer: who.issuer.clone(),
        project: None,
        subject: Some(who.subject.clone()),
    };
    assert_eq!(who.matches(&wanted), Ok(()));
}
