//! Proofs in ICS-23 form: each key and each absence can be proven, nothing else can, and the vectors stay what they are.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use instar_attest::Digest;
use instar_chain::view::Writes;
use instar_ledger::Oid;
use instar_state::proof::{MAX_PROOF_BYTES, check};
use instar_state::{ProofError, Proven, StateStore, StoreError, View};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

fn store_of(pairs: &BTreeMap<String, Vec<u8>>) -> (tempfile::TempDir, StateStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(&dir.path().join("state.redb")).unwrap();
    let writes: Writes = pairs
        .iter()
        .map(|(k, v)| (k.clone(), Some(v.clone())))
        .collect();
    store.init(Oid::from_bytes([1; 32]), &writes).unwrap();
    (dir, store)
}

/// A state that looks like a chain's, always the same.
fn example() -> BTreeMap<String, Vec<u8>> {
    (0..40u8)
        .map(|i| {
            let author = hex(&Sha256::digest([i]));
            (
                format!("d/coin/balance/{author}"),
                format!("{}", u32::from(i) * 7).into(),
            )
        })
        .chain([
            ("n/head".to_owned(), b"{\"height\":0}".to_vec()),
            ("n/policy".to_owned(), vec![b'p'; 3000]),
        ])
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn holds(view: &View, key: &str, proven: &Proven) {
    check(&view.root(), key, proven.value.as_deref(), &proven.proof).unwrap();
}

#[test]
fn every_key_and_many_absences() {
    let pairs = example();
    let (_dir, store) = store_of(&pairs);
    let view = store.view().unwrap();
    for (key, value) in &pairs {
        let proven = view.prove(key).unwrap();
        assert_eq!(proven.value.as_ref(), Some(value));
        holds(&view, key, &proven);
    }
    for i in 0..500 {
        let key = format!("d/coin/balance/nobody-{i}");
        let proven = view.prove(&key).unwrap();
        assert_eq!(proven.value, None);
        holds(&view, &key, &proven);
    }
}

#[test]
fn what_a_proof_does_not_prove() {
    let (_dir, store) = store_of(&example());
    let view = store.view().unwrap();
    let root = view.root();
    let there = view.prove("n/head").unwrap();
    let absent = view.prove("n/tail").unwrap();
    let value = there.value.as_deref();
    let does_not_hold = |result| matches!(result, Err(ProofError::DoesNotHold { .. }));
    assert!(
        does_not_hold(check(
            &root,
            "n/head",
            Some(b"{\"height\":1}"),
            &there.proof
        )),
        "another value"
    );
    assert!(
        does_not_hold(check(&root, "n/policy", value, &there.proof)),
        "another key"
    );
    assert!(
        does_not_hold(check(&Digest::of(b"r"), "n/head", value, &there.proof)),
        "another root"
    );
    assert!(
        does_not_hold(check(&root, "n/head", None, &absent.proof)),
        "an absence of a key that is there"
    );
    let other_kind = |result| matches!(result, Err(ProofError::OtherKind { .. }));
    assert!(other_kind(check(&root, "n/head", None, &there.proof)));
    assert!(other_kind(check(
        &root,
        "n/tail",
        Some(b"1"),
        &absent.proof
    )));
    assert!(matches!(
        check(&root, "no key", None, &absent.proof),
        Err(ProofError::Key(_))
    ));
    let long = vec![0; MAX_PROOF_BYTES + 1];
    assert_eq!(
        check(&root, "n/head", value, &long),
        Err(ProofError::TooLarge(long.len()))
    );
    // A field that nobody knows, behind everything else: protobuf would drop it.
    let padded = [there.proof.as_slice(), &[0xfa, 0x7f, 1, 0]].concat();
    assert_eq!(
        check(&root, "n/head", value, &padded),
        Err(ProofError::Encoding)
    );
    for proof in [&there.proof, &absent.proof] {
        let (key, value) = match proof == &there.proof {
            true => ("n/head", value),
            false => ("n/tail", None),
        };
        for at in 0..proof.len() {
            let mut bad = proof.clone();
            bad[at] ^= 1;
            assert!(
                check(&root, key, value, &bad).is_err(),
                "byte {at} does not matter"
            );
            assert!(
                check(&root, key, value, &proof[..at]).is_err(),
                "cut at {at}"
            );
        }
    }
}

#[test]
fn a_neighbour_that_is_not_the_nearest_proves_no_absence() {
    use ics23::commitment_proof::Proof;
    use prost::Message as _;
    let (_dir, store) = store_of(&example());
    let view = store.view().unwrap();
    let decode = |p: &Proven| ics23::CommitmentProof::decode(p.proof.as_slice()).unwrap();
    // The key lies between a and b; then a and c, which are true leaves, leave out b.
    let mut keys: Vec<String> = example().into_keys().collect();
    keys.sort_by_key(|k| Sha256::digest(k.as_bytes()));
    let of = |key: &str| match decode(&view.prove(key).unwrap()).proof.unwrap() {
        Proof::Exist(proof) => proof,
        _ => panic!("{key} is there"),
    };
    for skipped in 1..keys.len() - 1 {
        let forged = ics23::CommitmentProof {
            proof: Some(Proof::Nonexist(ics23::NonExistenceProof {
                key: keys[skipped].clone().into_bytes(),
                left: Some(of(&keys[skipped - 1])),
                right: Some(of(&keys[skipped + 1])),
            })),
        };
        let bytes = forged.encode_to_vec();
        assert!(check(&view.root(), &keys[skipped], None, &bytes).is_err());
    }
}

#[test]
fn an_empty_value_has_no_proof_in_this_form() {
    let mut pairs = example();
    pairs.insert("d/coin/empty".into(), Vec::new());
    let (_dir, store) = store_of(&pairs);
    let error = store.view().unwrap().prove("d/coin/empty").unwrap_err();
    assert!(matches!(
        error,
        StoreError::Proof(ProofError::EmptyValue(_))
    ));
}

#[test]
fn old_heights_and_deleted_keys() {
    let (_dir, store) = store_of(&example());
    let set = |key: &str, value: Option<&str>| {
        Writes::from([(key.to_owned(), value.map(|v| v.as_bytes().to_vec()))])
    };
    let commit = |height: u64, writes: &Writes| {
        let block = Oid::from_bytes([height as u8 + 1; 32]);
        store.commit(height, block, b"", writes).unwrap();
    };
    commit(1, &set("n/head", Some("1")));
    commit(2, &set("n/head", None));
    commit(3, &set("n/other", Some("3")));
    let value_at = |height| {
        let view = store.view_at(height).unwrap();
        let proven = view.prove("n/head").unwrap();
        holds(&view, "n/head", &proven);
        proven.value
    };
    assert_eq!(value_at(0), Some(b"{\"height\":0}".to_vec()));
    assert_eq!(value_at(1), Some(b"1".to_vec()));
    assert_eq!(value_at(3), None);
    // Its neighbours' keys are still known when what it was is pruned away, and its own comes back.
    for height in 4..8 {
        commit(height, &Writes::new());
    }
    while store.prune(7, 1000).unwrap() > 0 {}
    assert_eq!(value_at(7), None);
    commit(8, &set("n/head", Some("8")));
    assert_eq!(value_at(8), Some(b"8".to_vec()));
    for (key, _) in example().iter().filter(|(k, _)| *k != "n/head") {
        let view = store.view().unwrap();
        holds(&view, key, &view.prove(key).unwrap());
    }
}

#[test]
fn a_store_from_before_the_table_of_keys() {
    let (dir, store) = store_of(&example());
    drop(store);
    let path = dir.path().join("state.redb");
    let database = redb::Database::open(&path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.delete_table(instar_state::tables::KEYS).unwrap();
    txn.commit().unwrap();
    drop(database);
    let store = StateStore::open(&path).unwrap();
    let view = store.view().unwrap();
    let proven = view.prove("n/tail").unwrap();
    holds(&view, "n/tail", &proven);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_states(pairs in proptest::collection::btree_map("[a-z]{1,6}", proptest::collection::vec(1u8.., 1..20), 1..60), asked in proptest::collection::vec("[a-z]{1,6}", 20)) {
        let (_dir, store) = store_of(&pairs);
        let view = store.view().unwrap();
        for key in asked.iter().chain(pairs.keys()) {
            let proven = view.prove(key).unwrap();
            prop_assert_eq!(proven.value.as_ref(), pairs.get(key));
            prop_assert_eq!(check(&view.root(), key, proven.value.as_deref(), &proven.proof), Ok(()));
        }
    }
}

/// What the vectors are made of: existing keys, and absent ones at both ends and in the middle of the tree.
fn vectors() -> Value {
    let pairs = example();
    let (_dir, store) = store_of(&pairs);
    let view = store.view().unwrap();
    let hash = |key: &String| Sha256::digest(key.as_bytes());
    let mut absent: Vec<String> = (0..2000).map(|i| format!("n/absent/{i}")).collect();
    absent.sort_by_key(hash);
    let keys = [
        "n/head".to_owned(),
        "n/policy".to_owned(),
        pairs.keys().next().unwrap().clone(),
        absent[0].clone(),
        absent[absent.len() / 2].clone(),
        absent[absent.len() - 1].clone(),
    ];
    let cases: Vec<Value> = keys
        .iter()
        .map(|key| {
            let proven = view.prove(key).unwrap();
            json!({
                "key": key,
                "proof": BASE64_STANDARD.encode(&proven.proof),
                "value": proven.value.map(|v| BASE64_STANDARD.encode(v)),
            })
        })
        .collect();
    json!({"cases": cases, "root": view.root()})
}

#[test]
fn the_vectors_are_what_they_were() {
    let made = serde_json::to_string_pretty(&vectors()).unwrap() + "\n";
    let kept = include_str!("vectors/proofs.json");
    if made != kept {
        let beside = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("proofs.json");
        std::fs::write(&beside, made).unwrap();
        panic!(
            "proofs are encoded in another way now, see {}",
            beside.display()
        );
    }
}
