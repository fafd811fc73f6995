//! The block store: durable, checked on the way in and out, and a whole tree through it.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use instar_chunks::block::{RAW, cid_of};
use instar_chunks::{
    BlockError, BlockStore, Blocks, Cid, DagError, FileSummary, Limits, Profile, TreeLink,
    add_file, export, missing, read_file, tree_root,
};

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    // A small generator is enough: the content only has to be cut and to differ.
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

fn add(store: &BlockStore, content: &[u8]) -> FileSummary {
    let mut batch = store.batch();
    let summary = add_file(
        Profile::InstarCdcV1,
        &mut &content[..],
        &mut |cid, block| batch.put(cid, block),
    )
    .unwrap();
    batch.commit().unwrap();
    summary
}

fn add_tree(store: &BlockStore, files: &[(&str, Vec<u8>)]) -> Cid {
    let links: BTreeMap<String, TreeLink> = files
        .iter()
        .map(|(path, content)| {
            let FileSummary { cid, dag_size, .. } = add(store, content);
            ((*path).to_owned(), TreeLink { cid, dag_size })
        })
        .collect();
    let (root, blocks) = tree_root(&links).unwrap();
    store
        .put_all(blocks.iter().map(|(cid, bytes)| (cid, bytes.as_slice())))
        .unwrap();
    root
}

#[test]
fn a_tree_goes_in_and_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("release.json", b"{}".to_vec()),
        ("x86_64-unknown-linux-gnu/instar", bytes(9_000_000, 1)),
        ("x86_64-unknown-linux-gnu/empty", Vec::new()),
    ];
    let path = dir.path().join("blocks.redb");
    let root = {
        let store = BlockStore::open(&path).unwrap();
        let root = add_tree(&store, &files);
        store.pin("release", &root).unwrap();
        root
    };
    // Opened again, as after a restart.
    let store = BlockStore::open(&path).unwrap();
    assert_eq!(store.pins().unwrap(), [("release".to_owned(), root)]);
    assert!(
        missing(&store, &root, &Limits::default())
            .unwrap()
            .is_empty()
    );
    let out = dir.path().join("out");
    let written = export(&store, &root, None, &out, &Limits::default()).unwrap();
    assert_eq!(
        written,
        files.iter().map(|(_, c)| c.len() as u64).sum::<u64>()
    );
    for (path, content) in &files {
        assert!(fs::read(out.join(path)).unwrap() == *content, "{path}");
    }
    let one = dir.path().join("one");
    let inside = Some("x86_64-unknown-linux-gnu/instar");
    export(&store, &root, inside, &one, &Limits::default()).unwrap();
    assert!(fs::read(&one).unwrap() == files[1].1);
    let again = export(&store, &root, inside, &one, &Limits::default()).unwrap_err();
    assert!(matches!(again, DagError::Exists { .. }));
    let lost = export(
        &store,
        &root,
        Some("x/y"),
        &dir.path().join("y"),
        &Limits::default(),
    );
    assert!(matches!(lost.unwrap_err(), DagError::NotFound { .. }));
    assert!(store.unpin("release").unwrap());
    assert!(!store.unpin("release").unwrap());
}

#[test]
fn what_is_missing_is_named_level_by_level() {
    let dir = tempfile::tempdir().unwrap();
    let full = BlockStore::open(&dir.path().join("full")).unwrap();
    let root = add_tree(
        &full,
        &[("a/file", bytes(1_000_000, 2)), ("b", b"b".to_vec())],
    );
    let empty = BlockStore::open(&dir.path().join("empty")).unwrap();
    let mut rounds = 0;
    loop {
        let wanted = missing(&empty, &root, &Limits::default()).unwrap();
        if wanted.is_empty() {
            break;
        }
        for cid in wanted {
            empty.put(&cid, &full.get(&cid).unwrap().unwrap()).unwrap();
        }
        rounds += 1;
    }
    assert_eq!(rounds, 4, "root; a and b; file; its leaves");
    assert_eq!(empty.len().unwrap(), full.len().unwrap());
}

#[test]
fn a_second_version_shares_most_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlockStore::open(&dir.path().join("s")).unwrap();
    let mut content = bytes(4_000_000, 3);
    add(&store, &content);
    let before = store.len().unwrap();
    content.splice(2_000_000..2_000_000, *b"one small insertion");
    add(&store, &content);
    let fresh = store.len().unwrap() - before;
    assert!((1..=4).contains(&fresh), "{fresh} new blocks of {before}");
}

#[test]
fn pages_sizes_and_removal() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlockStore::open(&dir.path().join("s")).unwrap();
    let mut cids: Vec<Cid> = (0..50_u8)
        .map(|i| {
            let cid = cid_of(RAW, &[i; 10]);
            store.put(&cid, &[i; 10]).unwrap();
            cid
        })
        .collect();
    cids.sort_by_key(Cid::to_bytes);
    let mut paged: Vec<Cid> = Vec::new();
    loop {
        let page = store.list(paged.last(), 7).unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, cids);
    assert_eq!(store.size_of(&cids[3]).unwrap(), Some(10));
    assert_eq!(store.remove(&cids[..5]).unwrap(), 5);
    assert_eq!(store.remove(&cids[..5]).unwrap(), 0);
    assert!(!store.has(&cids[0]).unwrap());
    assert_eq!(store.len().unwrap(), 45);
}

#[test]
fn a_bit_that_flips_on_disk_is_noticed_and_can_be_mended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let content = bytes(60_000, 9);
    let cid = cid_of(RAW, &content);
    BlockStore::open(&path)
        .unwrap()
        .put(&cid, &content)
        .unwrap();
    let segment = path.with_extension("segments").join("00000001.seg");
    flip(&segment, &content[30_000..30_032]);
    let store = BlockStore::open(&path).unwrap();
    let error = store.get(&cid).unwrap_err();
    assert!(
        matches!(error, BlockError::Corrupt { cid: named } if named == cid),
        "{error}"
    );
    assert!(read_file(&store, &cid, 100_000).is_err());
    store.put(&cid, &content).unwrap();
    assert!(store.get(&cid).unwrap().unwrap() == content);
}

fn copy_store(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    let (from, to) = (
        from.with_extension("segments"),
        to.with_extension("segments"),
    );
    fs::create_dir(&to).unwrap();
    for segment in fs::read_dir(from).unwrap() {
        let segment = segment.unwrap();
        fs::copy(segment.path(), to.join(segment.file_name())).unwrap();
    }
}

fn flip(path: &Path, pattern: &[u8]) {
    let mut file = fs::read(path).unwrap();
    let at = file
        .windows(pattern.len())
        .position(|w| w == pattern)
        .unwrap();
    file[at] ^= 1;
    fs::write(path, file).unwrap();
}

#[test]
fn a_block_that_is_kept_later_is_there_at_once_and_survives_with_a_pin() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let cid = cid_of(RAW, b"later");
    let store = BlockStore::open(&path).unwrap();
    let lie = store.put_later(&cid, b"never");
    assert!(matches!(lie.unwrap_err(), BlockError::Mismatch { .. }));
    store.put_later(&cid, b"later").unwrap();
    assert!(store.has(&cid).unwrap());
    store.pin("p", &cid).unwrap();
    // A copy of the files as they are now is what a crash would leave.
    let copy = dir.path().join("copy");
    copy_store(&path, &copy);
    let after = BlockStore::open(&copy).unwrap();
    assert_eq!(after.get(&cid).unwrap().unwrap(), b"later");
    assert_eq!(after.pins().unwrap(), [("p".to_owned(), cid)]);
}

#[test]
fn a_batch_is_whole_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlockStore::open(&dir.path().join("s")).unwrap();
    let (good, bad) = (cid_of(RAW, b"good"), cid_of(RAW, b"bad"));
    let result = store.put_all([(&good, b"good".as_slice()), (&bad, b"liar".as_slice())]);
    assert!(matches!(result.unwrap_err(), BlockError::Mismatch { .. }));
    assert!(!store.has(&good).unwrap());
    let mut batch = store.batch();
    batch.put(&good, b"good").unwrap();
    drop(batch);
    assert!(
        !store.has(&good).unwrap(),
        "a batch that is not committed leaves nothing"
    );
}
