//! The golden vectors of `instar-cdc-v1`: frozen, because CIDs made with them stand on ledgers.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Read;

use instar_chunks::block::{DAG_PB, RAW};
use instar_chunks::{Blocks, Cid, MemoryBlocks, Profile, TreeLink, add_file, tree_root};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const FIXTURE: &str = include_str!("../fixtures/instar-cdc-v1.json");
const STOCK: &str = include_str!("../fixtures/unixfs-v1-2025.json");

/// The content of a vector. `stream` is SHA-256("instar/vector/v1" ‖ 0 ‖ i as u64 BE) for
/// i = 0, 1, …; `zeros` is zero bytes; `period` is the first 1000 bytes of the stream repeated;
/// `spliced` is the stream with `instar` inserted at half of `len`.
fn content(kind: &str, len: usize) -> Vec<u8> {
    let stream = |len: usize| {
        let mut bytes = Vec::with_capacity(len + 32);
        let mut i: u64 = 0;
        while bytes.len() < len {
            let mut hash = Sha256::new();
            hash.update(b"instar/vector/v1\0");
            hash.update(i.to_be_bytes());
            bytes.extend_from_slice(&hash.finalize());
            i += 1;
        }
        bytes.truncate(len);
        bytes
    };
    match kind {
        "stream" => stream(len),
        "zeros" => vec![0; len],
        "period" => stream(1000).into_iter().cycle().take(len).collect(),
        "spliced" => {
            let mut bytes = stream(len - 6);
            let at = len / 2;
            bytes.splice(at..at, *b"instar");
            bytes
        }
        _ => panic!("no content kind {kind}"),
    }
}

fn file_vector(profile: Profile, kind: &str, len: usize) -> Value {
    // The largest vectors are too large to hold; zeros need not be.
    let (bytes, mut zeros);
    let source: &mut dyn Read = if kind == "zeros" {
        zeros = std::io::repeat(0).take(len as u64);
        &mut zeros
    } else {
        bytes = content(kind, len);
        &mut bytes.as_slice()
    };
    let mut blocks: BTreeMap<Vec<u8>, (u64, usize)> = BTreeMap::new();
    let (mut leaf_lengths, mut nodes) = (Vec::new(), 0);
    let summary = add_file(profile, source, &mut |cid, block| {
        assert!(block.len() <= profile.max_chunk_bytes());
        match cid.codec() {
            RAW => leaf_lengths.push(block.len()),
            DAG_PB => nodes += 1,
            other => panic!("codec {other}"),
        }
        blocks.insert(cid.to_bytes(), (cid.codec(), block.len()));
        Ok(())
    })
    .unwrap();
    json!({
        "content": kind, "len": len, "cid": summary.cid.to_string(),
        "dag_size": summary.dag_size, "sha256": hex(&summary.sha256),
        "leaves": leaf_lengths.len(), "nodes": nodes, "distinct_blocks": blocks.len(),
        "first_leaf_lengths": leaf_lengths.iter().take(4).collect::<Vec<_>>(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn tree_vector(files: &Value) -> Value {
    let links: BTreeMap<String, TreeLink> = files
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, link)| {
            let link = TreeLink {
                cid: link["cid"].as_str().unwrap().parse().unwrap(),
                dag_size: link["dag_size"].as_u64().unwrap(),
            };
            (path.clone(), link)
        })
        .collect();
    let (root, blocks) = tree_root(&links).unwrap();
    let (last, bytes) = blocks.last().unwrap();
    assert_eq!(*last, root);
    json!({"files": files, "cid": root.to_string(), "directories": blocks.len(), "root_block": hex(bytes)})
}

fn as_frozen(fixture: &Value, profile: Profile) -> &[Value] {
    assert_eq!(fixture["profile"], profile.name());
    let files = fixture["files"].as_array().unwrap();
    for vector in files {
        let kind = vector["content"].as_str().unwrap();
        let len = vector["len"].as_u64().unwrap() as usize;
        assert_eq!(&file_vector(profile, kind, len), vector, "{kind} {len}");
    }
    files
}

#[test]
fn the_stock_profile_comes_out_as_the_importer_makes_it() {
    let fixture: Value = serde_json::from_str(STOCK).unwrap();
    let files = as_frozen(&fixture, Profile::UnixfsV1_2025);
    assert!(files.len() >= 10, "the vectors are all there");
    let three_levels = files
        .iter()
        .any(|v| v["leaves"].as_u64() > Some(1024) && v["nodes"].as_u64() >= Some(3));
    assert!(three_levels, "one vector needs three levels");
}

#[test]
fn every_vector_comes_out_as_frozen() {
    let fixture: Value = serde_json::from_str(FIXTURE).unwrap();
    let files = as_frozen(&fixture, Profile::InstarCdcV1);
    assert!(files.len() >= 12, "the vectors are all there");
    let trees = fixture["directories"].as_array().unwrap();
    assert!(trees.len() >= 3);
    for vector in trees {
        assert_eq!(&tree_vector(&vector["files"]), vector);
    }
    let three_levels = files
        .iter()
        .any(|v| v["leaves"].as_u64() > Some(174) && v["nodes"].as_u64() >= Some(3));
    assert!(three_levels, "one vector needs three levels");
}

/// FastCDC written again from `docs/formats/chunks.md`, byte by byte, without the cutter's tricks.
fn cut_as_documented(data: &[u8]) -> Vec<usize> {
    const MIN: usize = 8 * 1024;
    const AVG: usize = 32 * 1024;
    const MAX: usize = 128 * 1024;
    const STRICT: u64 = 0x0000_d907_0353_7000;
    const LOOSE: u64 = 0x0000_d903_0353_0000;
    let gear = fastcdc::v2020::get_gear_with_seed(0).0;
    let mut lengths = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let window = rest.len().min(MAX);
        let mut cut = window;
        if window > MIN {
            let mut hash: u64 = 0;
            // Bytes are taken in pairs; an odd last one takes no part.
            for i in MIN..window / 2 * 2 {
                hash = (hash << 1).wrapping_add(gear[rest[i] as usize]);
                let mask = if i < window.min(AVG) / 2 * 2 {
                    STRICT
                } else {
                    LOOSE
                };
                if hash & mask == 0 {
                    cut = i;
                    break;
                }
            }
        }
        lengths.push(cut);
        rest = &rest[cut..];
    }
    lengths
}

#[test]
fn the_documented_cut_is_the_cut() {
    for (kind, len) in [
        ("stream", 3_000_001),
        ("zeros", 500_001),
        ("period", 2_000_003),
    ] {
        let bytes = content(kind, len);
        let mut lengths = Vec::new();
        add_file(
            Profile::InstarCdcV1,
            &mut bytes.as_slice(),
            &mut |cid, block| {
                if cid.codec() == RAW {
                    lengths.push(block.len());
                }
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(lengths, cut_as_documented(&bytes), "{kind}");
    }
}

/// How the bytes arrive is no part of the address.
#[test]
fn short_reads_change_nothing() {
    struct Trickle<'a>(&'a [u8]);
    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = out.len().min(self.0.len()).min(777);
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }
    let bytes = content("stream", 700_001);
    let add = |source: &mut dyn Read| -> Cid {
        let blocks = MemoryBlocks::default();
        add_file(Profile::InstarCdcV1, source, &mut |cid, block| {
            blocks.put(cid, block).map_err(std::io::Error::other)
        })
        .unwrap()
        .cid
    };
    assert_eq!(add(&mut Trickle(&bytes)), add(&mut bytes.as_slice()));
}
