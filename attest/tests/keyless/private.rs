//! Bundles that we made ourselves, recorded by `tests/interop/live/keyless.sh` against a private instance on loopback.

use instar_attest::keyless::verify;
use serde_json::{Value, json};

use super::{changed, entry, refused};

const CONFIG: &str = include_str!("private/trust-config.json");
const PROVENANCE: &str = include_str!("private/provenance.sigstore.json");
const TEST_RESULT: &str = include_str!("private/test-result.sigstore.json");
const WRONG_PROJECT: &str = include_str!("private/wrong-project.sigstore.json");
const NO_TIMESTAMP: &str = include_str!("private/no-timestamp.sigstore.json");
const QUEUED: &str = include_str!("private/queued.json");
const LATE_ENTRY: &str = include_str!("private/late-entry.sigstore.json");

#[test]
fn what_we_make_verifies_with_a_trusted_root_and_with_a_trust_configuration() {
    let root: Value = serde_json::from_str(CONFIG).unwrap();
    let root = root["trustedRoot"].to_string();
    for bundle in [PROVENANCE, TEST_RESULT, NO_TIMESTAMP, LATE_ENTRY] {
        for trust in [CONFIG, &root] {
            let by = verify(bundle.as_bytes(), trust.as_bytes()).unwrap();
            assert_eq!(by.project.unwrap(), "https://gitlab.com/chain/releases");
            assert!(by.subject.ends_with("//.gitlab-ci.yml@refs/heads/main"));
            assert!(by.issuer.starts_with("http://127.0.0.1:"));
        }
    }
    let other = verify(WRONG_PROJECT.as_bytes(), CONFIG.as_bytes()).unwrap();
    assert_eq!(other.project.unwrap(), "https://gitlab.com/evil/project");
}

#[test]
fn a_queued_bundle_is_no_bundle_yet() {
    refused(QUEUED.as_bytes(), CONFIG, "log-entry-missing");
    // The same signature, entered after its certificate was over: the time is the authority's, not the log's.
    let queued: Value = serde_json::from_str(QUEUED).unwrap();
    let late: Value = serde_json::from_str(LATE_ENTRY).unwrap();
    assert_eq!(queued["dsseEnvelope"], late["dsseEnvelope"]);
    let logged = &late["verificationMaterial"]["tlogEntries"][0];
    assert!(logged["integratedTime"].is_string() && logged["inclusionPromise"].is_null());
}

#[test]
fn expired_certificate_without_a_good_timestamp() {
    // Neither an entry that was made later nor one whose promise was taken away says when this was signed.
    let late = changed(LATE_ENTRY, |b| {
        b["verificationMaterial"]["timestampVerificationData"] = json!({});
    });
    refused(&late, CONFIG, "timestamp-missing");
    let promise = changed(NO_TIMESTAMP, |b| {
        entry(b).as_object_mut().unwrap().remove("inclusionPromise");
    });
    refused(&promise, CONFIG, "timestamp-missing");
    // The timestamp of another signature.
    let other: Value = serde_json::from_str(WRONG_PROJECT).unwrap();
    let stamp = changed(PROVENANCE, |b| {
        b["verificationMaterial"]["timestampVerificationData"] =
            other["verificationMaterial"]["timestampVerificationData"].clone();
    });
    refused(&stamp, CONFIG, "timestamp");
}

#[test]
fn log_entry_of_another_artifact() {
    let other: Value = serde_json::from_str(WRONG_PROJECT).unwrap();
    let swapped = changed(PROVENANCE, |b| {
        *entry(b) = other["verificationMaterial"]["tlogEntries"][0].clone();
    });
    refused(&swapped, CONFIG, "log-entry-of-another");
}

#[test]
fn bad_inclusion_proof() {
    let zeros = format!("{}=", "A".repeat(43));
    for bundle in [PROVENANCE, LATE_ENTRY] {
        let bad = changed(bundle, |b| {
            entry(b)["inclusionProof"]["hashes"] = json!([zeros]);
        });
        refused(&bad, CONFIG, "log-inclusion-proof");
    }
}
