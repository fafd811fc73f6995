//! Falsified files: a read never gives out what the tree does not have, and names the key.

#![allow(clippy::unwrap_used)] // a test may fail by panic, helpers too

use std::path::PathBuf;

use instar_attest::Digest;
use instar_chain::view::{StateError, StateView, Writes};
use instar_ledger::Oid;
use instar_state::keys::value_row;
use instar_state::tables::{META, NODES, VALUES};
use instar_state::{Computed, StateStore, StoreError};
use redb::{Database, ReadableTable};

const ALICE: &str = "d/coin/balance/alice";

fn block(height: u8) -> Oid {
    Oid::from_bytes([height; 32])
}

/// A store with a few blocks, closed.
fn made() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let store = StateStore::open(&path).unwrap();
    let balances: Writes = (0..200)
        .map(|i| (format!("d/coin/balance/{i}"), Some(b"5".to_vec())))
        .chain([(ALICE.to_owned(), Some(b"100".to_vec()))])
        .collect();
    store.init(block(0), &balances).unwrap();
    let nonce = Writes::from([("n/nonce/alice".to_owned(), Some(b"1".to_vec()))]);
    store.commit(1, block(1), b"", &nonce).unwrap();
    (dir, path)
}

fn tamper(path: &PathBuf, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(path).unwrap();
    let txn = database.begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

fn corrupt_key<T: std::fmt::Debug>(result: Result<T, StateError>) -> String {
    match result {
        Err(StateError::Corrupt { key, .. }) => key,
        other => panic!("expected a corrupt key, got {other:?}"),
    }
}

#[test]
fn a_falsified_balance_is_named() {
    let (_dir, path) = made();
    tamper(&path, |txn| {
        let mut values = txn.open_table(VALUES).unwrap();
        values
            .insert(value_row(ALICE, 0).as_slice(), b"\x01900".as_slice())
            .unwrap();
    });
    let store = StateStore::open(&path).unwrap();
    let view = store.view().unwrap();
    assert_eq!(corrupt_key(view.get(ALICE)), ALICE);
    assert_eq!(corrupt_key(view.range("d/coin/", 1000)), ALICE);
    assert_eq!(corrupt_key(view.verify_all()), ALICE);
    assert_eq!(view.get("d/coin/balance/7"), Ok(Some(b"5".to_vec())));
}

#[test]
fn a_newer_row_that_no_block_wrote_is_named() {
    let (_dir, path) = made();
    tamper(&path, |txn| {
        let mut values = txn.open_table(VALUES).unwrap();
        values
            .insert(value_row(ALICE, 1).as_slice(), b"\x01900".as_slice())
            .unwrap();
        values
            .insert(
                value_row("d/coin/balance/mallory", 1).as_slice(),
                b"\x011".as_slice(),
            )
            .unwrap();
    });
    let store = StateStore::open(&path).unwrap();
    let view = store.view().unwrap();
    assert_eq!(corrupt_key(view.get(ALICE)), ALICE);
    assert_eq!(
        corrupt_key(view.get("d/coin/balance/mallory")),
        "d/coin/balance/mallory"
    );
}

#[test]
fn a_removed_value_is_no_absent_value() {
    let (_dir, path) = made();
    tamper(&path, |txn| {
        txn.open_table(VALUES)
            .unwrap()
            .remove(value_row(ALICE, 0).as_slice())
            .unwrap();
    });
    let store = StateStore::open(&path).unwrap();
    let view = store.view().unwrap();
    assert_eq!(corrupt_key(view.get(ALICE)), ALICE);
    // A range can't see what is missing, but the walk over everything does.
    assert_eq!(corrupt_key(view.verify_all()), "");
    // What never was there stays absent.
    assert_eq!(view.get("d/coin/balance/nobody"), Ok(None));
}

#[test]
fn a_value_marked_deleted_is_named() {
    let (_dir, path) = made();
    tamper(&path, |txn| {
        let mut values = txn.open_table(VALUES).unwrap();
        values
            .insert(value_row(ALICE, 1).as_slice(), b"\0".as_slice())
            .unwrap();
    });
    let store = StateStore::open(&path).unwrap();
    assert_eq!(corrupt_key(store.view().unwrap().get(ALICE)), ALICE);
}

#[test]
fn every_flipped_node_is_found_before_anything_is_built_on_it() {
    let (_dir, path) = made();
    let rows: Vec<(Vec<u8>, Vec<u8>)> = {
        let database = Database::open(&path).unwrap();
        let txn = database.begin_write().unwrap();
        let nodes = txn.open_table(NODES).unwrap();
        nodes
            .iter()
            .unwrap()
            .map(|row| {
                row.map(|(k, v)| (k.value().to_vec(), v.value().to_vec()))
                    .unwrap()
            })
            .collect()
    };
    // Version 1's nodes: the root and the path that block 1 changed.
    let news: Vec<_> = rows.iter().filter(|(key, _)| key[7] == 1).collect();
    assert!(news.len() >= 2);
    let change = Writes::from([("n/nonce/alice".to_owned(), Some(b"2".to_vec()))]);
    for (key, value) in news {
        for at in (0..value.len()).step_by(5) {
            let mut bad = value.clone();
            bad[at] ^= 1;
            tamper(&path, |txn| {
                txn.open_table(NODES)
                    .unwrap()
                    .insert(key.as_slice(), bad.as_slice())
                    .unwrap();
            });
            let store = StateStore::open(&path).unwrap();
            let read = store.view().unwrap().get("n/nonce/alice");
            let built = store.root_of(1, &change);
            // A leaf's node is not needed to read, since its parent has its hash.
            if read != Ok(Some(b"1".to_vec())) {
                assert_eq!(corrupt_key(read), "n/nonce/alice");
            }
            assert!(
                matches!(built, Err(StoreError::State(StateError::Corrupt { .. }))),
                "{built:?}"
            );
        }
        tamper(&path, |txn| {
            txn.open_table(NODES)
                .unwrap()
                .insert(key.as_slice(), value.as_slice())
                .unwrap();
        });
    }
}

#[test]
fn a_file_of_another_format_is_refused() {
    let (_dir, path) = made();
    tamper(&path, |txn| {
        txn.open_table(META)
            .unwrap()
            .insert("format", b"instar-state-v9".as_slice())
            .unwrap();
    });
    let refused = StateStore::open(&path);
    assert!(matches!(refused, Err(StoreError::Format { found, .. }) if found == "instar-state-v9"));
}

#[test]
fn a_file_that_is_open_elsewhere_is_refused() {
    let (_dir, path) = made();
    let _first = StateStore::open(&path).unwrap();
    assert!(matches!(
        StateStore::open(&path),
        Err(StoreError::Database(_))
    ));
}

#[test]
fn what_was_computed_is_kept_and_one_day_forgotten() {
    let (_dir, path) = made();
    let computed = Computed {
        height: 2,
        root: Digest::of(b"root"),
        receipts: Digest::of(b"receipts"),
    };
    {
        let store = StateStore::open(&path).unwrap();
        store.record_computed(block(2), &computed).unwrap();
        store
            .record_computed(
                block(3),
                &Computed {
                    height: 400,
                    ..computed
                },
            )
            .unwrap();
    }
    let store = StateStore::open(&path).unwrap();
    assert_eq!(store.computed(block(2)).unwrap(), Some(computed));
    assert_eq!(store.computed(block(9)).unwrap(), None);
    for height in 2..=320u64 {
        store
            .commit(height, block((height % 251) as u8), b"", &Writes::new())
            .unwrap();
    }
    assert_eq!(store.computed(block(2)).unwrap(), None);
    assert!(store.computed(block(3)).unwrap().is_some());
}

#[test]
fn a_long_export_blocks_no_commit() {
    let (_dir, path) = made();
    let store = StateStore::open(&path).unwrap();
    let mut export = store.export(1).unwrap();
    export.next().unwrap().unwrap();
    for height in 2..=20 {
        let writes = Writes::from([
            (ALICE.to_owned(), Some(vec![height])),
            (format!("d/coin/balance/{height}"), None),
        ]);
        store
            .commit(height.into(), block(height), b"", &writes)
            .unwrap();
    }
    while store.prune(20, 1000).unwrap() > 0 {}
    let rest: Result<Vec<_>, _> = export.collect();
    let rest = rest.unwrap();
    assert_eq!(rest.len(), 201);
    assert!(rest.contains(&(ALICE.to_owned(), b"100".to_vec())));
    assert!(matches!(
        store.export(1),
        Err(StoreError::Pruned {
            height: 1,
            floor: 20
        })
    ));
}
