//! The golden vectors, for us and for a second implementation. `INSTAR_VECTORS=write` writes them anew (and then the
//! test fails, so that nobody writes them by mistake).

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::*;
use instar_attest::bundle::Bundle;
use instar_attest::dsse::pae;
use instar_attest::policy::{Input, Policy, verify};
use instar_attest::release::Release;
use instar_attest::reveal::{Nonce, commitment, target_digest};
use instar_attest::statement::{PAYLOAD_TYPE, Statement};
use instar_attest::{Digest, PublicKey, SecretKey, Signature, json};
use serde_json::{Value, json};

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn canonical_json() {
    // Written by hand: what is accepted and what is refused stands in the file, not in the code.
    let cases = read("json.json");
    for case in cases["accept"].as_array().unwrap() {
        let bytes = case.as_str().unwrap().as_bytes();
        let value: Value = json::from_slice(bytes, 1 << 20).unwrap();
        assert_eq!(json::to_vec(&value).unwrap(), bytes);
    }
    for case in cases["refuse"].as_array().unwrap() {
        let bytes = case["bytes"].as_str().unwrap().as_bytes();
        assert!(json::from_slice::<Value>(bytes, 1 << 20).is_err(), "{case}");
    }
}

#[test]
fn keys() {
    let key = |seed: [u8; 32]| {
        let key = SecretKey::from_seed(&seed);
        json!({
            "seed": hex::encode(seed),
            "public": key.public(),
            "spki_der": hex::encode(key.public().to_spki_der()),
            "key_id": key.public().key_id(),
        })
    };
    golden(
        "keys.json",
        &json!([key([0; 32]), key([0x10; 32]), key([0x20; 32])]),
    );
}

#[test]
fn strict_signatures() {
    for case in read("ed25519.json").as_array().unwrap() {
        let field = |name: &str| case[name].as_str().unwrap();
        let key: PublicKey = field("public").parse().unwrap();
        let message = hex::decode(field("message")).unwrap();
        let signature: Signature = field("signature").parse().unwrap();
        let accepted = key.verify(&message, &signature).is_ok();
        assert_eq!(accepted, case["accept"].as_bool().unwrap(), "{case}");
    }
}

#[test]
fn commitments() {
    let digest = target_digest(&files());
    let nonce = Nonce::from_bytes([0x0e; 32]);
    let target = TARGET.parse().unwrap();
    let key = builder(0).public();
    golden(
        "commitment.json",
        &json!({
            "files": files(),
            "target_digest": digest,
            "builder": key,
            "chain": chain(),
            "round": round(),
            "target": TARGET,
            "nonce": nonce,
            "commitment": commitment(&key, &chain(), &digest, &nonce, &round(), &target),
        }),
    );
}

#[test]
fn release_json() {
    let bytes = release().to_bytes().unwrap();
    assert_eq!(Release::parse(&bytes).unwrap(), release());
    golden(
        "release.json",
        &json!({
            "bytes": text(bytes.clone()),
            "sha256": Digest::of(&bytes),
            "links": release().links().into_iter().map(|(path, l)| json!({
                "path": path, "cid": l.cid, "dag_size": l.dag_size,
            })).collect::<Vec<_>>(),
        }),
    );
}

#[test]
fn bundles() {
    let statement = statement(0).to_bytes().unwrap();
    assert_eq!(Statement::parse(&statement).unwrap(), common::statement(0));
    let bytes = bundle(0);
    let parsed = Bundle::parse(&bytes).unwrap();
    assert_eq!(parsed.to_bytes().unwrap(), bytes);
    golden(
        "bundle.json",
        &json!({
            "builder": builder(0).public(),
            "statement": text(statement.clone()),
            "pae": hex::encode(pae(PAYLOAD_TYPE, &statement)),
            "signature": hex::encode(&parsed.envelope.signatures[0].sig.0),
            "bundle": text(bytes),
        }),
    );
}

#[test]
fn policies() {
    let release = release().to_bytes().unwrap();
    let mut cases = Vec::new();
    let mut lying = common::statement(1);
    lying.subject[2].digest.sha256 = Digest::of(b"something else");
    let lying = Bundle::sign(&builder(1), &lying).unwrap();
    let lying = lying.to_bytes().unwrap();
    for (name, bundles) in [
        ("three of four", vec![bundle(0), bundle(1), bundle(2)]),
        ("two of four", vec![bundle(0), bundle(1)]),
        ("one twice", vec![bundle(0), bundle(1), bundle(1)]),
        ("one of other bytes", vec![bundle(0), lying, bundle(2)]),
    ] {
        let input = Input {
            release: &release,
            bundles: &bundles,
        };
        let verdict = verify(&input, &policy());
        let rules: Vec<_> = verdict
            .checks
            .iter()
            .map(|c| json!({"rule": c.rule, "ok": c.ok, "decides": c.decides}))
            .collect();
        cases.push(json!({
            "name": name,
            "bundles": bundles.into_iter().map(text).collect::<Vec<_>>(),
            "ok": verdict.ok,
            "checks": rules,
        }));
    }
    let bytes = policy().to_bytes().unwrap();
    assert_eq!(Policy::parse(&bytes).unwrap(), policy());
    golden(
        "policy.json",
        &json!({"policy": text(bytes), "release": text(release.clone()), "cases": cases}),
    );
}
