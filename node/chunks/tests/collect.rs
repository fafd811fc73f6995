//! Space: what is collected and what is not, and quotas.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use instar_chunks::import::{Content, ImportOptions, Imported};
use instar_chunks::{BlockError, BlockStore, Blocks, Cid, Limits, missing};

const NOW: Duration = Duration::ZERO;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

fn add(store: &BlockStore, seed: u64, pin: Option<&str>) -> Imported {
    let content = noise(3_000_000, seed);
    let mut stream = content.as_slice();
    let options = ImportOptions::default();
    store
        .import(Content::Stream(&mut stream), &options, pin)
        .unwrap()
}

fn whole(store: &BlockStore, root: &Cid) -> bool {
    missing(store, root, &Limits::default()).unwrap().is_empty()
}

#[test]
fn what_no_pin_reaches_goes_and_the_disk_gets_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let store = BlockStore::open(&path).unwrap();
    let kept = add(&store, 1, Some("kept"));
    let loose = add(&store, 2, None);
    let before = store.stat().unwrap();
    let spared = store.gc(Duration::from_secs(3600), NOW).unwrap();
    assert_eq!(
        (spared.removed_blocks, spared.freed_bytes),
        (0, 0),
        "they are young"
    );
    let report = store.gc(NOW, NOW).unwrap();
    assert!(report.removed_bytes >= 3_000_000 && report.freed_bytes >= 3_000_000);
    assert!(whole(&store, &kept.cid));
    assert!(!store.has(&loose.cid).unwrap());
    let after = store.stat().unwrap();
    assert!(after.stored_bytes < before.stored_bytes / 2 + 100_000);
    let on_disk: u64 = std::fs::read_dir(path.with_extension("segments"))
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, after.stored_bytes);
    drop(store);
    let store = BlockStore::open(&path).unwrap();
    assert_eq!(store.stat().unwrap().stored_bytes, after.stored_bytes);
    let checked = store.verify(&mut |_| ()).unwrap();
    assert_eq!(checked.blocks, after.blocks);
    assert!(checked.corrupt.is_empty() && checked.incomplete.is_empty());
    assert!(store.unpin("kept").unwrap());
    store.gc(NOW, NOW).unwrap();
    assert_eq!(store.stat().unwrap().stored_bytes, 0);
    let again = add(&store, 1, Some("kept"));
    assert!(again == kept && whole(&store, &kept.cid));
}

#[test]
fn nothing_is_collected_under_a_fetch() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlockStore::open(&dir.path().join("s.redb")).unwrap();
    let loose = add(&store, 3, None);
    let lease = store.lease();
    let busy = store.gc(NOW, NOW).unwrap_err();
    assert!(matches!(busy, BlockError::Busy { leases: 1 }), "{busy}");
    // Collections hammer on a store that is being added to; what is added is whole and pinned.
    drop(lease);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (store, done) = (&store, &done);
        scope.spawn(move || {
            for seed in 10..20 {
                let name = format!("{seed}");
                let added = add(store, seed, Some(&name));
                assert!(whole(store, &added.cid), "{seed}");
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            match store.gc(NOW, Duration::from_millis(5)) {
                Ok(_) | Err(BlockError::Busy { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    });
    store.gc(NOW, NOW).unwrap();
    assert!(!store.has(&loose.cid).unwrap());
    for (name, root) in store.pins().unwrap() {
        assert!(whole(&store, &root), "{name}");
    }
}

#[test]
fn a_quota_refuses_what_is_over_it_and_keeps_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlockStore::open(&dir.path().join("s.redb")).unwrap();
    store.set_quota(Some(4_000_000)).unwrap();
    let first = add(&store, 1, Some("first"));
    let content = noise(3_000_000, 2);
    let mut stream = content.as_slice();
    let options = ImportOptions::default();
    let over = store.import(Content::Stream(&mut stream), &options, None);
    let error = over.unwrap_err();
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        said.contains("quota is 4000000") && said.contains("instar store gc"),
        "{said}"
    );
    assert!(whole(&store, &first.cid));
    add(&store, 1, Some("again"));
    // What was left of the refused one is collected, and there is room again.
    store.unpin("first").unwrap();
    store.unpin("again").unwrap();
    store.gc(NOW, NOW).unwrap();
    add(&store, 2, Some("second"));
    store.set_quota(None).unwrap();
    add(&store, 3, Some("third"));
}

#[test]
fn damage_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let added = {
        let store = BlockStore::open(&path).unwrap();
        add(&store, 5, Some("mine"))
    };
    let segment = path.with_extension("segments").join("00000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let store = BlockStore::open(&path).unwrap();
    assert_eq!(store.verify(&mut |_| ()).unwrap().corrupt.len(), 1);
    // Putting it again mends it, and a block that is gone is named with its pin.
    add(&store, 5, None);
    // `import` trusts what it finds; a block that is put is compared.
    let bad = store.verify(&mut |_| ()).unwrap().corrupt;
    store.remove(&bad).unwrap();
    let found = store.verify(&mut |_| ()).unwrap();
    assert_eq!(found.incomplete, [("mine".to_owned(), bad[0])]);
    add(&store, 5, None);
    let found = store.verify(&mut |_| ()).unwrap();
    assert!(found.corrupt.is_empty() && found.incomplete.is_empty());
    assert!(whole(&store, &added.cid));
    std::fs::remove_dir_all(path.with_extension("segments")).unwrap();
    drop(store);
    let store = BlockStore::open(&path).unwrap();
    let error = store.get(&added.cid).unwrap_err();
    assert!(matches!(error, BlockError::Corrupt { .. }), "{error}");
}

#[test]
fn a_store_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let _store = BlockStore::open(&path).unwrap();
    let error = BlockStore::open(&path).unwrap_err();
    assert!(matches!(error, BlockError::InUse { .. }), "{error}");
}
