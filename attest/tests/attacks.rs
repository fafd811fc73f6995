//! Attacks on attestations, each test named after its attack.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use instar_attest::bundle::{Bundle, MAX_BUNDLE_BYTES};
use instar_attest::check::{Expected, Refusal, Registered, check_attestation};
use instar_attest::dsse::Envelope;
use instar_attest::json;
use instar_attest::policy::{Input, Policy, PolicyError, Verdict, verify};
use instar_attest::release::Release;
use instar_attest::reveal::FileReveal;
use instar_attest::statement::{PAYLOAD_TYPE, Statement};
use instar_attest::{ChainId, Digest, Purpose, SecretKey};
use serde_json::{Value, json};

fn check(bundle: &[u8]) -> Result<Statement, Refusal> {
    check_files(bundle, &files())
}

fn check_files(bundle: &[u8], files: &[FileReveal]) -> Result<Statement, Refusal> {
    check_attestation(
        bundle,
        &Expected {
            builder: &builder(0).public(),
            chain: &chain(),
            round: &round(),
            slot: &"dapps/coin".parse().unwrap(),
            number: 2,
            name: &"coin".parse().unwrap(),
            source: &source(),
            targets: &[TARGET.parse().unwrap()],
            files,
            sbom: &sbom(),
            recipes: &["cargo-vendored-v1".parse().unwrap()],
            registered: &[
                Registered {
                    key: builder(0).public(),
                    purpose: Purpose::Builder,
                },
                Registered {
                    key: account(0).public(),
                    purpose: Purpose::Account,
                },
            ],
        },
    )
}

fn refused_by(bundle: &[u8], rule: &str) {
    let refusal = check(bundle).expect_err(rule);
    assert_eq!(refusal.rule(), rule, "{refusal}");
}

/// Signs a statement that was changed as JSON, so that nothing but the change is wrong.
fn signed_with(key: &SecretKey, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = serde_json::to_value(statement(0)).unwrap();
    change(&mut value);
    let payload = json::to_vec(&value).unwrap();
    let bundle = Bundle {
        envelope: Envelope::sign(key, PAYLOAD_TYPE, payload),
        ..Bundle::sign(key, &statement(0)).unwrap()
    };
    bundle.to_bytes().unwrap()
}

fn parameters(value: &mut Value) -> &mut Value {
    &mut value["predicate"]["buildDefinition"]["externalParameters"]
}

fn verdict(bundles: &[Vec<u8>], policy: &Policy) -> Verdict {
    let release = release().to_bytes().unwrap();
    let input = Input {
        release: &release,
        bundles,
    };
    verify(&input, policy)
}

fn rules(verdict: &Verdict) -> Vec<&str> {
    let refused = verdict.checks.iter().filter(|c| !c.ok);
    refused.map(|c| c.rule.as_str()).collect()
}

#[test]
fn an_honest_attestation_passes() {
    assert_eq!(check(&bundle(0)).unwrap(), statement(0));
    let all: Vec<_> = (0..4).map(bundle).collect();
    let verdict = verdict(&all, &policy());
    assert!(verdict.ok, "{verdict:?}");
    assert_eq!(rules(&verdict), Vec::<&str>::new());
}

#[test]
fn changed_byte() {
    let good = bundle(0);
    // Unoptimized, a signature takes milliseconds, so there the payload's inside is only sampled.
    let text = std::str::from_utf8(&good).unwrap();
    let start = text.find("\"payload\":\"").unwrap() + 20;
    let end = text.find("\",\"payloadType").unwrap() - 20;
    let sampled = start..end;
    for at in 0..good.len() {
        if cfg!(debug_assertions) && sampled.contains(&at) && at % 37 != 0 {
            continue;
        }
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(check(&bad).is_err(), "byte {at} of the bundle");
    }
}

#[test]
fn appended_or_cut_byte() {
    let good = bundle(0);
    for tail in [&b"\n"[..], b" ", b"\0", b"{}"] {
        refused_by(&[&good, tail].concat(), "attestation-malformed");
    }
    refused_by(&good[..good.len() - 1], "attestation-malformed");
}

#[test]
fn changed_subject_under_the_old_signature() {
    let mut bundle = Bundle::parse(&bundle(0)).unwrap();
    let text = String::from_utf8(bundle.envelope.payload.0.clone()).unwrap();
    let (old, new) = (files()[1].sha256.to_hex(), "0".repeat(64));
    bundle.envelope.payload.0 = text.replace(&old, &new).into_bytes();
    refused_by(&bundle.to_bytes().unwrap(), "attestation-signature");
}

#[test]
fn changed_subject_signed_again() {
    let bad = signed_with(&builder(0), |s| {
        s["subject"][1]["digest"]["sha256"] = json!("0".repeat(64));
    });
    refused_by(&bad, "attestation-subjects");
    let bad = signed_with(&builder(0), |s| {
        s["subject"][2]["annotations"]["mode"] = json!("0644");
    });
    refused_by(&bad, "attestation-subjects");
}

#[test]
fn a_file_that_is_revealed_but_not_attested() {
    let mut more = files();
    more.push(file(
        "rootfs/bin/evil",
        instar_attest::reveal::FileMode::Executable,
        b"evil",
    ));
    let refusal = check_files(&bundle(0), &more).unwrap_err();
    assert_eq!(refusal.rule(), "attestation-subjects");
    let refusal = check_files(&bundle(0), &files()[..1]).unwrap_err();
    assert_eq!(refusal.rule(), "attestation-subjects");
    let twice = [files(), files()].concat();
    assert!(check_files(&bundle(0), &twice).is_err());
}

#[test]
fn swapped_payload_type() {
    // The type alone is changed: the signature no longer covers it.
    let mut bundle = Bundle::parse(&bundle(0)).unwrap();
    bundle.envelope.payload_type = "application/json".into();
    refused_by(&bundle.to_bytes().unwrap(), "attestation-payload-type");
    // The type is signed as well: still not what is asked for.
    let payload = statement(0).to_bytes().unwrap();
    bundle.envelope = Envelope::sign(&builder(0), "application/json", payload);
    refused_by(&bundle.to_bytes().unwrap(), "attestation-payload-type");
}

#[test]
fn bytes_signed_without_the_envelope_encoding() {
    let mut bundle = Bundle::parse(&bundle(0)).unwrap();
    let sig = builder(0).sign(&bundle.envelope.payload.0);
    bundle.envelope.signatures[0].sig.0 = sig.as_bytes().to_vec();
    refused_by(&bundle.to_bytes().unwrap(), "attestation-signature");
}

#[test]
fn other_key() {
    refused_by(&bundle(1), "attestation-other-key");
    // The hint of the expected key on another's signature.
    let mut lie = Bundle::parse(&bundle(1)).unwrap();
    lie.material.public_key.hint = builder(0).public().key_id();
    lie.envelope.signatures[0].keyid = builder(0).public().key_id();
    refused_by(&lie.to_bytes().unwrap(), "attestation-signature");
    // Two hints that differ.
    let mut split = Bundle::parse(&bundle(0)).unwrap();
    split.material.public_key.hint = builder(1).public().key_id();
    refused_by(&split.to_bytes().unwrap(), "attestation-malformed");
}

#[test]
fn a_statement_in_another_builders_name() {
    let bad = signed_with(&builder(0), |s| {
        let id = instar_attest::statement::builder_id(&builder(1).public());
        s["predicate"]["runDetails"]["builder"]["id"] = json!(id);
    });
    refused_by(&bad, "attestation-builder-id");
}

#[test]
fn a_key_of_another_purpose() {
    refused_by(&signed_with(&account(0), |_| {}), "wrong-key-purpose");
    // Also when it pretends to be the builder's key.
    let mut lie = Bundle::sign(&account(0), &statement(0)).unwrap();
    lie.material.public_key.hint = builder(0).public().key_id();
    lie.envelope.signatures[0].keyid = builder(0).public().key_id();
    refused_by(&lie.to_bytes().unwrap(), "wrong-key-purpose");

    let bundles = [bundle(0), bundle(1), signed_with(&account(0), |_| {})];
    let verdict = verdict(&bundles, &policy());
    assert!(!verdict.ok);
    assert_eq!(
        rules(&verdict),
        ["wrong-key-purpose", "builders-below-threshold"]
    );
}

#[test]
fn a_duplicate_signature_is_not_counted_twice() {
    // Two signatures in one envelope are refused as such.
    let mut two = Bundle::parse(&bundle(0)).unwrap();
    let again = two.envelope.signatures[0].clone();
    two.envelope.signatures.push(again);
    refused_by(&two.to_bytes().unwrap(), "attestation-malformed");
    // One bundle given three times is one builder.
    let verdict_1 = verdict(&[bundle(0), bundle(0), bundle(0)], &policy());
    assert!(!verdict_1.ok);
    assert_eq!(
        rules(&verdict_1),
        [
            "attestation-duplicate",
            "attestation-duplicate",
            "builders-below-threshold"
        ]
    );
    // Two keys of one operator are one operator.
    let mut policy = policy();
    policy.builders[1].operator = "operator-0".into();
    let verdict_2 = verdict(&[bundle(0), bundle(1), bundle(2)], &policy);
    assert!(!verdict_2.ok);
    let last = verdict_2.refused_by().unwrap();
    assert_eq!(last.rule, "builders-below-threshold");
    assert!(last.detail.contains("2 of 4"), "{}", last.detail);
}

#[test]
fn a_digest_that_is_not_hex() {
    let (upper, short, word) = ("AB".repeat(32), "ab".repeat(31), "zz".repeat(32));
    for digest in [upper, short, word] {
        let bad = signed_with(&builder(0), |s| {
            s["subject"][0]["digest"]["sha256"] = json!(digest);
        });
        refused_by(&bad, "attestation-malformed");
    }
}

#[test]
fn two_files_of_one_name() {
    let bad = signed_with(&builder(0), |s| {
        let first = s["subject"][1].clone();
        s["subject"].as_array_mut().unwrap().insert(1, first);
    });
    refused_by(&bad, "attestation-malformed");
    let mut release = serde_json::to_value(release()).unwrap();
    let first = release["files"][0].clone();
    release["files"].as_array_mut().unwrap().insert(0, first);
    let error = Release::parse(&json::to_vec(&release).unwrap()).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}

#[test]
fn a_release_whose_paths_leave_it() {
    for path in [
        "../evil",
        "/etc/passwd",
        "x86_64-unknown-linux-gnu/../../evil",
    ] {
        let mut value = serde_json::to_value(release()).unwrap();
        value["files"][0]["path"] = json!(path);
        assert!(
            Release::parse(&json::to_vec(&value).unwrap()).is_err(),
            "{path}"
        );
    }
    // A path under another target, and a file that is also a directory.
    let mut value = serde_json::to_value(release()).unwrap();
    value["files"][0]["path"] = json!("aarch64-unknown-linux-gnu/dapp.json");
    assert!(Release::parse(&json::to_vec(&value).unwrap()).is_err());
    let mut value = serde_json::to_value(release()).unwrap();
    value["files"][0]["path"] = json!(format!("{TARGET}/rootfs/bin"));
    let error = Release::parse(&json::to_vec(&value).unwrap()).unwrap_err();
    assert!(error.to_string().contains("directory"), "{error}");
}

#[test]
fn an_attestation_from_elsewhere() {
    let other = "d".repeat(64);
    let cases: [(&str, &str, Value); 5] = [
        ("chain", "attestation-chain", json!(other)),
        ("round", "attestation-round", json!(other)),
        ("number", "attestation-release", json!(3)),
        ("slot", "attestation-release", json!("dapps/door")),
        (
            "targets",
            "attestation-release",
            json!(["aarch64-unknown-linux-gnu"]),
        ),
    ];
    for (field, rule, value) in cases {
        let bad = signed_with(&builder(0), |s| parameters(s)[field] = value);
        refused_by(&bad, rule);
    }
}

#[test]
fn another_source_commit() {
    // In one of the two places: malformed. In both: another source.
    let other = "33".repeat(20);
    let bad = signed_with(&builder(0), |s| {
        parameters(s)["source"]["commit"] = json!(other);
    });
    refused_by(&bad, "attestation-malformed");
    let bad = signed_with(&builder(0), |s| {
        parameters(s)["source"]["commit"] = json!(other);
        let deps = &mut s["predicate"]["buildDefinition"]["resolvedDependencies"];
        deps[0]["digest"]["gitCommit"] = json!(other);
    });
    refused_by(&bad, "attestation-source");
}

#[test]
fn a_recipe_that_is_not_allowed() {
    let bad = signed_with(&builder(0), |s| {
        s["predicate"]["buildDefinition"]["buildType"] = json!("urn:instar:recipe:download-v1");
    });
    refused_by(&bad, "recipe-not-allowed");
}

#[test]
fn an_sbom_that_is_not_bound() {
    let bad = signed_with(&builder(0), |s| {
        s["subject"].as_array_mut().unwrap().remove(0);
    });
    refused_by(&bad, "sbom-not-attested");
    let bad = signed_with(&builder(0), |s| {
        s["subject"][0]["digest"]["sha256"] = json!("0".repeat(64));
    });
    refused_by(&bad, "sbom-not-attested");
}

#[test]
fn another_statement_or_predicate_type() {
    for field in ["_type", "predicateType"] {
        let bad = signed_with(&builder(0), |s| s[field] = json!("https://example.org"));
        refused_by(&bad, "attestation-malformed");
    }
}

#[test]
fn a_field_that_nobody_knows() {
    let bad = signed_with(&builder(0), |s| parameters(s)["extra"] = json!(1));
    refused_by(&bad, "attestation-malformed");
    let mut policy = serde_json::to_value(policy()).unwrap();
    policy["thresold"] = json!(1);
    let bytes = json::to_vec(&policy).unwrap();
    assert!(matches!(Policy::parse(&bytes), Err(PolicyError::Json(_))));
}

#[test]
fn base64_with_a_second_spelling() {
    let good = String::from_utf8(bundle(0)).unwrap();
    let value: Value = serde_json::from_str(&good).unwrap();
    let sig = value["dsseEnvelope"]["signatures"][0]["sig"]
        .as_str()
        .unwrap();
    assert!(sig.ends_with("=="), "64 bytes end with two padding signs");
    let stem = &sig[..sig.len() - 2];
    // The last digit holds four bits that stand for nothing.
    let last = stem.chars().last().unwrap();
    let next = char::from(last as u8 + 1);
    let loose = format!("{}{next}==", &stem[..stem.len() - 1]);
    for spelling in [
        stem.to_owned(),
        loose,
        format!("{sig}\n"),
        sig.replace('/', "_").replace('+', "-") + "=",
    ] {
        let mut bad = value.clone();
        bad["dsseEnvelope"]["signatures"][0]["sig"] = json!(spelling);
        refused_by(&json::to_vec(&bad).unwrap(), "attestation-malformed");
    }
}

#[test]
fn a_bundle_that_is_too_large_is_not_parsed() {
    let refusal = check(&vec![b'['; MAX_BUNDLE_BYTES + 1]).unwrap_err();
    assert!(refusal.to_string().contains("at most"), "{refusal}");
}

#[test]
fn a_policy_with_threshold_0() {
    let all: Vec<_> = (0..4).map(bundle).collect();
    for threshold in [0, 5] {
        let mut policy = policy();
        policy.threshold = threshold;
        assert!(policy.to_bytes().is_err());
        let verdict = verdict(&all, &policy);
        assert!(!verdict.ok);
        assert_eq!(verdict.refused_by().unwrap().rule, "policy-valid");
    }
}

#[test]
fn a_policy_that_names_a_builder_twice_or_mixes_purposes() {
    let mut twice = policy();
    twice.builders[1].key = twice.builders[0].key;
    assert!(matches!(twice.to_bytes(), Err(PolicyError::Twice(_))));
    let mut mixed = policy();
    mixed.other_keys[0].key = mixed.builders[0].key;
    assert!(matches!(mixed.to_bytes(), Err(PolicyError::Purpose(_))));
}

#[test]
fn an_unknown_builder_does_not_count() {
    let bundles = [bundle(0), bundle(1), bundle(9)];
    let verdict = verdict(&bundles, &policy());
    assert!(!verdict.ok);
    assert_eq!(
        rules(&verdict),
        ["unknown-builder", "builders-below-threshold"]
    );
}

#[test]
fn hiding_builders_does_not_raise_the_share() {
    // Two of two that answer are still two of four.
    let verdict = verdict(&[bundle(0), bundle(1)], &policy());
    let refused = verdict.refused_by().unwrap();
    assert_eq!(refused.rule, "builders-below-threshold");
    assert!(refused.detail.contains("2 of 4"), "{}", refused.detail);
}

#[test]
fn a_release_for_another_chain_or_source() {
    let all: Vec<_> = (0..4).map(bundle).collect();
    let mut other = policy();
    other.chain = ChainId::from_bytes([1; 32]);
    assert_eq!(
        verdict(&all, &other).refused_by().unwrap().rule,
        "release-chain"
    );
    let mut other = policy();
    other.source.commit = "33".repeat(20);
    assert_eq!(
        verdict(&all, &other).refused_by().unwrap().rule,
        "release-source"
    );
    let mut other = policy();
    other.round = Digest::of(b"another round");
    assert!(rules(&verdict(&all, &other)).contains(&"attestation-round"));
    let mut other = policy();
    other
        .targets
        .push("aarch64-unknown-linux-gnu".parse().unwrap());
    assert_eq!(
        verdict(&all, &other).refused_by().unwrap().rule,
        "release-targets"
    );
}

#[test]
fn a_commitment_copied_by_another_builder_does_not_open() {
    use instar_attest::reveal::{Nonce, commitment, target_digest};
    let digest = target_digest(&files());
    let nonce = Nonce::from_bytes([9; 32]);
    let target = TARGET.parse().unwrap();
    let of = |i, chain: &ChainId, round: &Digest| {
        commitment(&builder(i).public(), chain, &digest, &nonce, round, &target)
    };
    let mine = of(0, &chain(), &round());
    assert_ne!(mine, of(1, &chain(), &round()));
    assert_ne!(mine, of(0, &ChainId::from_bytes([1; 32]), &round()));
    assert_ne!(mine, of(0, &chain(), &Digest::of(b"x")));
}
