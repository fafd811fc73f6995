//! The store between calls: reopening, marks, forks, finality, packs at rest.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use instar_ledger::store::{MAX_PACKS, OpenOptions, maintain_with};
use instar_ledger::*;
use support::*;

fn reopen(net: &mut Net, i: usize) -> Result<(), StoreError> {
    // The old one is dropped first, since it holds the lock.
    let kept = net.stores.split_off(i);
    let mut kept = kept.into_iter();
    drop(kept.next());
    let opened = Store::open_with(&repo_path(net.dir.path(), i), &options(net.dir.path(), i));
    let result = opened.map(|store| net.stores.push(store));
    net.stores.extend(kept);
    result
}

fn append(net: &mut Net, i: usize) -> Result<LaneCommit, StoreError> {
    let entry = transfer(&net.chain, i, 99);
    let key = key("lane", i);
    net.stores[i].append_lane(&key, &lane_of(i), &[entry], TIME_MS / 1000)
}

#[test]
fn what_was_told_survives_reopening_without_a_flush() {
    let mut net = Net::new(3);
    let blocks: Vec<_> = (0..3).map(|_| net.round(2)).collect();
    let pending = net.append(1, 1);
    let heads = net.stores[1].lane_heads();
    let tip = net.stores[1].tip_certificate().cloned();
    assert!(tip.is_some());
    for _ in 0..3 {
        reopen(&mut net, 1).unwrap();
        assert_eq!(net.stores[1].head(), (3, blocks[2]));
        assert_eq!(net.stores[1].lane_heads(), heads);
        assert_eq!(net.stores[1].tip_certificate(), tip.as_ref());
        assert_eq!(net.stores[1].block_at(2), Some(blocks[1]));
        assert_eq!(net.stores[1].lane_commit(&pending.id).unwrap(), pending);
        git(net.stores[1].path(), &["fsck", "--strict", "--full"]).unwrap();
    }
    // The lane goes on where it was, and so does the chain.
    append(&mut net, 1).unwrap();
    net.stores[1].flush().unwrap();
    assert_eq!(
        net.stores[1].lane_head(&lane_of(1)).unwrap().1,
        pending.seq + 1
    );
}

#[test]
fn one_writer_at_a_time() {
    let net = Net::new(1);
    let error = Store::open(net.stores[0].path()).err().unwrap();
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
}

#[test]
fn lost_list_of_heights_is_rebuilt() {
    let mut net = Net::new(2);
    let blocks: Vec<_> = (0..4).map(|_| net.round(1)).collect();
    net.stores[0].flush().unwrap();
    let heights = net.stores[0].path().join("instar/heights");
    for damage in [None, Some(vec![0u8; 40])] {
        match damage {
            None => std::fs::remove_file(&heights).unwrap(),
            Some(bytes) => std::fs::write(&heights, bytes).unwrap(),
        }
        reopen(&mut net, 0).unwrap();
        for (i, block) in blocks.iter().enumerate() {
            assert_eq!(net.stores[0].block_at(i as u64 + 1), Some(*block));
        }
        assert_eq!(std::fs::metadata(&heights).unwrap().len(), 5 * 32);
    }
}

#[test]
fn store_restored_from_a_backup_does_not_sign() {
    let mut net = Net::new(2);
    net.append(0, 1);
    net.stores[0].flush().unwrap();
    let repo = repo_path(net.dir.path(), 0);
    let backup = net.dir.path().join("backup");
    assert!(copy(&repo, &backup));
    let second = net.append(0, 1);
    let pack = net.stores[0].pack_lane(&second.lane, 0).unwrap();
    drop(net.stores.remove(0));
    std::fs::remove_dir_all(&repo).unwrap();
    assert!(copy(&backup, &repo));
    let store = Store::open_with(&repo, &options(net.dir.path(), 0)).unwrap();
    net.stores.insert(0, store);
    let error = append(&mut net, 0).unwrap_err().to_string();
    assert!(
        error.contains("mark stands at 2, the lane in the store at 1"),
        "{error}"
    );
    // A peer still has the newer commit: with it the lane goes on, without a new incarnation.
    net.stores[0].import_pack(&pack, 1 << 20).unwrap();
    net.stores[0].set_lane(&second.lane, &second.id).unwrap();
    assert_eq!(append(&mut net, 0).unwrap().seq, 3);
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> bool {
    std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .unwrap()
        .success()
}

#[test]
fn lost_or_damaged_mark_asks_for_a_new_incarnation() {
    let mut net = Net::new(1);
    net.append(0, 1);
    let mark = mark_path(net.dir.path(), 0);
    let whole = std::fs::read(&mark).unwrap();
    for damage in ["missing", "damaged", "older"] {
        match damage {
            "missing" => std::fs::remove_file(&mark).unwrap(),
            "damaged" => {
                let mut bytes = whole.clone();
                bytes[700] ^= 1;
                std::fs::write(&mark, bytes).unwrap();
            }
            _ => {
                std::fs::remove_file(&mark).unwrap();
                let start = Mark::start(net.chain, lane_of(0));
                drop(MarkFile::create(&mark, start).unwrap());
            }
        }
        reopen(&mut net, 0).unwrap();
        let error = append(&mut net, 0).unwrap_err();
        assert!(matches!(error, StoreError::Mark(_)), "{damage}: {error}");
        assert!(
            error.to_string().contains("new lane incarnation"),
            "{damage}: {error}"
        );
    }
    let second = Lane {
        incarnation: 2,
        ..lane_of(0)
    };
    assert!(net.stores[0].begin_incarnation(&lane_of(0)).is_err());
    net.stores[0].begin_incarnation(&second).unwrap();
    let entry = transfer(&net.chain, 0, 50);
    let commit = net.stores[0]
        .append_lane(&key("lane", 0), &second, &[entry], TIME_MS / 1000)
        .unwrap();
    assert_eq!((commit.seq, commit.parent), (1, Oid::from(net.chain)));
    // The old incarnation is over.
    let error = append(&mut net, 0).unwrap_err().to_string();
    assert!(error.contains("is of lane"), "{error}");
}

#[test]
fn store_without_a_mark_does_not_sign() {
    let mut net = Net::new(1);
    net.stores.clear();
    let store = Store::open_with(&repo_path(net.dir.path(), 0), &OpenOptions::default());
    net.stores.push(store.unwrap());
    assert!(matches!(append(&mut net, 0), Err(StoreError::Mark(_))));
}

#[test]
fn lane_fork_is_seen_and_becomes_evidence() {
    let mut net = Net::new(2);
    let first = net.append(0, 1);
    // The same device, restored with its mark: what must never happen, made by hand.
    let dir = tempfile::tempdir().unwrap();
    drop(
        MarkFile::create(
            &mark_path(dir.path(), 0),
            Mark::start(net.chain, lane_of(0)),
        )
        .unwrap(),
    );
    let (mut other, _) = Store::create_with(
        &repo_path(dir.path(), 0),
        &genesis("test"),
        &options(dir.path(), 0),
    )
    .unwrap();
    let entries = [transfer(&net.chain, 0, 8)];
    let twin = other
        .append_lane(&key("lane", 0), &lane_of(0), &entries, 1)
        .unwrap();
    let packs = [
        net.stores[0].pack_commit(&first.id).unwrap(),
        other.pack_commit(&twin.id).unwrap(),
    ];
    for pack in packs {
        net.stores[1].import_pack(&pack, 1 << 20).unwrap();
    }
    let store = &mut net.stores[1];
    store.set_lane(&lane_of(0), &first.id).unwrap();
    let error = store.set_lane(&lane_of(0), &twin.id).unwrap_err();
    let StoreError::Fork {
        ours, theirs, seq, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((ours, theirs, seq), (first.id, twin.id, 1));
    let bytes = [ours, theirs].map(|id| store.signed_lane_commit(&id).unwrap().to_bytes());
    let evidence = equivocation::Evidence::of(&net.chain, &bytes[0], &bytes[1]).unwrap();
    assert_eq!(evidence.check(&net.chain).unwrap().lane, lane_of(0));

    // The trunk decides: what it merged first stands, and the lane follows it.
    let draft = draft(store, &[vec![twin.clone()]]);
    let block = store.write_block(&draft).unwrap();
    store
        .finalize(&block, &certificate(&net.chain, 1, 0, block))
        .unwrap();
    assert_eq!(store.lane_head(&lane_of(0)), Some((twin.id, 1)));
}

/// A flush writes objects, heights, refs, and starts the journal over, in this order; here the power goes in between.
#[test]
fn crash_between_the_steps_of_a_flush() {
    let mut net = Net::new(2);
    net.round(2);
    net.stores[0].flush().unwrap();
    let last = net.round(2);
    let pending = net.append(0, 1);
    let repo = repo_path(net.dir.path(), 0);
    let before = net.dir.path().join("before");
    assert!(copy(&repo, &before));
    net.stores[0].flush().unwrap();
    let heads = net.stores[0].lane_heads();
    let after = net.dir.path().join("after");
    assert!(copy(&repo, &after));
    drop(net.stores.remove(0));
    let steps = ["objects", "instar/heights", "packed-refs"];
    for done in 0..=steps.len() {
        std::fs::remove_dir_all(&repo).unwrap();
        assert!(copy(&before, &repo));
        for step in &steps[..done] {
            let to = repo.join(step);
            if to.is_dir() {
                std::fs::remove_dir_all(&to).unwrap();
            }
            assert!(copy(&after.join(step), &to));
        }
        // What was half made lies about.
        std::fs::create_dir_all(repo.join("instar/packing")).unwrap();
        std::fs::write(repo.join("instar/packing/pack_git2_half"), b"PACK").unwrap();
        std::fs::write(repo.join("packed-refs.new"), b"half a l").unwrap();
        let store = Store::open_with(&repo, &options(net.dir.path(), 0)).unwrap();
        assert_eq!(store.head(), (2, last), "after step {done}");
        assert_eq!(store.lane_heads(), heads, "after step {done}");
        assert_eq!(store.tip_certificate().unwrap().block, last);
        assert_eq!(store.lane_commit(&pending.id).unwrap(), pending);
        assert!(!repo.join("instar/packing/pack_git2_half").exists());
        let said = git(&repo, &["fsck", "--strict", "--full"]).unwrap();
        assert!(
            !said.contains("error") && !said.contains("missing"),
            "{said}"
        );
        let tip = git(&repo, &["rev-parse", "tip^"]).unwrap();
        assert_eq!(tip.trim(), last.to_hex());
    }
}

#[test]
fn only_the_next_block_becomes_final() {
    let mut net = Net::new(1);
    let first = net.round(1);
    let certified = certificate(&net.chain, 1, 0, first);
    // The head again is no error; anything else that is not next is.
    net.stores[0].finalize(&first, &certified).unwrap();
    let commit = net.append(0, 1);
    let next = draft(&net.stores[0], &[vec![commit]]);
    let second = net.stores[0].write_block(&next).unwrap();
    let wrong = net.stores[0].finalize(&second, &certified).unwrap_err();
    assert!(matches!(wrong, StoreError::OtherBlock { .. }), "{wrong}");
    let wrong = certificate(&net.chain, 3, 0, second);
    let wrong = net.stores[0].finalize(&second, &wrong).unwrap_err();
    assert!(matches!(wrong, StoreError::OtherBlock { .. }), "{wrong}");
    let certified = certificate(&net.chain, 2, 0, second);
    net.stores[0].finalize(&second, &certified).unwrap();
    let back = certificate(&net.chain, 1, 0, first);
    let wrong = net.stores[0].finalize(&first, &back).unwrap_err();
    assert!(matches!(wrong, StoreError::NotNext { .. }), "{wrong}");
}

#[test]
fn a_lane_is_merged_up_to_a_prefix() {
    let mut net = Net::new(1);
    let commits: Vec<_> = (0..5).map(|_| net.append(0, 1)).collect();
    let store = &mut net.stores[0];
    let ids: Vec<_> = commits.iter().map(|c| c.id).collect();
    assert_eq!(store.lane_range(&ids[4], 0).unwrap(), ids);
    assert_eq!(store.lane_range(&ids[3], 2).unwrap(), ids[2..4]);
    assert_eq!(store.lane_range(&ids[3], 4).unwrap(), []);
    let draft = draft(store, &[commits[..3].to_vec()]);
    let block = store.write_block(&draft).unwrap();
    store
        .finalize(&block, &certificate(&net.chain, 1, 0, block))
        .unwrap();
    assert_eq!(store.lane_head(&lane_of(0)), Some((ids[4], 5)));
}

#[test]
fn packs_stay_few_and_readers_are_not_disturbed() {
    let mut net = Net::new(1);
    let mut blocks = Vec::new();
    for _ in 0..12 {
        blocks.push(net.round(2));
        net.stores[0].flush().unwrap();
    }
    let repo = net.stores[0].path().to_owned();
    let packs = || {
        std::fs::read_dir(repo.join("objects/pack"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().extension().unwrap() == "pack")
            .count()
    };
    assert_eq!(packs(), 13);
    // An auditor holds the repository open all the while.
    let reader = Store::open_clone(&repo).unwrap();
    let hour = Duration::from_secs(3600);
    let report = maintain_with(&repo, 4, hour, hour).unwrap();
    assert_eq!(
        (report.packs, report.rolled_up, report.tips_dropped),
        (1, 13, 0)
    );
    assert_eq!(packs(), 14);
    let report = maintain_with(&repo, 4, Duration::ZERO, Duration::ZERO).unwrap();
    assert_eq!((report.packs, report.removed), (1, 13));
    assert_eq!(packs(), 1);
    for store in [&net.stores[0], &reader] {
        for block in &blocks {
            let block = store.read_block(block).unwrap();
            assert_eq!(
                store
                    .lane_commit(&block.header.lanes[0].head)
                    .unwrap()
                    .entries
                    .len(),
                2
            );
        }
    }
    // The store goes on; old tips are left out once their time is over, the newest never.
    for _ in 0..4 {
        net.round(1);
        net.stores[0].flush().unwrap();
    }
    let tips = |repo: &std::path::Path| {
        git(
            repo,
            &[
                "cat-file",
                "--batch-all-objects",
                "--batch=%(objecttype)",
                "--unordered",
            ],
        )
        .unwrap()
        .lines()
        .filter(|l| l.starts_with("tip "))
        .count()
    };
    assert_eq!(tips(&repo), 16);
    let report = maintain_with(&repo, 0, Duration::ZERO, Duration::ZERO).unwrap();
    assert_eq!(
        report.tips_dropped, 3,
        "the large pack of before is not touched"
    );
    maintain_with(&repo, 4, Duration::ZERO, Duration::ZERO).unwrap();
    assert_eq!(tips(&repo), 13);
    let fsck = git(&repo, &["fsck", "--strict", "--full"]).unwrap();
    assert!(
        !fsck.contains("error") && !fsck.contains("missing"),
        "{fsck}"
    );
    reopen(&mut net, 0).unwrap();
    assert_eq!(net.stores[0].head().0, 16);
}

#[test]
fn a_store_looks_after_its_packs_by_itself() {
    let mut net = Net::new(1);
    for _ in 0..2 * MAX_PACKS {
        net.append(0, 1);
        net.stores[0].flush().unwrap();
    }
    // What was rolled up is marked, and goes after its grace.
    let doomed = net.stores[0].path().join("instar/doomed");
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::read_dir(&doomed).map_or(0, Iterator::count) < MAX_PACKS / 2 {
        assert!(Instant::now() < deadline, "no packs were rolled up");
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = git(net.stores[0].path(), &["fsck", "--strict", "--full"]).unwrap();
    assert!(
        !said.contains("error") && !said.contains("missing"),
        "{said}"
    );
}
