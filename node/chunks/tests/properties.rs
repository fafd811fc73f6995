//! What holds for any content, and for any bytes that claim to be a node.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use instar_chunks::block::{DAG_PB, RAW, cid_of};
use instar_chunks::node::{FileLink, Node, decode, encode_file};
use instar_chunks::{
    Blocks, Limits, MAX_BLOCK_BYTES, MemoryBlocks, Profile, TreeLink, add_file, missing, read_file,
    tree_root,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn add(blocks: &MemoryBlocks, content: &[u8]) -> instar_chunks::FileSummary {
    add_file(
        Profile::InstarCdcV1,
        &mut &content[..],
        &mut |cid, block| {
            assert!(block.len() <= MAX_BLOCK_BYTES);
            blocks.put(cid, block).map_err(std::io::Error::other)
        },
    )
    .unwrap()
}

/// Content with runs, repeats and noise, up to half a megabyte.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = (any::<u8>(), 0_usize..60_000, any::<u64>(), any::<bool>()).prop_map(
        |(byte, length, seed, noisy)| -> Vec<u8> {
            let mut state = seed | 1;
            (0..length)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    if noisy { state as u8 } else { byte }
                })
                .collect()
        },
    );
    vec(piece, 0..9).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn content_comes_back_and_its_address_is_a_function_of_it(content in content()) {
        let blocks = MemoryBlocks::default();
        let summary = add(&blocks, &content);
        prop_assert_eq!(summary.size, content.len() as u64);
        prop_assert_eq!(&read_file(&blocks, &summary.cid, summary.size).unwrap(), &content);
        prop_assert!(missing(&blocks, &summary.cid, &Limits::default()).unwrap().is_empty());
        prop_assert_eq!(add(&MemoryBlocks::default(), &content), summary);
        if summary.size > 0 {
            prop_assert!(read_file(&blocks, &summary.cid, summary.size - 1).is_err());
        }
    }

    #[test]
    fn a_tree_lists_its_paths_and_no_order_matters(
        names in btree_map("[a-z]{1,3}(/[a-zA-Z0-9._-]{1,8}){0,3}", any::<u32>(), 0..20)
    ) {
        let files: BTreeMap<String, TreeLink> = names
            .into_iter()
            .map(|(path, size)| {
                let cid = cid_of(RAW, path.as_bytes());
                (path, TreeLink { cid, dag_size: u64::from(size) })
            })
            .collect();
        // A path may go through another, or have a part of dots: then it is refused, not mangled.
        let Ok((root, nodes)) = tree_root(&files) else {
            return Ok(());
        };
        let blocks = MemoryBlocks::default();
        for (cid, bytes) in &nodes {
            blocks.put(cid, bytes).unwrap();
        }
        for (path, link) in &files {
            let found =
                instar_chunks::export::resolve(&blocks, &root, path, &Limits::default()).unwrap();
            prop_assert_eq!(found, link.cid);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is decoded is canonical; everything else is an error, never a panic.
    #[test]
    fn any_bytes_are_a_canonical_node_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        let cid = cid_of(DAG_PB, &bytes);
        if let Ok(Node::File { links, .. }) = decode(&cid, &bytes) {
            prop_assert_eq!(encode_file(&links), (cid, bytes));
        }
    }

    #[test]
    fn a_node_with_one_byte_changed_is_another_node_or_an_error(
        sizes in vec(any::<u16>(), 1..6),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..=255,
    ) {
        let links: Vec<FileLink> = sizes
            .iter()
            .map(|size| FileLink {
                cid: cid_of(RAW, &size.to_be_bytes()),
                size: u64::from(*size),
                dag_size: u64::from(*size),
            })
            .collect();
        let (_, good) = encode_file(&links);
        let mut bytes = good.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let cid = cid_of(DAG_PB, &bytes);
        match decode(&cid, &bytes) {
            Ok(Node::File { links: other, .. }) => prop_assert_ne!(other, links),
            Ok(other) => {
                let directory = matches!(other, Node::Directory { .. });
                prop_assert!(directory);
            }
            Err(_) => {}
        }
    }
}
