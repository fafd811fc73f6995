//! What bad input gets: a named error, before memory or disk suffers.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use instar_chunks::block::{DAG_PB, IDENTITY, RAW, cid_of, verify};
use instar_chunks::node::{DirLink, FileLink, encode_directory, encode_file};
use instar_chunks::tree::TreeError;
use instar_chunks::{
    BlockError, Blocks, Cid, DagError, Limits, MemoryBlocks, TreeLink, export, missing, read_file,
    tree_root,
};

fn keep(blocks: &MemoryBlocks, (cid, bytes): (Cid, Vec<u8>)) -> Cid {
    blocks.put(&cid, &bytes).unwrap();
    cid
}

fn leaf(blocks: &MemoryBlocks, bytes: &[u8]) -> Cid {
    keep(blocks, (cid_of(RAW, bytes), bytes.to_vec()))
}

fn entry(name: &str, cid: Cid) -> DirLink {
    DirLink {
        name: name.into(),
        cid,
        dag_size: 1,
    }
}

fn refused(blocks: &MemoryBlocks, root: &Cid) -> String {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let walked = missing(blocks, root, &Limits::default());
    let written = export(blocks, root, None, &out, &Limits::default()).unwrap_err();
    assert!(walked.is_err(), "the walk refuses it too");
    assert!(!out.exists());
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left"
    );
    written.to_string()
}

#[test]
fn a_name_that_leads_outside() {
    for name in ["..", ".", "", "a/b", "/etc", "a\0b"] {
        let blocks = MemoryBlocks::default();
        let root = keep(
            &blocks,
            encode_directory(&[entry(name, leaf(&blocks, b"x"))]),
        );
        assert!(refused(&blocks, &root).contains("a name"), "{name:?}");
        let files = BTreeMap::from([(
            format!("x/{name}/y"),
            TreeLink {
                cid: root,
                dag_size: 1,
            },
        )]);
        if !matches!(name, "a/b") {
            let error = tree_root(&files).unwrap_err();
            assert!(matches!(error, TreeError::Path { .. }), "{name:?}");
        }
    }
}

#[test]
fn the_same_name_twice_or_out_of_order() {
    let blocks = MemoryBlocks::default();
    let x = leaf(&blocks, b"x");
    let twice = keep(&blocks, encode_directory(&[entry("a", x), entry("a", x)]));
    assert!(refused(&blocks, &twice).contains("ascending"));
    // The encoder sorts, so an unsorted node is put together from two halves.
    let (_, a) = encode_directory(&[entry("a", x)]);
    let (_, b) = encode_directory(&[entry("b", x)]);
    let bytes = [&b[..b.len() - 4], &a[..]].concat();
    let unsorted = keep(&blocks, (cid_of(DAG_PB, &bytes), bytes));
    assert!(refused(&blocks, &unsorted).contains("ascending"));
}

#[test]
fn another_encoding_of_the_same_node() {
    let blocks = MemoryBlocks::default();
    let (_, bytes) = encode_directory(&[]);
    // The type field written twice means the same to a protobuf reader.
    for bytes in [
        vec![0x0a, 0x04, 0x08, 0x01, 0x08, 0x01],
        // A field that dag-pb doesn't know.
        [&bytes[..], &[0x18, 0x00]].concat(),
    ] {
        let cid = keep(&blocks, (cid_of(DAG_PB, &bytes), bytes));
        assert!(refused(&blocks, &cid).contains("refused"));
    }
}

#[test]
fn a_size_that_the_children_do_not_have() {
    let blocks = MemoryBlocks::default();
    let cid = leaf(&blocks, b"four");
    let link = |size| FileLink {
        cid,
        size,
        dag_size: 4,
    };
    let root = keep(&blocks, encode_file(&[link(4), link(5)]));
    let error = read_file(&blocks, &root, 100).unwrap_err();
    assert!(matches!(error, DagError::Malformed { .. }), "{error}");
}

#[test]
fn a_small_dag_that_unfolds_without_end() {
    // Twelve nodes of 174 links each are 174^12 leaves.
    let blocks = MemoryBlocks::default();
    let mut link = FileLink {
        cid: leaf(&blocks, b""),
        size: 0,
        dag_size: 0,
    };
    for _ in 0..12 {
        link.cid = keep(&blocks, encode_file(&vec![link; 174]));
    }
    let limits = Limits {
        max_blocks: 10_000,
        ..Limits::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let error = export(&blocks, &link.cid, None, &dir.path().join("out"), &limits).unwrap_err();
    assert!(
        matches!(
            error,
            DagError::Limit {
                what: "links followed",
                ..
            }
        ),
        "{error}"
    );
    // A walk sees each block once, so that this one is small for it, as it is.
    assert!(missing(&blocks, &link.cid, &limits).unwrap().is_empty());
}

#[test]
fn a_chain_that_is_too_deep() {
    let blocks = MemoryBlocks::default();
    let mut cid = leaf(&blocks, b"x");
    for _ in 0..200 {
        cid = keep(&blocks, encode_directory(&[entry("d", cid)]));
    }
    assert!(refused(&blocks, &cid).contains("depth"));
}

#[test]
fn a_claim_of_ten_gibibytes() {
    let blocks = MemoryBlocks::default();
    let cid = leaf(&blocks, b"x");
    let link = FileLink {
        cid,
        size: 10 << 30,
        dag_size: 1,
    };
    let root = keep(&blocks, encode_file(&[link, link]));
    let error = read_file(&blocks, &root, 1 << 20).unwrap_err();
    assert!(
        matches!(
            error,
            DagError::Limit {
                what: "content bytes",
                ..
            }
        ),
        "{error}"
    );
    let error = read_file(&blocks, &root, u64::MAX).unwrap_err();
    assert!(matches!(error, DagError::Malformed { .. }), "{error}");
}

#[test]
fn too_many_bytes_blocks_or_links() {
    let blocks = MemoryBlocks::default();
    let leaves: Vec<DirLink> = (0..100)
        .map(|i| entry(&format!("{i:03}"), leaf(&blocks, &[i; 1000])))
        .collect();
    let root = keep(&blocks, encode_directory(&leaves));
    let over = |limits: Limits| missing(&blocks, &root, &limits).unwrap_err().to_string();
    let all = Limits::default();
    assert!(
        over(Limits {
            max_total_bytes: 50_000,
            ..all
        })
        .contains("bytes")
    );
    assert!(
        over(Limits {
            max_blocks: 100,
            ..all
        })
        .contains("blocks")
    );
    assert!(
        over(Limits {
            max_links_per_node: 99,
            ..all
        })
        .contains("links in a node")
    );
    assert!(
        missing(
            &blocks,
            &root,
            &Limits {
                max_blocks: 101,
                ..all
            }
        )
        .unwrap()
        .is_empty()
    );
}

#[test]
fn bytes_that_are_not_the_block() {
    let blocks = MemoryBlocks::default();
    let cid = cid_of(RAW, b"right");
    let error = blocks.put(&cid, b"wrong").unwrap_err();
    assert!(matches!(error, BlockError::Mismatch { .. }));
    assert!(!blocks.has(&cid).unwrap());
    let large = vec![0; 2 * 1024 * 1024 + 1];
    let error = blocks.put(&cid_of(RAW, &large), &large).unwrap_err();
    assert!(matches!(error, BlockError::TooLarge { .. }));
}

#[test]
fn codecs_and_hashes_that_nobody_asked_for() {
    use cid::multihash::Multihash;
    let blake: Multihash<64> = Multihash::wrap(0xb220, &[7; 32]).unwrap();
    let short: Multihash<64> = Multihash::wrap(0x12, &[7; 20]).unwrap();
    for cid in [
        Cid::new_v1(RAW, blake),
        Cid::new_v1(RAW, short),
        Cid::new_v1(0x71, *cid_of(RAW, b"x").hash()),
    ] {
        assert!(matches!(
            verify(&cid, b"x"),
            Err(BlockError::Unsupported { .. })
        ));
        assert!(missing(&MemoryBlocks::default(), &cid, &Limits::default()).is_err());
    }
}

#[test]
fn identity_blocks_carry_themselves_and_obey_the_bounds() {
    use cid::multihash::Multihash;
    let blocks = MemoryBlocks::default();
    let inline = Cid::new_v1(RAW, Multihash::wrap(IDENTITY, b"inline").unwrap());
    let root = keep(&blocks, encode_directory(&[entry("f", inline)]));
    assert!(
        missing(&blocks, &root, &Limits::default())
            .unwrap()
            .is_empty()
    );
    assert_eq!(read_file(&blocks, &inline, 6).unwrap(), b"inline");
    assert!(read_file(&blocks, &inline, 5).is_err());
    let tight = Limits {
        max_depth: 0,
        ..Limits::default()
    };
    assert!(missing(&blocks, &root, &tight).is_err());
}

#[test]
fn a_path_through_a_file_and_a_folder_that_is_too_large() {
    let link = TreeLink {
        cid: cid_of(RAW, b"x"),
        dag_size: 1,
    };
    let through = BTreeMap::from([("a".to_owned(), link), ("a/b".to_owned(), link)]);
    assert!(matches!(
        tree_root(&through),
        Err(TreeError::Conflict { .. })
    ));
    let many: BTreeMap<String, TreeLink> =
        (0..20_000).map(|i| (format!("d/{i:0>20}"), link)).collect();
    let error = tree_root(&many).unwrap_err();
    assert!(
        matches!(&error, TreeError::TooLarge { path, .. } if path == "d/"),
        "{error}"
    );
}
