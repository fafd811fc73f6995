//! Snapshots: every chunk is proven on its own, a state made of them is the state, and no lie is stored.

#![allow(clippy::unwrap_used)] // a test may fail by panic, helpers too

use std::path::Path;

use instar_attest::Digest;
use instar_chain::view::{MAX_VALUE_BYTES, Writes};
use instar_ledger::Oid;
use instar_state::snapshot::{
    self, CHUNK_BYTES, ChunkError, MAX_CHUNK_BYTES, Prefix, Restore, RestoreError,
};
use instar_state::{Head, StateStore, StoreError};
use proptest::prelude::*;

const HEIGHT: u64 = 3;

fn block(height: u64) -> Oid {
    Oid::from_bytes(*Digest::of(&height.to_be_bytes()).as_bytes())
}

/// A store with some history whose newest state has `keys` keys of up to `size` bytes.
fn made(dir: &Path, keys: usize, size: usize) -> StateStore {
    let store = StateStore::open(&dir.join("state.redb")).unwrap();
    let write = |round: u64, step: usize| -> Writes {
        (0..keys)
            .step_by(step)
            .map(|i| {
                let byte = u8::try_from(i % 251).unwrap();
                let value = vec![byte ^ u8::try_from(round).unwrap(); i * 31 % (size + 1)];
                (format!("d/coin/balance/{i}"), Some(value))
            })
            .collect()
    };
    store.init(block(0), &write(0, 1)).unwrap();
    for height in 1..=HEIGHT {
        let mut writes = write(height, 7);
        // Something that was there and is not any more.
        writes.insert(format!("n/gone/{height}"), Some(b"x".to_vec()));
        writes.insert(format!("n/gone/{}", height - 1), None);
        store.commit(height, block(height), b"", &writes).unwrap();
    }
    store
}

fn cut(store: &StateStore, height: u64) -> Vec<(Prefix, Vec<u8>)> {
    let mut chunks = Vec::new();
    let view = store.view_aside(height).unwrap();
    snapshot::make(&view, &mut |prefix, bytes| {
        chunks.push((*prefix, bytes));
        Ok::<_, StoreError>(())
    })
    .unwrap();
    chunks
}

fn target(store: &StateStore, height: u64) -> Head {
    let (block, root) = store.height_row(height).unwrap().unwrap();
    Head {
        height,
        block,
        root,
        certificate: b"certificate".to_vec(),
    }
}

/// What both stores make of the same further blocks.
fn go_on_alike(a: &StateStore, b: &StateStore, keys: usize) {
    for height in HEIGHT + 1..HEIGHT + 6 {
        let writes: Writes = (0..keys + 3)
            .step_by(3)
            .map(|i| {
                let there = !(i as u64 + height).is_multiple_of(4);
                let key = format!("d/coin/balance/{i}");
                (key, there.then(|| height.to_be_bytes().to_vec()))
            })
            .collect();
        let root = a.commit(height, block(height), b"", &writes).unwrap();
        assert_eq!(b.commit(height, block(height), b"", &writes).unwrap(), root);
    }
    let all = |store: &StateStore| -> Vec<(String, Vec<u8>)> {
        store.view().unwrap().export().map(Result::unwrap).collect()
    };
    assert_eq!(all(a), all(b));
    b.view().unwrap().verify_all().unwrap();
    // What only the restored height needs can be pruned like anything else.
    while b.prune(HEIGHT + 5, 100).unwrap() > 0 {}
    b.view().unwrap().verify_all().unwrap();
    assert_eq!(all(a), all(b));
}

#[test]
fn a_state_of_chunks_is_the_state_and_goes_on_as_it_would() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = made(from.path(), 1500, 2000);
    let (chunks, target) = (cut(&store, HEIGHT), target(&store, HEIGHT));
    assert!(chunks.len() > 8, "only {} chunks", chunks.len());
    assert!(chunks.iter().all(|(_, c)| c.len() < CHUNK_BYTES + 2000));
    let path = to.path().join("state.redb");
    // The last first, and a new process for each: a chunk needs no other one.
    for (at, (prefix, bytes)) in chunks.iter().rev().enumerate() {
        let mut restore = Restore::open(&path, &target).unwrap();
        assert_eq!(restore.count(), at);
        assert!(!restore.has(prefix));
        assert_eq!(restore.add(bytes).unwrap().0, *prefix);
        assert_eq!(restore.add(bytes).unwrap().0, *prefix);
    }
    assert_eq!(StateStore::open(&path).unwrap().head().unwrap(), None);
    let restored = Restore::open(&path, &target).unwrap().finish().unwrap();
    assert_eq!(restored.head().unwrap(), Some(target));
    assert_eq!(restored.floor().unwrap(), HEIGHT);
    let before = restored.view_at(HEIGHT - 1).err().unwrap();
    assert!(matches!(before, StoreError::Pruned { .. }), "{before}");
    // Cut up again it makes the same bytes, whatever the history.
    assert_eq!(cut(&restored, HEIGHT), chunks);
    let proven = restored.view().unwrap().prove("n/gone/2").unwrap();
    assert_eq!(proven.value, None);
    go_on_alike(&store, &restored, 1500);
}

#[test]
fn commits_go_on_while_a_snapshot_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path(), 800, 1500);
    let expected = cut(&store, HEIGHT);
    let view = store.view_aside(HEIGHT).unwrap();
    let (mut chunks, mut height) = (Vec::new(), HEIGHT);
    snapshot::make(&view, &mut |prefix, bytes| {
        height += 1;
        let writes = Writes::from([("d/coin/balance/1".to_owned(), Some(vec![height as u8]))]);
        store.commit(height, block(height), b"", &writes)?;
        store.prune(height, 1000)?;
        chunks.push((*prefix, bytes));
        Ok::<_, StoreError>(())
    })
    .unwrap();
    assert!(chunks.len() > 2);
    assert_eq!(chunks, expected);
}

#[test]
fn states_of_no_key_one_key_and_the_largest_values_are_cut_and_made() {
    for (keys, size) in [(0, 0), (1, 5), (2, 0), (5, MAX_VALUE_BYTES)] {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = StateStore::open(&from.path().join("state.redb")).unwrap();
        let writes: Writes = (0..keys)
            .map(|i| (format!("k{i}"), Some(vec![i; size])))
            .collect();
        store.init(block(0), &writes).unwrap();
        let chunks = cut(&store, 0);
        let expected = if size == MAX_VALUE_BYTES { 5 } else { 1 };
        assert_eq!(chunks.len(), expected);
        let mut restore = Restore::open(&to.path().join("s"), &target(&store, 0)).unwrap();
        for (_, bytes) in &chunks {
            assert!(bytes.len() <= MAX_CHUNK_BYTES);
            restore.add(bytes).unwrap();
        }
        let restored = restore.finish().unwrap();
        let writes = Writes::from([("k9".to_owned(), Some(b"9".to_vec()))]);
        let root = store.commit(1, block(1), b"", &writes).unwrap();
        assert_eq!(restored.commit(1, block(1), b"", &writes).unwrap(), root);
        assert_eq!(
            restored.view().unwrap().verify_all().unwrap(),
            u64::from(keys) + 1
        );
    }
}

#[test]
fn a_missing_chunk_shows() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = made(from.path(), 800, 1500);
    let chunks = cut(&store, HEIGHT);
    let path = to.path().join("state.redb");
    let mut restore = Restore::open(&path, &target(&store, HEIGHT)).unwrap();
    for (_, bytes) in &chunks[1..] {
        restore.add(bytes).unwrap();
    }
    let error = restore.finish().err().unwrap();
    assert!(matches!(error, RestoreError::Incomplete { .. }), "{error}");
    // Nothing is lost by the try.
    let mut restore = Restore::open(&path, &target(&store, HEIGHT)).unwrap();
    restore.add(&chunks[0].1).unwrap();
    restore.finish().unwrap();
}

#[test]
fn every_flipped_byte_of_a_chunk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = made(dir.path(), 800, 1500);
    let root = store.height_row(HEIGHT).unwrap().unwrap().1;
    let (_, good) = cut(&store, HEIGHT).swap_remove(1);
    snapshot::check(&root, &good).unwrap();
    for at in (0..good.len()).filter(|at| *at < 400 || at % 97 == 0) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(snapshot::check(&root, &bad).is_err(), "byte {at}");
    }
    for end in (0..good.len()).filter(|end| *end < 400 || end % 97 == 0) {
        assert!(snapshot::check(&root, &good[..end]).is_err(), "{end} bytes");
    }
    let longer = [good.as_slice(), b"!"].concat();
    assert_eq!(snapshot::check(&root, &longer), Err(ChunkError::Length));
    let other = Digest::of(b"another state");
    let error = snapshot::check(&other, &good).unwrap_err();
    assert!(matches!(error, ChunkError::OtherRoot { .. }), "{error}");
    let huge = vec![0; MAX_CHUNK_BYTES + 1];
    assert_eq!(
        snapshot::check(&root, &huge),
        Err(ChunkError::TooLarge(MAX_CHUNK_BYTES + 1))
    );
}

/// A chunk by hand: `depth`, the bits, the hashes beside the way, and pairs in the order given.
fn by_hand(depth: u16, bits: &[u8], beside: &[[u8; 32]], pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = b"instar-chunk-v1\n".to_vec();
    out.extend(depth.to_be_bytes());
    out.extend(bits);
    out.extend(beside.iter().flatten());
    out.extend(u32::try_from(pairs.len()).unwrap().to_be_bytes());
    for (key, value) in pairs {
        out.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
        out.extend(key.as_bytes());
        out.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        out.extend(value.as_bytes());
    }
    out
}

#[test]
fn forged_chunks_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(&dir.path().join("state.redb")).unwrap();
    let keys = ["a", "b"];
    let writes: Writes = keys
        .iter()
        .map(|k| ((*k).to_owned(), Some(b"1".to_vec())))
        .collect();
    let root = store.init(block(0), &writes).unwrap();
    // The vector of docs/formats/snapshots.md.
    assert_eq!(
        root.to_hex(),
        "b86cfac32e748a183c5d514a24b4d7c1f5905aad628cbdab355e09ae26748714"
    );
    // In the order of their hashes: SHA-256("b") begins with 3e, SHA-256("a") with ca.
    let pairs = [("b", "1"), ("a", "1")];
    let whole = by_hand(0, &[], &[], &pairs);
    assert_eq!(cut(&store, 0), [(Prefix::ROOT, whole.clone())]);
    snapshot::check(&root, &whole).unwrap();

    let check = |bytes: &[u8]| snapshot::check(&root, bytes).unwrap_err();
    // Half of the state passed off as all of it, or as a subtree whose neighbour is empty.
    assert!(matches!(
        check(&by_hand(0, &[], &[], &pairs[..1])),
        ChunkError::OtherRoot { .. }
    ));
    let empty = *b"SPARSE_MERKLE_PLACEHOLDER_HASH__";
    let lone = by_hand(1, &[0], &[empty], &pairs[..1]);
    assert!(matches!(check(&lone), ChunkError::OtherRoot { .. }));
    let swapped = by_hand(0, &[], &[], &[pairs[1], pairs[0]]);
    assert_eq!(check(&swapped), ChunkError::Order("b".into()));
    let twice = by_hand(0, &[], &[], &[pairs[0], pairs[0]]);
    assert_eq!(check(&twice), ChunkError::Order("b".into()));
    let elsewhere = by_hand(1, &[0x80], &[[7; 32]], &pairs[..1]);
    assert_eq!(check(&elsewhere), ChunkError::Misplaced("b".into()));
    assert_eq!(check(&by_hand(1, &[0], &[[7; 32]], &[])), ChunkError::Empty);
    assert_eq!(
        check(&by_hand(1, &[0x40], &[[7; 32]], &pairs[..1])),
        ChunkError::Prefix(1)
    );
    assert_eq!(
        check(&by_hand(257, &[0; 33], &[], &[])),
        ChunkError::Prefix(257)
    );
    assert_eq!(
        check(&by_hand(0, &[], &[], &[("no key", "1")])),
        ChunkError::Key("no key".into())
    );
    assert_eq!(check(b"instar-chunk-v2\n"), ChunkError::Magic);
    // A count of four billion allocates nothing.
    let mut many = by_hand(0, &[], &[], &[]);
    let end = many.len();
    many[end - 4..].fill(0xff);
    assert_eq!(check(&many), ChunkError::Length);
    // The right way of cutting is not the only one that proves, but nothing is taken twice.
    let leaf = |key: &str| {
        jmt::storage::LeafNode::new(
            instar_state::keys::key_hash(key),
            instar_state::keys::value_hash(b"1"),
        )
        .hash::<sha2::Sha256>()
    };
    let left = by_hand(1, &[0], &[leaf("a")], &pairs[..1]);
    let right = by_hand(1, &[0x80], &[leaf("b")], &pairs[1..]);
    let to = tempfile::tempdir().unwrap();
    let mut restore = Restore::open(&to.path().join("s"), &target(&store, 0)).unwrap();
    restore.add(&left).unwrap();
    let error = restore.add(&whole).unwrap_err();
    assert!(matches!(error, RestoreError::Overlap { .. }), "{error}");
    restore.add(&right).unwrap();
    let restored = restore.finish().unwrap();
    assert_eq!(restored.view().unwrap().verify_all().unwrap(), 2);
}

#[test]
fn a_file_on_the_way_elsewhere_is_not_gone_on_with() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = made(from.path(), 20, 10);
    let path = to.path().join("s");
    let first = target(&store, HEIGHT);
    drop(Restore::open(&path, &first).unwrap());
    let other = Restore::open(&path, &target(&store, HEIGHT - 1))
        .err()
        .unwrap();
    assert!(matches!(other, RestoreError::OtherTarget { .. }), "{other}");
    let mut restore = Restore::open(&path, &first).unwrap();
    let (_, old) = &cut(&store, HEIGHT - 1)[0];
    let error = restore.add(old).unwrap_err();
    assert!(
        matches!(error, RestoreError::Chunk(ChunkError::OtherRoot { .. })),
        "{error}"
    );
    restore.add(&cut(&store, HEIGHT)[0].1).unwrap();
    restore.finish().unwrap();
    let whole = Restore::open(&path, &first).err().unwrap();
    assert!(matches!(whole, RestoreError::OtherTarget { .. }), "{whole}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_state_comes_through(keys in 1usize..400, size in 0usize..6000, shift in 0usize..50) {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = made(from.path(), keys, size);
        let mut chunks = cut(&store, HEIGHT);
        let turn = shift % chunks.len();
        chunks.rotate_left(turn);
        let target = target(&store, HEIGHT);
        let mut restore = Restore::open(&to.path().join("s"), &target).unwrap();
        for (prefix, bytes) in &chunks {
            let chunk = snapshot::check(&target.root, bytes).unwrap();
            prop_assert_eq!(chunk.prefix(), prefix);
            restore.add(bytes).unwrap();
        }
        let restored = restore.finish().unwrap();
        go_on_alike(&store, &restored, keys);
    }
}
