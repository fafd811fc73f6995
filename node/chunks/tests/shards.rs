//! Sharded directories, made by hand: read as they are, and refused when they lie.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use instar_chunks::block::{DAG_PB, RAW, cid_of};
use instar_chunks::hamt::slot_of;
use instar_chunks::read::{list_directory, resolve};
use instar_chunks::{Blocks, Cid, DagError, Limits, MemoryBlocks, export};
use ipld_dagpb::{PbLink, PbNode};

/// Slots of a node, as a power of two, and the digits in which links name them.
const BITS: u32 = 8;

/// A slot, the name in it (none: a deeper node), and where it leads.
type Slot = (usize, &'static str, Cid);

/// A node as an importer writes it, lies and all.
fn node(blocks: &MemoryBlocks, slots: &[Slot], field: &[u8], hash: u8, fanout: u64) -> Cid {
    let mut data = vec![0x08, 0x05, 0x12, field.len() as u8];
    data.extend_from_slice(field);
    data.extend_from_slice(&[0x28, hash, 0x30, fanout as u8 | 0x80, (fanout >> 7) as u8]);
    let links = slots.iter().map(|(slot, name, cid)| PbLink {
        cid: *cid,
        name: Some(format!("{slot:02X}{name}")),
        size: Some(1),
    });
    let bytes = PbNode {
        links: links.collect(),
        data: Some(data.into()),
    }
    .into_bytes();
    let cid = cid_of(DAG_PB, &bytes);
    blocks.put(&cid, &bytes).unwrap();
    cid
}

fn field(slots: &[Slot]) -> Vec<u8> {
    let mut field = vec![0; 32];
    for (slot, ..) in slots {
        field[31 - slot / 8] |= 1 << (slot % 8);
    }
    field
}

fn honest(blocks: &MemoryBlocks, slots: &[Slot]) -> Cid {
    node(blocks, slots, &field(slots), 0x22, 256)
}

fn leaf(blocks: &MemoryBlocks, content: &str) -> Cid {
    let cid = cid_of(RAW, content.as_bytes());
    blocks.put(&cid, content.as_bytes()).unwrap();
    cid
}

/// Where a name belongs in a node `level` levels down.
fn slot(name: &str, level: u32) -> usize {
    slot_of(name, level * BITS, BITS).unwrap()
}

fn sorted(mut slots: Vec<Slot>) -> Vec<Slot> {
    slots.sort_by_key(|(slot, ..)| *slot);
    slots
}

#[test]
fn two_levels_are_listed_found_and_written_out() {
    let blocks = MemoryBlocks::default();
    let deep = [(slot("four", 1), "four", leaf(&blocks, "4"))];
    let below = honest(&blocks, &deep);
    let mut slots: Vec<Slot> = ["one", "two", "three"]
        .into_iter()
        .map(|name| (slot(name, 0), name, leaf(&blocks, name)))
        .collect();
    slots.push((slot("four", 0), "", below));
    let root = honest(&blocks, &sorted(slots));
    let limits = Limits::default();
    let names: Vec<String> = list_directory(&blocks, &root, &limits)
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect();
    assert_eq!(names, ["four", "one", "three", "two"]);
    let found = resolve(&blocks, &root, "four", &limits).unwrap();
    assert_eq!(found, cid_of(RAW, b"4"));
    let absent = resolve(&blocks, &root, "five", &limits).unwrap_err();
    assert!(matches!(absent, DagError::NotFound { .. }), "{absent}");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    export(&blocks, &root, None, &out, &limits).unwrap();
    assert_eq!(std::fs::read(out.join("three")).unwrap(), b"three");
    assert_eq!(std::fs::read(out.join("four")).unwrap(), b"4");
}

/// Neither listed nor written out; what it says is returned.
fn refused(blocks: &MemoryBlocks, root: &Cid) -> String {
    let limits = Limits::default();
    let listed = list_directory(blocks, root, &limits).unwrap_err();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let written = export(blocks, root, None, &out, &limits).unwrap_err();
    assert_eq!(listed.to_string(), written.to_string());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    written.to_string()
}

#[test]
fn lies_are_refused() {
    let blocks = MemoryBlocks::default();
    let one = leaf(&blocks, "1");
    let good = [(slot("one", 0), "one", one)];
    assert!(list_directory(&blocks, &honest(&blocks, &good), &Limits::default()).is_ok());

    // A name where its hash doesn't lead: it would be listed and never found.
    let astray = [(slot("one", 0) ^ 1, "one", one)];
    assert!(refused(&blocks, &honest(&blocks, &astray)).contains("wrong slot"));
    // The same name once more, in a deeper node.
    let again = honest(&blocks, &[(slot("one", 1), "one", one)]);
    let twice = sorted(vec![good[0], (slot("one", 0) ^ 1, "", again)]);
    assert!(refused(&blocks, &honest(&blocks, &twice)).contains("wrong slot"));
    // A bit field that names too much, too little, or is too long.
    let mut much = field(&good);
    much[0] |= 0x80 >> (usize::from(slot("one", 0) == 255));
    assert!(refused(&blocks, &node(&blocks, &good, &much, 0x22, 256)).contains("doesn't have"));
    assert!(refused(&blocks, &node(&blocks, &good, &[0; 32], 0x22, 256)).contains("bit field"));
    assert!(refused(&blocks, &node(&blocks, &good, &[0xff; 33], 0x22, 256)).contains("longer"));
    // Another hash, other fanouts.
    assert!(refused(&blocks, &node(&blocks, &good, &field(&good), 0x12, 256)).contains("murmur3"));
    for fanout in [0, 4, 200, 2048] {
        let odd = node(&blocks, &good, &field(&good), 0x22, fanout);
        assert!(refused(&blocks, &odd).contains("fanout"), "{fanout}");
    }
    // One slot twice, and slots out of order.
    let double = [good[0], (good[0].0, "two", one)];
    assert!(refused(&blocks, &honest(&blocks, &double)).contains("ascending"));
    // A deeper node with another fanout, and something else than a node.
    let wide = [(1, "", node(&blocks, &[], &[], 0x22, 512))];
    assert!(refused(&blocks, &honest(&blocks, &wide)).contains("another fanout"));
    let file = [(1, "", one)];
    assert!(refused(&blocks, &honest(&blocks, &file)).contains("something else"));
    // Names that lead outside, and an entry without a slot.
    let up = [(slot("..", 0), "..", one)];
    assert!(refused(&blocks, &honest(&blocks, &up)).contains("a name"));
}

#[test]
fn a_chain_of_nodes_that_never_ends() {
    let blocks = MemoryBlocks::default();
    let mut cid = honest(&blocks, &[]);
    for _ in 0..30 {
        cid = honest(&blocks, &[(7, "", cid)]);
    }
    assert!(refused(&blocks, &cid).contains("deeper than its hash"));
}
