//! Any bytes as blocks of one DAG: decoded, walked, listed, read, within tight bounds.
//!
//! The input is up to eight blocks, each behind its length in two bytes. No fuzzer finds a hash, so every address leads to
//! one of them, by its digest: what a store promises is not kept here, so that cycles and bombs come about by themselves.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use instar_chunks::block::{DAG_PB, RAW, canonical, cid_of};
use instar_chunks::node::{Node, decode, encode_directory, name_fault};
use instar_chunks::read::{list_directory, resolve};
use instar_chunks::traverse::{Scope, Traverse};
use instar_chunks::{BlockError, Blocks, Cid, Limits, missing, read_file};

const LIMITS: Limits = Limits {
    max_depth: 20,
    max_links_per_node: 500,
    max_blocks: 300,
    max_total_bytes: 1 << 16,
};
const MAX_BLOCKS: usize = 8;

struct Anywhere(Vec<Vec<u8>>);

impl Blocks for Anywhere {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, BlockError> {
        let cid = canonical(cid)?;
        let at = cid.hash().digest().last().copied().unwrap_or_default();
        Ok(Some(self.0[usize::from(at) % self.0.len()].clone()))
    }
    fn has(&self, _: &Cid) -> Result<bool, BlockError> {
        Ok(true)
    }
    fn put(&self, _: &Cid, _: &[u8]) -> Result<(), BlockError> {
        Ok(())
    }
}

/// Fails on anything but a result or a named error, within the bounds.
pub fn run(data: &[u8]) {
    let mut blocks = Vec::new();
    let mut rest = data;
    while let Some(([low, high], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (block, after) = after.split_at(length);
        blocks.push(block.to_vec());
        rest = after;
        if blocks.len() == MAX_BLOCKS {
            break;
        }
    }
    let Some(first) = blocks.first() else { return };
    let root = cid_of(DAG_PB, first);
    for block in &blocks {
        one(block);
    }
    let blocks = Anywhere(blocks);
    let _ = missing(&blocks, &root, &LIMITS);
    for scope in [
        Scope::All,
        Scope::Entity,
        Scope::Bytes(1, 1000),
        Scope::Block,
    ] {
        let mut traverse = Traverse::new(&blocks, &root, scope, LIMITS).unwrap();
        let (mut count, mut bytes) = (0, 0);
        while let Ok(Some((_, block))) = traverse.next_block() {
            (count, bytes) = (count + 1, bytes + block.len() as u64);
        }
        assert!(count <= LIMITS.max_blocks && bytes <= LIMITS.max_total_bytes);
    }
    if let Ok(content) = read_file(&blocks, &root, LIMITS.max_total_bytes) {
        assert!(content.len() as u64 <= LIMITS.max_total_bytes);
    }
    if let Ok(links) = list_directory(&blocks, &root, &LIMITS) {
        assert!(links.windows(2).all(|pair| pair[0].name < pair[1].name));
        for link in links.iter().take(2) {
            assert!(name_fault(&link.name).is_none());
            // What is listed is found, and is the same.
            assert_eq!(
                resolve(&blocks, &root, &link.name, &LIMITS).unwrap(),
                link.cid
            );
        }
    }
}

fn one(block: &[u8]) {
    assert!(matches!(decode(&cid_of(RAW, block), block), Ok(Node::Leaf(b)) if b == block));
    let Ok(node) = decode(&cid_of(DAG_PB, block), block) else {
        return;
    };
    assert_eq!(node.children().count(), node.degree());
    match node {
        Node::Directory { links } => {
            let (cid, again) = encode_directory(&links);
            assert_eq!(decode(&cid, &again).unwrap(), Node::Directory { links });
        }
        Node::File {
            size,
            inline,
            links,
        } => {
            let parts: u64 = links.iter().map(|link| link.size).sum();
            assert_eq!(size, inline.len() as u64 + parts);
        }
        _ => {}
    }
}
