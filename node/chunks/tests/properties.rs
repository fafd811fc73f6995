//! What holds for any content, and for any bytes that claim to be a node.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use instar_chunks::block::{DAG_PB, RAW, cid_of, verify};
use instar_chunks::car::{CarReader, CarWriter};
use instar_chunks::node::{
    DirLink, FileLink, Node, decode, encode_directory, encode_file, encode_symlink, name_fault,
};
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

    /// Whatever is decoded holds together; everything else is an error, never a panic.
    #[test]
    fn any_bytes_are_a_sound_node_or_an_error(
        head in prop::sample::select(vec![vec![], vec![0x0a], vec![0x12], vec![0x0a, 0x08, 0x08]]),
        rest in vec(any::<u8>(), 0..200),
    ) {
        let bytes = [head, rest].concat();
        sound(&bytes)?;
    }

    #[test]
    fn a_node_with_bytes_changed_is_a_sound_node_or_an_error(
        sizes in vec(any::<u16>(), 0..6),
        shape in 0..4,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let cids: Vec<_> = sizes.iter().map(|size| cid_of(RAW, &size.to_be_bytes())).collect();
        let mut bytes = match shape {
            0 => {
                let links: Vec<FileLink> = cids
                    .iter()
                    .zip(&sizes)
                    .map(|(cid, size)| FileLink { cid: *cid, size: (*size).into(), dag_size: 2 })
                    .collect();
                encode_file(&links).1
            }
            1 => encode_symlink(&[b'x'; 40]).1,
            2 => {
                let name = |n| format!("{n}");
                let links = cids.iter().enumerate();
                let links: Vec<DirLink> = links
                    .map(|(n, cid)| DirLink { name: name(n), cid: *cid, dag_size: 2 })
                    .collect();
                encode_directory(&links).1
            }
            _ => SHARD.to_vec(),
        };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        sound(&bytes)?;
    }

    /// An archive with bytes changed gives blocks that hash, and an end or an error, never a panic.
    #[test]
    fn an_archive_with_bytes_changed_gives_only_blocks_that_hash(
        lengths in vec(0_usize..300, 0..5),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        end in any::<prop::sample::Index>(),
    ) {
        let roots: Vec<_> = lengths.iter().take(2).map(|l| cid_of(RAW, &vec![7; *l])).collect();
        let mut car = CarWriter::new(Vec::new(), &roots).unwrap();
        for length in &lengths {
            let bytes = vec![7; *length];
            car.block(&cid_of(RAW, &bytes), &bytes).unwrap();
        }
        let mut bytes = car.finish().unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.index(bytes.len()) + 1);
        let Ok(mut car) = CarReader::new(bytes.as_slice()) else {
            return Ok(());
        };
        while let Ok(Some((cid, block))) = car.next_block() {
            prop_assert!(verify(&cid, &block).is_ok());
        }
    }
}

/// A node of a sharded directory with one entry, `x` in slot 1 of 8: hand-made, hash not asked.
const SHARD: &[u8] = &[
    0x12, 0x2c, 0x0a, 0x24, 0x01, 0x55, 0x12, 0x20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 0x12, 0x02, b'1', b'x',
    0x18, 0x05, 0x0a, 0x09, 0x08, 0x05, 0x12, 0x01, 0x02, 0x28, 0x22, 0x30, 0x08,
];

#[test]
fn the_hand_made_shard_is_one() {
    let node = decode(&cid_of(DAG_PB, SHARD), SHARD).unwrap();
    assert!(matches!(node, Node::Shard(shard) if shard.links[0].slot == 1));
}

fn sound(bytes: &[u8]) -> Result<(), TestCaseError> {
    let cid = cid_of(DAG_PB, bytes);
    match decode(&cid, bytes) {
        Ok(Node::File {
            size,
            inline,
            links,
        }) => {
            let below: u64 = links.iter().map(|link| link.size).sum();
            prop_assert_eq!(inline.len() as u64 + below, size);
        }
        Ok(Node::Directory { links }) => {
            prop_assert!(links.windows(2).all(|pair| pair[0].name < pair[1].name));
            prop_assert!(links.iter().all(|link| name_fault(&link.name).is_none()));
        }
        Ok(Node::Shard(shard)) => {
            prop_assert!(
                shard
                    .links
                    .windows(2)
                    .all(|pair| pair[0].slot < pair[1].slot)
            );
        }
        Ok(Node::Symlink { target }) => prop_assert!(!target.is_empty() && !target.contains(&0)),
        Ok(Node::Leaf(_)) | Err(_) => {}
    }
    Ok(())
}
