//! A fork comes back: slices of its trunk in blocks of its mother, real merges for stock git.
#![allow(clippy::unwrap_used)]

mod support;

use instar_attest::Digest;
use instar_ledger::fork::{self, ForkDue, ForkPart};
use instar_ledger::store::{BaseCommit, has_commit};
use instar_ledger::*;
use support::forked::*;
use support::*;

#[test]
fn a_fork_comes_back_as_a_merge() {
    let mut pair = Pair::new();
    let applied = [pair.fork_block(), pair.fork_block()].map(|(_, entry)| entry);
    let due = pair.due(1, 2);
    assert!(!pair.net.stores[0].has_slice(&due.range));
    assert!(has_commit(pair.fork.path(), &due.range.head));
    let block = pair.merge(&due);
    let dir = pair.net.dir.path().to_owned();

    // What the second node has of it is what the first one gave.
    let [first, second] = [0, 1].map(|i| &pair.net.stores[i]);
    assert_eq!(
        first.pack_block(&block).unwrap(),
        second.pack_block(&block).unwrap()
    );
    let slice = second.slice(&due.range).unwrap();
    let ids: Vec<Digest> = slice.entries.iter().map(|m| m.entry.id()).collect();
    assert_eq!(ids, applied, "only what took effect there, in order");
    assert_eq!(
        slice.mother,
        Some(ForkPart {
            height: 2,
            id: second.block_at(2).unwrap()
        })
    );

    // A clone has the fork's history, to stock git and to us.
    let clone = clone_of(&dir, second, "clone");
    let fsck = git(&clone, &["fsck", "--strict", "--full", "--no-progress"]).unwrap();
    assert_eq!(fsck, "");
    let head = due.range.head.to_hex();
    let parents = git(&clone, &["rev-parse", &format!("{block}^2")]).unwrap();
    assert_eq!(parents.trim(), head);
    let shown = git(&clone, &["show", "-s", "--format=%B", &block.to_hex()]).unwrap();
    assert!(
        shown.contains(&format!("Fork: {} 1-2\n", pair.chain)),
        "{shown}"
    );
    git(
        &clone,
        &["merge-base", "--is-ancestor", &pair.chain.to_hex(), "HEAD"],
    )
    .unwrap();
    let read = Store::open_clone(&clone).unwrap();
    assert_eq!(read.head(), second.head());
    assert_eq!(read.verify_slice(&due.range).unwrap(), slice);
    let signed = read.signed_header(4).unwrap().unwrap();
    assert_eq!(signed.block().unwrap(), block, "light checkers see it too");

    // It goes on from there; the fork's lanes continue what was merged.
    let (_, entry) = pair.fork_block();
    let next = pair.due(3, 3);
    pair.merge(&next);
    let slice = pair.net.stores[1].slice(&next.range).unwrap();
    assert_eq!((slice.mother, slice.entries.len()), (None, 1));
    assert_eq!(slice.entries[0].entry.id(), entry);
    let clone = clone_of(&dir, &pair.net.stores[0], "again");
    let fsck = git(&clone, &["fsck", "--strict", "--full", "--no-progress"]).unwrap();
    assert_eq!(fsck, "");
    let (path, head) = (
        pair.net.stores[1].path().to_owned(),
        pair.net.stores[1].head(),
    );
    drop(pair.net.stores.pop());
    let again = Store::open_with(&path, &options(&dir, 1)).unwrap();
    assert_eq!(again.head(), head);
    assert!(again.has_slice(&next.range));
}

#[test]
fn a_crash_before_the_pack_loses_no_slice() {
    let mut pair = Pair::new();
    pair.fork_block();
    let due = pair.due(1, 1);
    pair.net.stores[0]
        .take_slice(pair.fork.path(), &due)
        .unwrap();
    let block = {
        let draft = pair.draft(due.range);
        pair.net.stores[0].write_block(&draft).unwrap()
    };
    // The journal has the slice with the block: no flush, as after a power cut.
    let path = pair.net.stores[0].path().to_owned();
    drop(pair.net.stores.remove(0));
    let again = Store::open_with(&path, &options(pair.net.dir.path(), 0)).unwrap();
    assert!(again.has_slice(&due.range));
    again.pack_block(&block).unwrap();
}

#[test]
fn slices_are_cut_the_same_from_every_copy() {
    let mut pair = Pair::new();
    for _ in 0..3 {
        pair.fork_block();
    }
    let sizes = pair.fork.block_sizes(0, 3).unwrap();
    assert_eq!(
        sizes.iter().map(|s| s.entries).collect::<Vec<_>>(),
        [2, 2, 2]
    );
    // Genesis, a lane commit and the block of three and four objects; the second block has a certificate.
    assert_eq!(
        sizes.iter().map(|s| s.objects).collect::<Vec<_>>(),
        [10, 8, 8]
    );
    let parts = fork::cut(sizes).unwrap();
    let head = pair.fork.head();
    assert_eq!(
        parts,
        [ForkPart {
            height: head.0,
            id: head.1
        }]
    );
    let clone = clone_of(pair.net.dir.path(), &pair.fork, "copy");
    let copy = Store::open_clone(&clone).unwrap();
    assert_eq!(fork::cut(copy.block_sizes(0, 3).unwrap()).unwrap(), parts);
}

/// A ledger that begins with the newest block of the mother.
fn late(pair: &Pair) -> Store {
    let mother = &pair.net.stores[0];
    let (height, base) = mother.head();
    let lanes = mother.lane_heads();
    let mut wanted = vec![BaseCommit::Block(base)];
    let heads = lanes.iter();
    wanted.extend(heads.map(|(lane, id, seq)| BaseCommit::Lane(*lane, *id, *seq)));
    let ids: Vec<Oid> = wanted.iter().map(BaseCommit::id).collect();
    let (pack, taken) = mother.pack_commits(&ids, MAX_PACK).unwrap();
    assert_eq!(taken, ids.len());
    let path = pair.net.dir.path().join("late.git");
    let (mut late, _) = Store::create(&path, mother.genesis()).unwrap();
    late.import_base(&pack, MAX_PACK, &wanted).unwrap();
    let certificate = mother.certificate_at(height).unwrap().unwrap();
    late.begin_at(&certificate, &lanes).unwrap();
    late
}

/// A ledger that begins later has not what a slice stands on; it takes the slice, and stock git knows where it is cut.
fn begins_late(mut pair: Pair, due: ForkDue, cut: &[Oid]) {
    let late = late(&pair);
    let (path, height) = (late.path().to_owned(), late.head().0 + 1);
    pair.net.stores.push(late);
    pair.net.stores[0]
        .take_slice(pair.fork.path(), &due)
        .unwrap();
    let draft = pair.draft(due.range);
    let block = pair.net.stores[0].write_block(&draft).unwrap();
    let pack = pair.net.stores[0].pack_block(&block).unwrap();
    let late = pair.net.stores.last_mut().unwrap();
    late.import_block(&pack, MAX_PACK, &[due]).unwrap();
    let certificate = certificate(&pair.net.chain, height, 0, block);
    late.finalize(&block, &certificate).unwrap();
    late.flush().unwrap();
    let shallow = std::fs::read_to_string(path.join("shallow")).unwrap();
    for id in cut {
        assert!(shallow.contains(&id.to_hex()), "{shallow}");
    }
    let clone = clone_of(pair.net.dir.path(), late, "of-late");
    let fsck = git(&clone, &["fsck", "--strict", "--no-progress"]).unwrap();
    assert_eq!(fsck, "");
    assert_eq!(late.pack_block(&block).unwrap(), pack);
    drop(pair.net.stores.pop());
    assert_eq!(Store::open(&path).unwrap().head(), (height, block));
}

#[test]
fn a_ledger_that_begins_after_the_fork_left() {
    let mut pair = Pair::new();
    pair.fork_block();
    let (due, genesis) = (pair.due(1, 1), pair.chain.into());
    begins_late(pair, due, &[genesis]);
}

#[test]
fn a_ledger_that_begins_between_two_slices() {
    let mut pair = Pair::new();
    for _ in 0..2 {
        pair.fork_block();
    }
    pair.merge(&pair.due(1, 1));
    let due = pair.due(2, 2);
    let block = pair.fork.read_block(&due.range.head).unwrap();
    let cut = [block.id, block.header.lanes[0].head];
    begins_late(pair, due, &cut);
}
