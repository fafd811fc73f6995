//! Hostile packs: bounded while they are read, and all or nothing.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use instar_attest::Digest;
use instar_ledger::grammar::Kind;
use instar_ledger::pack::{self, PackError};
use instar_ledger::*;
use support::*;

const MAX: usize = 4 << 20;

/// A pack made by hand: each object is its head bytes and its content, which is compressed here.
fn pack_of(objects: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = b"PACK\0\0\0\x02".to_vec();
    out.extend((objects.len() as u32).to_be_bytes());
    for (head, content) in objects {
        out.extend(*head);
        let mut encoder = ZlibEncoder::new(&mut out, Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap();
    }
    seal(out)
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let checksum = Digest::of(&out);
    out.extend(checksum.as_bytes());
    out
}

/// Kind and size as a pack writes them.
fn head(kind: u8, size: u64) -> Vec<u8> {
    let mut out = vec![(kind << 4) | (size & 15) as u8];
    let mut rest = size >> 4;
    while rest > 0 {
        *out.last_mut().unwrap() |= 0x80;
        out.push((rest & 0x7f) as u8);
        rest >>= 7;
    }
    out
}

fn a_lane_pack() -> (Net, LaneCommit, Vec<u8>) {
    let mut net = Net::new(2);
    let commit = net.append(0, 3);
    let pack = net.stores[0].pack_lane(&commit.lane, 0).unwrap();
    (net, commit, pack)
}

#[test]
fn stock_git_reads_our_packs() {
    let (net, _, pack) = a_lane_pack();
    let file = net.dir.path().join("x.pack");
    std::fs::write(&file, &pack).unwrap();
    let said = git(
        net.stores[1].path(),
        &["index-pack", file.to_str().unwrap()],
    )
    .unwrap();
    assert_eq!(said.trim(), Digest::of(&pack[..pack.len() - 32]).to_hex());
}

#[test]
fn pack_bomb() {
    // 64 MiB of zeros in 64 kB: refused by what it says, before it is inflated.
    let zeros = vec![0u8; 64 << 20];
    let bomb = pack_of(&[(&head(3, zeros.len() as u64), &zeros)]);
    assert!(bomb.len() < 100_000);
    let error = pack::read(&bomb, MAX).unwrap_err();
    assert!(
        matches!(error, PackError::Inflated { index: 0, .. }),
        "{error}"
    );
    // One that lies about its size is inflated no further than that.
    let liar = pack_of(&[(&head(3, 10), &zeros)]);
    let error = pack::read(&liar, MAX).unwrap_err();
    assert!(matches!(error, PackError::Deflate { index: 0 }), "{error}");
    // Many that are each within their bound stop at the bound of all.
    let each = vec![0u8; 15 << 20];
    let head = head(3, each.len() as u64);
    let many = pack_of(&[(head.as_slice(), each.as_slice()); 6]);
    let error = pack::read(&many, MAX).unwrap_err();
    assert!(
        matches!(error, PackError::Inflated { index: 4, .. }),
        "{error}"
    );
}

#[test]
fn pack_of_too_many_objects() {
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend(u32::MAX.to_be_bytes());
    let error = pack::read(&seal(pack), MAX).unwrap_err();
    assert!(matches!(error, PackError::TooManyObjects(u32::MAX)));
}

#[test]
fn pack_with_deltas_tags_or_unknown_kinds() {
    for kind in [0, 4, 5, 6, 7] {
        let pack = pack_of(&[(&head(kind, 1), b"x")]);
        let error = pack::read(&pack, MAX).unwrap_err();
        assert!(matches!(error, PackError::ObjectKind { .. }), "{error}");
    }
}

#[test]
fn truncated_pack() {
    let (mut net, commit, pack) = a_lane_pack();
    for length in [0, 11, 12, 40, pack.len() / 2, pack.len() - 1] {
        net.stores[1].import_pack(&pack[..length], MAX).unwrap_err();
        // Also with a checksum that holds.
        let sealed = seal(pack[..length.min(pack.len() - 33)].to_vec());
        net.stores[1].import_pack(&sealed, MAX).unwrap_err();
    }
    let missing = net.stores[1].lane_commit(&commit.id).unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }));
    net.stores[1].import_pack(&pack, MAX).unwrap();
}

#[test]
fn every_flipped_byte_is_refused() {
    let (mut net, commit, pack) = a_lane_pack();
    let whole = pack::read(&pack, MAX).unwrap();
    for at in 0..pack.len() {
        let mut damaged = pack.clone();
        damaged[at] ^= 1;
        assert!(
            net.stores[1].import_pack(&damaged, MAX).is_err(),
            "byte {at}"
        );
        // With the checksum made to fit, only a byte that deflate ignores may pass, and then nothing has changed.
        damaged.truncate(pack.len() - 32);
        match pack::read(&seal(damaged.clone()), MAX) {
            Ok(objects) if objects == whole => {}
            _ => {
                let error = net.stores[1].import_pack(&seal(damaged), MAX);
                assert!(error.is_err(), "byte {at}, sealed");
            }
        }
    }
    assert!(net.stores[1].lane_commit(&commit.id).is_err());
}

#[test]
fn pack_larger_than_allowed() {
    let (mut net, _, pack) = a_lane_pack();
    let error = net.stores[1]
        .import_pack(&pack, pack.len() - 1)
        .unwrap_err();
    assert!(matches!(
        error,
        StoreError::Pack(PackError::TooLarge { .. })
    ));
}

#[test]
fn pack_with_a_stray_object() {
    let (mut net, _, pack) = a_lane_pack();
    let mut objects = pack::read(&pack, MAX).unwrap();
    objects.push(grammar::Object::new(
        Kind::Blob,
        b"junk for your disk".to_vec(),
    ));
    let pack = pack::write(objects.iter().map(|o| (o.kind, o.bytes.as_slice())));
    let error = net.stores[1].import_pack(&pack, MAX).unwrap_err();
    assert!(matches!(error, StoreError::Stray(_)), "{error}");
}

#[test]
fn pack_without_something_that_it_needs() {
    let mut net = Net::new(2);
    net.append(0, 1);
    let second = net.append(0, 1);
    // The second commit without the first.
    let pack = net.stores[0].pack_commit(&second.id).unwrap();
    let error = net.stores[1].import_pack(&pack, MAX).unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    // Both, without each of the six objects.
    let whole = net.stores[0].pack_lane(&second.lane, 0).unwrap();
    let objects = pack::read(&whole, MAX).unwrap();
    assert_eq!(objects.len(), 6);
    for skip in 0..6 {
        let some = objects.iter().enumerate().filter(|(i, _)| *i != skip);
        let pack = pack::write(some.map(|(_, o)| (o.kind, o.bytes.as_slice())));
        if skip == 3 {
            // Leaving out the newest commit leaves its tree and blob stray.
            let error = net.stores[1].import_pack(&pack, MAX).unwrap_err();
            assert!(matches!(error, StoreError::Stray(_)), "{error}");
            continue;
        }
        let error = net.stores[1].import_pack(&pack, MAX).unwrap_err();
        assert!(
            matches!(error, StoreError::NotFound { .. }),
            "{skip}: {error}"
        );
    }
    net.stores[1].import_pack(&whole, MAX).unwrap();
    net.stores[1].set_lane(&second.lane, &second.id).unwrap();
}

#[test]
fn lane_commit_that_does_not_continue_its_parent() {
    let mut net = Net::new(2);
    let first = net.append(0, 1);
    let other = net.append(1, 1);
    let pack = net.stores[1].pack_lane(&other.lane, 0).unwrap();
    net.stores[0].import_pack(&pack, MAX).unwrap();
    for (parent, seq) in [(other.id, 2), (first.id, 3)] {
        let entry = transfer(&net.chain, 0, 7);
        let blob = grammar::Object::new(Kind::Blob, grammar::entries_jsonl(&[entry]).unwrap());
        let tree = grammar::single_file_tree(grammar::ENTRIES_FILE, &blob);
        let payload = grammar::LanePayload {
            chain: net.chain,
            entries: 1,
            lane: first.lane,
            parent,
            seq,
            time_s: 1,
            tree: tree.id,
        };
        let commit = payload.sign(&key("lane", 0)).unwrap().to_bytes();
        let pack = pack::write([
            (Kind::Commit, commit.as_slice()),
            (Kind::Tree, tree.bytes.as_slice()),
            (Kind::Blob, blob.bytes.as_slice()),
        ]);
        let error = net.stores[0].import_pack(&pack, MAX).unwrap_err();
        assert!(matches!(error, StoreError::Linkage { .. }), "{error}");
    }
}

type Change = fn(&mut BlockDraft);

#[test]
fn block_with_something_changed() {
    let mut net = Net::new(2);
    let commit = net.append(0, 2);
    let honest = draft(&net.stores[0], &[vec![commit.clone()]]);
    let changes: [(&str, Change); 9] = [
        ("other receipts", |d| d.receipts.clear()),
        ("wrong lane or sequence", |d| d.header.lanes[0].to = 2),
        ("range is empty", |d| d.header.lanes[0].from = 2),
        ("not in the store", |d| {
            d.header.lanes[0].head = Oid::from_bytes([1; 32])
        }),
        ("height 1", |d| d.header.height = 2),
        ("height 1", |d| d.header.parent = Oid::from_bytes([1; 32])),
        ("not in merge order", |d| {
            d.header.lanes.push(d.header.lanes[0])
        }),
        ("not sorted", |d| {
            d.header.left_out = vec!["b".into(), "a".into()]
        }),
        ("belongs to chain", |d| {
            d.header.chain = instar_attest::ChainId::from_bytes([1; 32]);
            d.header.parent = d.header.chain.into();
        }),
    ];
    for (word, change) in changes {
        let mut draft = honest.clone();
        change(&mut draft);
        let error = net.stores[0].write_block(&draft).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    let block = net.stores[0].write_block(&honest).unwrap();
    // In a pack: the commit's message, its tree's mode, an extra file.
    let pack = net.stores[0].pack_block(&block).unwrap();
    let objects = pack::read(&pack, MAX).unwrap();
    for attack in ["message", "mode", "extra file"] {
        let mut objects = objects.clone();
        let at = objects.iter().position(|o| o.id == block).unwrap();
        let mut text = String::from_utf8(objects[at].bytes.clone()).unwrap();
        if attack == "message" {
            text = text.replace("2 entries", "3 entries");
        } else {
            let tree = objects[at + 1].clone();
            let mut bytes = tree.bytes.clone();
            if attack == "mode" {
                bytes.splice(..6, *b"100755");
            } else {
                bytes.extend_from_within(..);
            }
            objects[at + 1] = grammar::Object::new(Kind::Tree, bytes);
            text = text.replace(&tree.id.to_hex(), &objects[at + 1].id.to_hex());
        }
        objects[at] = grammar::Object::new(Kind::Commit, text.into_bytes());
        let pack = pack::write(objects.iter().map(|o| (o.kind, o.bytes.as_slice())));
        let error = net.stores[1].import_pack(&pack, MAX).unwrap_err();
        assert!(
            matches!(error, StoreError::Grammar { .. }),
            "{attack}: {error}"
        );
    }
    net.stores[1].import_pack(&pack, MAX).unwrap();
}
