//! A ledger lets go of what lies before a block: it goes on, stock git takes it, and a crash between two steps loses nothing.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use instar_ledger::store::{Merged, Pruning, borrowers, maintain_with};
use instar_ledger::*;
use support::forked::*;
use support::*;

const MAX: usize = 12 << 20;

/// What is merged of the lanes, by a ledger all of whose lanes are merged up to its head.
fn merged(store: &Store) -> Merged {
    let lanes = store.lane_heads().into_iter();
    Merged {
        height: store.head().0,
        lanes: lanes.map(|(lane, head, seq)| (lane, (head, seq))).collect(),
    }
}

/// A pruning up to a height, planned as a node plans it: by another reader of the same repository.
fn plan(store: &mut Store, at: &Merged, height: u64) -> Pruning {
    store.flush().unwrap();
    let reader = Store::open_clone(store.path()).unwrap();
    let before = reader.merged_before(at, height).unwrap();
    Pruning::plan(&reader, before).unwrap()
}

fn objects_of(path: &Path) -> BTreeSet<String> {
    let all = [
        "cat-file",
        "--batch-all-objects",
        "--batch-check=%(objectname)",
    ];
    let text = git(path, &all).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// What git finds by walking from the refs: nothing that it names may be missing.
fn reachable(path: &Path) -> BTreeSet<String> {
    let text = git(path, &["rev-list", "--objects", "--all"]).unwrap();
    text.lines()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

fn clean(path: &Path) {
    let fsck = git(path, &["fsck", "--strict", "--full", "--no-progress"]).unwrap();
    assert!(
        !fsck.contains("missing") && !fsck.contains("error"),
        "{fsck}"
    );
}

/// Ends the grace of the packs that were replaced.
fn bury(path: &Path) {
    maintain_with(path, usize::MAX, Duration::ZERO, Duration::from_secs(3600)).unwrap();
}

#[test]
fn what_was_merged_at_each_height_is_found_by_walking_back() {
    let mut net = Net::new(3);
    let mut at = vec![];
    for _ in 0..5 {
        net.round(1);
        at.push(merged(&net.stores[0]));
    }
    let store = &net.stores[0];
    for before in &at {
        assert_eq!(&store.merged_before(&at[4], before.height).unwrap(), before);
    }
    let none = store.merged_before(&at[4], 0).unwrap();
    assert_eq!(none.lanes, BTreeMap::new());
}

#[test]
fn a_ledger_lets_go_and_goes_on() {
    let mut net = Net::new(4);
    for _ in 0..3 {
        net.round(2);
    }
    net.stores[0].flush().unwrap();
    let early = clone_of(net.dir.path(), &net.stores[0], "early");
    for _ in 0..6 {
        net.round(2);
    }
    net.stores[0].flush().unwrap();
    let recent = clone_of(net.dir.path(), &net.stores[0], "recent");
    // What is in a lane and in no block yet stays.
    let waiting = net.append(0, 3);
    let path = net.stores[0].path().to_owned();
    let mut at = merged(&net.stores[1]);
    let before = (net.stores[0].head(), net.stores[0].lane_heads());
    net.stores[0].flush().unwrap();
    let all = objects_of(&path);
    let mut pruning = plan(&mut net.stores[0], &at, 6);
    assert_eq!(
        (pruning.height(), pruning.block()),
        (6, net.stores[1].block_at(6).unwrap())
    );
    net.stores[0].begin_later(&mut pruning).unwrap();
    clean(&path);
    let pruned = pruning.carry_out().unwrap();
    assert!(pruned.objects > 0 && pruned.packs > 0, "{pruned:?}");
    assert_eq!(objects_of(&path), all, "who is reading has time to end");
    bury(&path);
    let left = objects_of(&path);
    assert_eq!(left.len() + pruned.objects, all.len());
    clean(&path);
    // Every object that is left is of use, but for the tips of the last hour.
    let reach = reachable(&path);
    let stray: Vec<_> = left.difference(&reach).collect();
    for id in &stray {
        let text = git(&path, &["cat-file", "-p", id]).unwrap();
        let of_tip = text.contains("tip@tip.instar")
            || text.contains("certificate.json")
            || text.contains("signatures");
        assert!(of_tip, "{id} is of no use: {text}");
    }

    let store = &net.stores[0];
    assert_eq!((store.head(), store.lane_heads()), before);
    assert_eq!(store.base(), Some(6));
    assert_eq!(
        (store.block_at(5), store.block_at(0)),
        (None, Some(net.chain.into()))
    );
    let full = &net.stores[1];
    for height in 7..=9 {
        let id = full.block_at(height).unwrap();
        assert_eq!(
            store.pack_block(&id).unwrap(),
            full.pack_block(&id).unwrap()
        );
    }
    assert_eq!(
        store.signed_header(6).unwrap(),
        full.signed_header(6).unwrap()
    );
    assert!(store.signed_header(5).unwrap().is_none());
    assert_eq!(store.lane_commit(&waiting.id).unwrap(), waiting);

    // A clone of it is shallow; opened again it is what it was, and goes on.
    let clone = clone_of(net.dir.path(), store, "clone");
    clean(&clone);
    let reader = Store::open_clone(&clone).unwrap();
    assert_eq!((reader.base(), reader.head()), (Some(6), before.0));
    drop(net.stores.remove(0));
    let again = Store::open_with(&path, &options(net.dir.path(), 0)).unwrap();
    assert_eq!(
        (again.base(), again.head(), again.lane_heads()),
        (Some(6), before.0, before.1)
    );
    let pack = again.pack_lane(&waiting.lane, waiting.seq - 1).unwrap();
    for other in &mut net.stores {
        other.import_pack(&pack, MAX).unwrap();
        other.set_lane(&waiting.lane, &waiting.id).unwrap();
    }
    net.stores.insert(0, again);
    let draft = draft(&net.stores[1], &[vec![waiting.clone()]]);
    let block = net.stores[1].write_block(&draft).unwrap();
    let pack = net.stores[1].pack_block(&block).unwrap();
    let certificate = certificate(&net.chain, 10, 0, block);
    for store in &mut net.stores {
        store.import_pack(&pack, MAX).unwrap();
        store.finalize(&block, &certificate).unwrap();
    }
    net.round(1);
    // A clone goes on that has the block where it begins now; an older one is told that it can't, and stays whole.
    net.stores[0].flush().unwrap();
    git(&recent, &["fetch", "-q", "origin"]).unwrap();
    clean(&recent);
    let reader = Store::open_clone(&recent).unwrap();
    assert_eq!((reader.base(), reader.head()), (None, net.stores[0].head()));
    let fetched = git(&early, &["fetch", "origin"]).unwrap();
    assert!(
        fetched.contains("rejected") && fetched.contains("shallow"),
        "{fetched}"
    );
    assert_eq!(Store::open_clone(&early).unwrap().head().0, 3);
    clean(&early);
    // And once more, from where it begins now.
    at = merged(&net.stores[0]);
    let mut pruning = plan(&mut net.stores[0], &at, 10);
    net.stores[0].begin_later(&mut pruning).unwrap();
    pruning.carry_out().unwrap();
    bury(&path);
    clean(&path);
    assert_eq!(net.stores[0].base(), Some(10));
    let shallow = std::fs::read_to_string(path.join("shallow")).unwrap();
    let left = objects_of(&path);
    assert!(
        shallow.lines().all(|id| left.contains(id)),
        "nothing is cut off that is not there"
    );
    net.round(1);
    clean(&path);
}

#[test]
fn a_crash_between_two_steps_leaves_a_ledger_that_begins_here_or_there() {
    for (lost, begins) in [("nothing", 4), ("heights", 4), ("shallow", 0)] {
        let mut net = Net::new(2);
        for _ in 0..6 {
            net.round(1);
        }
        let path = net.stores[0].path().to_owned();
        let at = merged(&net.stores[0]);
        let head = net.stores[0].head();
        let heights = path.join("instar").join("heights");
        let mut pruning = plan(&mut net.stores[0], &at, 4);
        net.stores[0].begin_later(&mut pruning).unwrap();
        drop((pruning, net.stores.remove(0)));
        match lost {
            "heights" => std::fs::remove_file(&heights).unwrap(),
            // The refs were written, with the branch for genesis, and the list of heights was removed; no more.
            "shallow" => {
                std::fs::remove_file(&heights).unwrap();
                std::fs::remove_file(path.join("shallow")).unwrap();
            }
            _ => {}
        }
        let mut store = Store::open_with(&path, &options(net.dir.path(), 0)).unwrap();
        assert_eq!(
            (store.base().unwrap_or(0), store.head()),
            (begins, head),
            "{lost}"
        );
        clean(&path);
        // The next pruning finds all of it.
        let mut pruning = plan(&mut store, &at, 5);
        store.begin_later(&mut pruning).unwrap();
        pruning.carry_out().unwrap();
        bury(&path);
        clean(&path);
        let first = net.stores[0].block_at(2).unwrap().to_hex();
        assert!(!objects_of(&path).contains(&first), "{lost}");
        assert_eq!((store.base(), store.head()), (Some(5), head), "{lost}");
    }
}

#[test]
fn what_can_not_be_is_refused_and_changes_nothing() {
    let mut net = Net::new(2);
    for _ in 0..4 {
        net.round(1);
    }
    let at = merged(&net.stores[0]);
    let reader = Store::open_clone(net.stores[0].path()).unwrap();
    let beyond = Merged {
        height: 9,
        ..at.clone()
    };
    assert!(matches!(
        Pruning::plan(&reader, beyond),
        Err(StoreError::NotNext { .. })
    ));
    let mut pruning = plan(&mut net.stores[0], &at, 3);
    // Where it begins later already, or is another chain's, there is nothing to be done.
    net.stores[0].begin_later(&mut pruning).unwrap();
    assert!(matches!(
        net.stores[0].begin_later(&mut pruning),
        Err(StoreError::NotNext { .. })
    ));
    let mut other = Net::new(1);
    assert!(matches!(
        other.stores[0].begin_later(&mut pruning),
        Err(StoreError::NotNext { .. })
    ));
    assert_eq!(other.stores[0].base(), None);
}

/// What comes while a pruning is under way, or soon after it, can have the content of what goes.
#[test]
fn what_comes_again_is_kept_again() {
    for late in [false, true] {
        let mut net = Net::new(2);
        for _ in 0..5 {
            net.round(2);
        }
        // The very same entries as long ago, in another commit of another lane: the same file, and the same tree.
        let (head, _) = net.stores[1].lane_head(&lane_of(0)).unwrap();
        let first = net.stores[1].lane_commit_at(&head, 1).unwrap().unwrap();
        let entries = net.stores[1].lane_commit(&first).unwrap().entries;
        let again = net.stores[1]
            .append_lane(&key("lane", 1), &lane_of(1), &entries, TIME_MS / 1000 + 99)
            .unwrap();
        let pack = net.stores[1].pack_lane(&again.lane, again.seq - 1).unwrap();
        let at = merged(&net.stores[0]);
        let store = &mut net.stores[0];
        let path = store.path().to_owned();
        let mut pruning = plan(store, &at, 5);
        if late {
            store.begin_later(&mut pruning).unwrap();
        }
        store.import_pack(&pack, MAX).unwrap();
        store.set_lane(&again.lane, &again.id).unwrap();
        if !late {
            store.begin_later(&mut pruning).unwrap();
        }
        pruning.carry_out().unwrap();
        store.flush().unwrap();
        bury(&path);
        assert_eq!(store.lane_commit(&again.id).unwrap().entries, entries);
        drop(net.stores.remove(0));
        clean(&path);
        let store = Store::open_with(&path, &options(net.dir.path(), 0)).unwrap();
        assert_eq!(
            store.lane_commit(&again.id).unwrap().entries,
            entries,
            "late: {late}"
        );
        reachable(&path);
    }
}

#[test]
fn what_was_let_go_is_not_there_while_others_still_read_it() {
    let mut net = Net::new(2);
    for _ in 0..5 {
        net.round(1);
    }
    let old = net.stores[1].block_at(2).unwrap();
    let old_lane = net.stores[1].read_block(&old).unwrap().header.lanes[0].head;
    let at = merged(&net.stores[0]);
    let store = &mut net.stores[0];
    let path = store.path().to_owned();
    let mut pruning = plan(store, &at, 4);
    store.begin_later(&mut pruning).unwrap();
    pruning.carry_out().unwrap();
    assert!(objects_of(&path).contains(&old.to_hex()));
    assert!(matches!(
        store.read_block(&old),
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(
        store.signed_lane_commit(&old_lane),
        Err(StoreError::NotFound { .. })
    ));
    // A store that was closed has no readers, and what waited for them is removed when it is opened.
    drop(net.stores.remove(0));
    let store = Store::open_with(&path, &options(net.dir.path(), 0)).unwrap();
    assert!(!objects_of(&path).contains(&old.to_hex()));
    assert_eq!(store.base(), Some(4));
    clean(&path);
}

#[test]
fn a_beginning_that_can_not_be_written_leaves_a_ledger_that_opens() {
    let mut net = Net::new(2);
    for _ in 0..5 {
        net.round(1);
    }
    let path = net.stores[0].path().to_owned();
    let at = merged(&net.stores[0]);
    let mut pruning = plan(&mut net.stores[0], &at, 4);
    // A folder stands where the new file is to be written.
    let in_the_way = path.join("shallow.new");
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(matches!(
        net.stores[0].begin_later(&mut pruning),
        Err(StoreError::Io { .. })
    ));
    drop(pruning);
    net.round(1);
    net.stores[0].flush().unwrap();
    let head = net.stores[0].head();
    drop(net.stores.remove(0));
    let store = Store::open_with(&path, &options(net.dir.path(), 0)).unwrap();
    assert_eq!((store.base(), store.head()), (None, head));
    assert_eq!(store.block_at(2), net.stores[0].block_at(2));
    clean(&path);
}

#[test]
fn what_a_fork_reads_here_stays() {
    let mut pair = Pair::new();
    pair.net.round(1);
    let store = &mut pair.net.stores[0];
    let at = merged(store);
    let mut pruning = plan(store, &at, 4);
    let refused = store.begin_later(&mut pruning);
    assert!(matches!(refused, Err(StoreError::Lent(_))), "{refused:?}");
    assert_eq!(store.base(), None);
    clean(pair.fork.path());
}

#[test]
fn merged_forks_stay_and_their_next_slices_are_taken() {
    let mut pair = Pair::new();
    pair.fork_block();
    let due = pair.due(1, 1);
    pair.merge(&due);
    for _ in 0..2 {
        pair.fork_block();
    }
    let next = pair.due(2, 3);
    pair.merge(&next);
    // The second node prunes: the fork stands on block 2, and its first slice was merged below the new beginning.
    let store = &mut pair.net.stores[1];
    let path = store.path().to_owned();
    let (height, _) = store.head();
    let at = merged(store);
    let mut pruning = plan(store, &at, height);
    store.begin_later(&mut pruning).unwrap();
    pruning.carry_out().unwrap();
    bury(&path);
    clean(&path);
    assert!(store.has_slice(&due.range) && store.has_slice(&next.range));
    pair.fork_block();
    let last = pair.due(4, 4);
    pair.merge(&last);
    let dir = pair.net.dir.path().to_owned();
    let clone = clone_of(&dir, &pair.net.stores[1], "clone");
    clean(&clone);
    assert!(pair.net.stores[1].has_slice(&last.range));
}

#[test]
fn a_lender_knows_who_borrows() {
    let pair = Pair::new();
    let mother = pair.net.stores[0].path();
    let fork = pair.fork.path().canonicalize().unwrap();
    assert_eq!(borrowers(mother), BTreeSet::from([fork.clone()]));
    assert_eq!(borrowers(&fork), BTreeSet::new());
    // It was moved: where it is now is known when it is opened there, and where it was counts no more.
    let moved = fork.with_file_name("moved.git");
    let mother = mother.to_owned();
    drop(pair.fork);
    std::fs::rename(&fork, &moved).unwrap();
    assert_eq!(borrowers(&mother), BTreeSet::new());
    drop(Store::open(&moved).unwrap());
    assert_eq!(
        borrowers(&mother),
        BTreeSet::from([moved.canonicalize().unwrap()])
    );
}
