//! Roots: against frozen vectors, and against a tree written from the description in `docs/formats/state.md` alone.

#![allow(clippy::unwrap_used)] // a test may fail by panic, helpers too

use std::collections::BTreeMap;

use instar_attest::Digest;
use instar_chain::view::{StateError, StateView, Writes};
use instar_ledger::Oid;
use instar_state::{StateStore, StoreError, root_of_snapshot};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

fn sha(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// The root by the book: a binary tree over the bits of key hashes, in which a lone leaf stands for its subtree.
fn reference_root(state: &BTreeMap<String, Vec<u8>>) -> Digest {
    fn subtree(leaves: &[([u8; 32], [u8; 32])], depth: usize) -> [u8; 32] {
        match leaves {
            [] => *b"SPARSE_MERKLE_PLACEHOLDER_HASH__",
            [(key, value)] => sha(&[b"JMT::LeafNode", key, value]),
            _ => {
                let bit = |key: &[u8; 32]| key[depth / 8] >> (7 - depth % 8) & 1;
                let middle = leaves.partition_point(|(key, _)| bit(key) == 0);
                let left = subtree(&leaves[..middle], depth + 1);
                let right = subtree(&leaves[middle..], depth + 1);
                sha(&[b"JMT::IntrnalNode", &left, &right])
            }
        }
    }
    let mut leaves: Vec<_> = state
        .iter()
        .map(|(k, v)| (sha(&[k.as_bytes()]), sha(&[v])))
        .collect();
    leaves.sort();
    Digest::from_bytes(subtree(&leaves, 0))
}

fn writes(pairs: &[(&str, Option<&str>)]) -> Writes {
    let owned = |v: &str| v.as_bytes().to_vec();
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.map(owned)))
        .collect()
}

fn block(height: u64) -> Oid {
    Oid::from_bytes(sha(&[b"block", &height.to_be_bytes()]))
}

fn temporary() -> (tempfile::TempDir, StateStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(&dir.path().join("state.redb")).unwrap();
    (dir, store)
}

#[test]
fn roots_are_frozen() {
    let (_dir, store) = temporary();
    let mut roots = vec![store.init(block(0), &writes(&[])).unwrap()];
    for (height, block_writes) in (1..).zip([
        writes(&[("n/a", Some("1"))]),
        writes(&[("n/a", Some("2")), ("n/b", Some(""))]),
        writes(&[
            ("d/coin/balance/alice", Some("100")),
            ("d/coin/balance/bob", Some("0")),
        ]),
        writes(&[]),
        writes(&[("n/a", None), ("n/never", None)]),
    ]) {
        roots.push(
            store
                .commit(height, block(height), b"", &block_writes)
                .unwrap(),
        );
    }
    let expected = [
        "5350415253455f4d45524b4c455f504c414345484f4c4445525f484153485f5f",
        "26f133a1e9a7855225cdc088cf1d1911f17a27ade0e174ec064814c97449e28a",
        "e18056995d71f7bc0d24ba8a00db05531c86a828e0e31db3b10e8464527ebb1c",
        "2e9cc97c0be566d61a793ea1916c7650050164926249a5be7508898e3771746b",
        "2e9cc97c0be566d61a793ea1916c7650050164926249a5be7508898e3771746b",
        "17f351052ac22d299123b922978f8506241eef503398cf8e7f3eb979cc890f84",
    ];
    let roots: Vec<String> = roots.iter().map(Digest::to_hex).collect();
    assert_eq!(roots, expected);
}

#[test]
fn blocks_without_writes_resolve() {
    let (_dir, store) = temporary();
    let genesis = store.init(block(0), &writes(&[])).unwrap();
    for height in 1..=3 {
        assert_eq!(
            store
                .commit(height, block(height), b"", &writes(&[]))
                .unwrap(),
            genesis
        );
        assert_eq!(store.view().unwrap().get("n/a"), Ok(None));
    }
    let root = store
        .commit(4, block(4), b"", &writes(&[("n/a", Some("1"))]))
        .unwrap();
    for height in 5..=8 {
        assert_eq!(
            store
                .commit(height, block(height), b"", &writes(&[("n/none", None)]))
                .unwrap(),
            root
        );
        assert_eq!(
            store.view_at(height).unwrap().get("n/a"),
            Ok(Some(b"1".to_vec()))
        );
    }
    assert_eq!(store.view_at(3).unwrap().get("n/a"), Ok(None));
    assert_eq!(store.view().unwrap().verify_all(), Ok(1));
}

#[test]
fn commits_follow_each_other_and_may_be_repeated() {
    let (_dir, store) = temporary();
    assert!(matches!(store.view(), Err(StoreError::Uninitialised)));
    let genesis = writes(&[("n/a", Some("1"))]);
    store.init(block(0), &genesis).unwrap();
    store.init(block(0), &genesis).unwrap();
    assert!(matches!(
        store.init(block(9), &genesis),
        Err(StoreError::OtherGenesis)
    ));
    assert!(matches!(
        store.init(block(0), &writes(&[])),
        Err(StoreError::OtherGenesis)
    ));

    let change = writes(&[("n/a", Some("2"))]);
    let tried = store.root_of(0, &change).unwrap();
    let root = store.commit(1, block(1), b"certificate", &change).unwrap();
    assert_eq!(tried, root);
    assert_eq!(
        store.commit(1, block(1), b"certificate", &change).unwrap(),
        root
    );
    for (height, id) in [(1, block(7)), (3, block(3)), (0, block(0))] {
        let refused = store.commit(height, id, b"", &change);
        assert!(
            matches!(refused, Err(StoreError::NotNext { head: 1, .. })),
            "{height}"
        );
    }
    let head = store.head().unwrap().unwrap();
    assert_eq!((head.height, head.block, head.root), (1, block(1), root));
    assert_eq!(head.certificate, b"certificate");
    assert!(matches!(
        store.view_at(2),
        Err(StoreError::Future { height: 2, head: 1 })
    ));
    assert!(matches!(
        store.root_of(1, &writes(&[("no\nkey", None)])),
        Err(StoreError::Key(_))
    ));
}

/// A few keys that meet often, some of them prefixes of others.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        "n/[ab]{1,3}",
        "d/coin/[a-c]{0,2}x",
        (0..40u8).prop_map(|i| format!("d/many/{i}")),
    ]
}

fn block_writes() -> impl Strategy<Value = Writes> {
    proptest::collection::btree_map(
        key(),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..4)),
        0..12,
    )
}

fn applied(state: &mut BTreeMap<String, Vec<u8>>, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
}

fn pairs(
    state: &BTreeMap<String, Vec<u8>>,
) -> impl Iterator<Item = Result<(String, Vec<u8>), StateError>> {
    state.iter().map(|(k, v)| Ok((k.clone(), v.clone())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_history_has_the_root_of_its_content(
        blocks in proptest::collection::vec(block_writes(), 1..10),
        fork_at in 0..10usize,
        prune_to in 0..10u64,
    ) {
        let (_dir, store) = temporary();
        let mut states = Vec::new();
        let mut state = BTreeMap::new();
        for (height, writes) in (0u64..).zip(&blocks) {
            let root = match height {
                0 => store.init(block(0), writes).unwrap(),
                _ => {
                    let tried = store.root_of(height - 1, writes).unwrap();
                    let root = store.commit(height, block(height), b"", writes).unwrap();
                    prop_assert_eq!(tried, root);
                    root
                }
            };
            applied(&mut state, writes);
            prop_assert_eq!(root, reference_root(&state));
            prop_assert_eq!(root, root_of_snapshot(pairs(&state)).unwrap());
            states.push(state.clone());
        }

        // A fork of any height repeats the blocks behind it with the same roots and contents.
        let fork_at = fork_at.min(blocks.len() - 1);
        let mut fork = store.fork(fork_at as u64).unwrap();
        let mut memory = instar_state::Fork::from_snapshot(store.export(fork_at as u64).unwrap()).unwrap();
        for (writes, state) in blocks.iter().zip(&states).skip(fork_at + 1) {
            prop_assert_eq!(fork.apply(writes).unwrap(), reference_root(state));
            prop_assert_eq!(memory.apply(writes).unwrap(), reference_root(state));
            let all: BTreeMap<_, _> = fork.range("", 1000).unwrap().into_iter().collect();
            prop_assert_eq!(&all, state);
            prop_assert_eq!(fork.range("d/many/1", 3).unwrap(), memory.range("d/many/1", 3).unwrap());
        }

        // What is kept after pruning is whole, what is not says so.
        while store.prune(prune_to, 3).unwrap() > 0 {}
        for (height, state) in (0u64..).zip(&states) {
            if height < prune_to.min(blocks.len() as u64 - 1) {
                let pruned = matches!(store.view_at(height), Err(StoreError::Pruned { .. }));
                prop_assert!(pruned);
                continue;
            }
            let view = store.view_at(height).unwrap();
            prop_assert_eq!(view.verify_all().unwrap(), state.len() as u64);
            for key in ["n/a", "n/ab", "d/coin/x", "d/many/7"] {
                prop_assert_eq!(view.get(key).unwrap(), state.get(key).cloned());
            }
            for (prefix, limit) in [("", 1000), ("n/a", 2), ("d/many/1", 5), ("d/coin/", 0), ("zz", 9)] {
                let expected: Vec<_> = state
                    .iter()
                    .filter(|(k, _)| k.starts_with(prefix))
                    .take(limit)
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect();
                prop_assert_eq!(view.range(prefix, limit).unwrap(), expected);
            }
            let exported: Result<BTreeMap<_, _>, _> = view.export().collect();
            prop_assert_eq!(&exported.unwrap(), state);
        }
    }
}
