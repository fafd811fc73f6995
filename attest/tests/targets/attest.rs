//! Any bytes as what others attest: canonical JSON and theirs, statements, envelopes, bundles, releases, policies, reviews,
//! keys. Each decoder is tried. What is strict has one spelling; what is lax is bounded.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use instar_attest::bundle::{Bundle, BundleError, MAX_BUNDLE_BYTES};
use instar_attest::dsse::{Envelope, pae};
use instar_attest::json;
use instar_attest::policy::Policy;
use instar_attest::received::{Claim, MAX_SUBJECT_NAME, MAX_SUBJECTS, Received};
use instar_attest::release::{MAX_RELEASE_FILES, Release};
use instar_attest::release_policy::ReleasePolicy;
use instar_attest::review::{Review, ssh_public_key};
use instar_attest::statement::{PAYLOAD_TYPE, Statement};
use instar_attest::{SecretKey, VerifyKey};
use serde_json::Value;

/// More than any of the bounds that are tested here.
const MAX_BYTES: usize = 2 << 20;

/// Fails where a strict decoder takes two spellings of one thing, or two decoders see different things in the same bytes.
/// Says whether one of the decoders of documents accepted the bytes.
pub fn run(data: &[u8]) -> bool {
    values(data);
    let accepted = [
        statement(data),
        bundle(data),
        received(data),
        claim(data),
        release(data),
        policies(data),
        review(data),
        key(data),
    ];
    accepted.contains(&true)
}

/// Whatever is canonical is JSON of others too, and the same; what of theirs can be written canonically is read again.
fn values(data: &[u8]) {
    let lax = json::from_slice_of_others::<Value>(data, MAX_BYTES);
    if let Ok(value) = json::from_slice::<Value>(data, MAX_BYTES) {
        assert_eq!(json::to_vec(&value).unwrap(), data);
        assert_eq!(lax.as_ref().unwrap(), &value);
        assert!(json::from_slice::<Value>(data, data.len() - 1).is_err());
    }
    if let Ok(canonical) = lax
        .map_err(drop)
        .and_then(|v| json::to_vec(&v).map_err(drop))
    {
        json::from_slice::<Value>(&canonical, MAX_BYTES).unwrap();
    }
    if let Ok(envelope) = json::from_slice::<Envelope>(data, MAX_BYTES) {
        assert_eq!(json::to_vec(&envelope).unwrap(), data);
    }
}

fn statement(data: &[u8]) -> bool {
    let Ok(statement) = Statement::parse(data) else {
        return false;
    };
    assert_eq!(statement.to_bytes().unwrap(), data);
    statement.builder().unwrap();
    statement.recipe().unwrap();
    let key = SecretKey::from_seed(&[7; 32]);
    let bytes = match Bundle::sign(&key, &statement).and_then(|b| b.to_bytes()) {
        Ok(bytes) => bytes,
        Err(error) => {
            assert!(matches!(error, BundleError::Json(_)), "{error}");
            return true;
        }
    };
    assert!(bytes.len() <= MAX_BUNDLE_BYTES);
    let again = Bundle::parse(&bytes).unwrap().verify(&key.public());
    assert_eq!(again.unwrap(), statement);
    let stranger = SecretKey::from_seed(&[8; 32]).public();
    assert!(Bundle::parse(&bytes).unwrap().verify(&stranger).is_err());
    true
}

fn bundle(data: &[u8]) -> bool {
    let Ok(bundle) = Bundle::parse(data) else {
        return false;
    };
    assert_eq!(bundle.to_bytes().unwrap(), data);
    // The ledger's reader and everybody's see the same.
    let received = Received::parse(data);
    if bundle.envelope.payload_type == PAYLOAD_TYPE {
        let received = received.unwrap();
        assert_eq!(received.payload, bundle.envelope.payload.0);
        assert!(received.hints.iter().all(|hint| hint == bundle.key_id()));
    } else {
        assert!(received.is_err());
    }
    true
}

fn received(data: &[u8]) -> bool {
    let Ok(received) = Received::parse(data) else {
        return false;
    };
    assert!(received.payload.len() < data.len() && received.signature.len() < data.len());
    assert!(received.hints.len() <= 2);
    assert_eq!(
        received.signed_bytes(),
        pae(PAYLOAD_TYPE, &received.payload)
    );
    claim(&received.payload);
    true
}

fn claim(data: &[u8]) -> bool {
    let Ok(claim) = Claim::parse(data) else {
        return false;
    };
    assert!((1..=MAX_SUBJECTS).contains(&claim.subjects.len()));
    let names: BTreeSet<&str> = claim.subjects.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names.len(), claim.subjects.len());
    assert!(
        names
            .iter()
            .all(|n| (1..=MAX_SUBJECT_NAME).contains(&n.len()))
    );
    let _ = claim.commits();
    true
}

fn release(data: &[u8]) -> bool {
    let Ok(release) = Release::parse(data) else {
        return false;
    };
    assert_eq!(release.to_bytes().unwrap(), data);
    assert!(release.files.len() <= MAX_RELEASE_FILES);
    // Every file and the SBOM have a place of their own.
    assert_eq!(release.links().len(), release.files.len() + 1);
    let of_targets = release
        .targets()
        .into_iter()
        .map(|t| release.files_of(t).len());
    assert_eq!(of_targets.sum::<usize>(), release.files.len());
    true
}

fn policies(data: &[u8]) -> bool {
    let strict = Policy::parse(data);
    if let Ok(policy) = &strict {
        assert_eq!(policy.to_bytes().unwrap(), data);
        assert!((1..=policy.operators()).contains(&(policy.threshold as usize)));
    }
    let lax = ReleasePolicy::parse(data);
    if let Ok(policy) = &lax {
        policy.check().unwrap();
    }
    strict.is_ok() || lax.is_ok()
}

fn review(data: &[u8]) -> bool {
    let Ok(review) = Review::parse(data) else {
        return false;
    };
    assert!(review.verify("a commit that nobody has reviewed").is_err());
    true
}

fn key(data: &[u8]) -> bool {
    let by_der = VerifyKey::from_spki_der(data);
    if let Some(key) = &by_der {
        assert_eq!(key.to_spki_der(), data);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return by_der.is_some();
    };
    let by_text = text.parse::<VerifyKey>().ok();
    if let Some(key) = by_text.as_ref().or(by_der.as_ref()) {
        assert_eq!(key.to_pem().parse::<VerifyKey>().as_ref(), Ok(key));
        assert!(!key.verifies(b"nothing that was signed", data));
    }
    by_text.is_some() || by_der.is_some() || ssh_public_key(text).is_some()
}
