//! Keyless bundles at the command line: a recorded release, signed by an identity and no key, verified and attacked. What is
//! refused is refused for the rule that it breaks.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Who vouched for the identity when it was recorded: an issuer on loopback.
const ISSUER: &str = "http://127.0.0.1:17500";
const SUBJECT: &str = "https://gitlab.com/chain/releases//.gitlab-ci.yml@refs/heads/main";
const PROJECT: &str = "https://gitlab.com/chain/releases";

fn recorded(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("attest/tests/keyless/private").join(name)
}

fn bundle(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(recorded(name)).unwrap()).unwrap()
}

fn policy() -> Value {
    let ci = json!({
        "name": "ci", "operator": "chain",
        "keyless": {"issuer": ISSUER, "subject": SUBJECT, "project": PROJECT},
    });
    json!({
        "format": "instar-release-policy-v1",
        "recipes": ["nix-v1"],
        "builders": {"threshold": 1, "of": [ci]},
        "source": {"repository": "https://git.example.org/hello.git", "refs": ["refs/heads/main"]},
        "targets": ["x86_64-unknown-linux-gnu"],
    })
}

/// The exit code, and everything that was said.
fn verify(bundles: &[&Value], policy: &Value, trust: Option<&str>) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, value: &Value| {
        let path = dir.path().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path
    };
    let mut command = Command::new(instar_tests::instar());
    command.arg("verify").arg(recorded("release"));
    command.arg("--policy").arg(put("policy.json", policy));
    for (i, bundle) in bundles.iter().enumerate() {
        command
            .arg("--bundle")
            .arg(put(&format!("{i}.json"), bundle));
    }
    if let Some(trust) = trust {
        command.arg("--trust-config").arg(recorded(trust));
    }
    let done = command.output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.code().unwrap(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

const TRUST: Option<&str> = Some("trust-config.json");

fn refused(bundle: &Value, policy: &Value, rule: &str) {
    let (code, said) = verify(&[bundle], policy, TRUST);
    assert_eq!(code, 1, "{said}");
    let line = format!("ignored {rule}: ");
    assert!(said.contains(&line), "not by {rule}:\n{said}");
}

#[test]
fn what_an_identity_signed_is_verified() {
    for name in [
        "provenance.sigstore.json",
        "no-timestamp.sigstore.json",
        "late-entry.sigstore.json",
    ] {
        let (code, said) = verify(&[&bundle(name)], &policy(), TRUST);
        assert_eq!(code, 0, "{name}: {said}");
        assert!(said.contains(SUBJECT), "{said}");
    }
    let mut tested = policy();
    tested["tests"] = tested["builders"].clone();
    let (built, test) = (
        bundle("provenance.sigstore.json"),
        bundle("test-result.sigstore.json"),
    );
    let (code, said) = verify(&[&built, &test], &tested, TRUST);
    assert_eq!(code, 0, "{said}");
    let (code, said) = verify(&[&built], &tested, TRUST);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("tests-threshold"), "{said}");
}

#[test]
fn wrong_issuer() {
    let mut wrong = policy();
    wrong["builders"]["of"][0]["keyless"]["issuer"] = json!("https://gitlab.com");
    refused(
        &bundle("provenance.sigstore.json"),
        &wrong,
        "keyless-issuer",
    );
}

#[test]
fn wrong_project() {
    refused(
        &bundle("wrong-project.sigstore.json"),
        &policy(),
        "keyless-subject",
    );
    // A policy that asks for a project alone.
    let mut project = policy();
    let party = project["builders"]["of"][0]["keyless"]
        .as_object_mut()
        .unwrap();
    party.remove("subject");
    refused(
        &bundle("wrong-project.sigstore.json"),
        &project,
        "keyless-project",
    );
}

#[test]
fn expired_certificate_with_and_without_a_good_timestamp() {
    // Every certificate here was over within ten minutes of the recording.
    let (code, said) = verify(&[&bundle("late-entry.sigstore.json")], &policy(), TRUST);
    assert_eq!(code, 0, "{said}");
    let mut without = bundle("late-entry.sigstore.json");
    without["verificationMaterial"]["timestampVerificationData"] = json!({});
    refused(&without, &policy(), "timestamp-missing");
    let mut of_another = bundle("late-entry.sigstore.json");
    of_another["verificationMaterial"]["timestampVerificationData"] =
        bundle("provenance.sigstore.json")["verificationMaterial"]["timestampVerificationData"]
            .clone();
    refused(&of_another, &policy(), "timestamp");
}

#[test]
fn log_entry_of_another_artifact() {
    let mut swapped = bundle("provenance.sigstore.json");
    swapped["verificationMaterial"]["tlogEntries"] =
        bundle("wrong-project.sigstore.json")["verificationMaterial"]["tlogEntries"].clone();
    refused(&swapped, &policy(), "log-entry-of-another");
}

#[test]
fn bad_inclusion_proof_and_none_at_all() {
    let mut bad = bundle("provenance.sigstore.json");
    let zeros = format!("{}=", "A".repeat(43));
    bad["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["hashes"] = json!([zeros]);
    refused(&bad, &policy(), "log-inclusion-proof");
    refused(&bundle("queued.json"), &policy(), "log-entry-missing");
}

#[test]
fn another_instances_root() {
    let (code, said) = verify(&[&bundle("provenance.sigstore.json")], &policy(), None);
    assert_eq!(code, 1, "the public instance is no judge of this: {said}");
}
