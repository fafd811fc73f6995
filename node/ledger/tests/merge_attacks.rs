//! What comes of a fork that was never due, stands elsewhere, is too large, or was not signed by whom it says.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use instar_attest::{ChainId, Digest};
use instar_ledger::fork::{self, ForkDue, ForkRange, MAX_SLICE_BYTES};
use instar_ledger::grammar::{self, GrammarError, Kind, LanePayload, Object};
use instar_ledger::*;
use serde_json::json;
use support::forked::*;
use support::*;

#[test]
fn what_is_not_due_is_refused() {
    let mut pair = Pair::new();
    pair.fork_block();
    pair.fork_block();
    let due = pair.due(1, 2);
    pair.net.stores[0]
        .take_slice(pair.fork.path(), &due)
        .unwrap();
    let draft = pair.draft(due.range);
    let block = pair.net.stores[0].write_block(&draft).unwrap();
    let pack = pair.net.stores[0].pack_block(&block).unwrap();
    let first = pair.due(1, 1);
    let mut other = due;
    other.range.chain = ChainId::from_bytes([4; 32]);
    let second = &mut pair.net.stores[1];
    for due in [&[][..], &[first], &[other]] {
        let refused = second.import_block(&pack, MAX_PACK, due);
        assert!(
            matches!(refused, Err(StoreError::NotDue { .. })),
            "{refused:?}"
        );
    }
    // Nor is it taken from whoever speaks for a lane.
    assert!(second.import_pack(&pack, MAX_PACK).is_err());
    assert!(!second.has_slice(&due.range), "nothing was left behind");
    second.import_block(&pack, MAX_PACK, &[first, due]).unwrap();
}

#[test]
fn a_slice_without_its_block_and_a_block_without_its_slice() {
    let mut pair = Pair::new();
    pair.fork_block();
    let due = pair.due(1, 1);
    pair.net.stores[0]
        .take_slice(pair.fork.path(), &due)
        .unwrap();
    let draft = pair.draft(due.range);
    let lonely = pair.net.stores[1].write_block(&draft);
    assert!(
        matches!(lonely, Err(StoreError::NotFound { .. })),
        "{lonely:?}"
    );
    let block = pair.net.stores[0].write_block(&draft).unwrap();
    let whole =
        instar_ledger::pack::read(&pair.net.stores[0].pack_block(&block).unwrap(), MAX_PACK)
            .unwrap();
    // Three objects of the block with its certificate and its commit stand last.
    let (slice, own) = whole.split_at(whole.len() - 5);
    for part in [slice, own] {
        let part = instar_ledger::pack::write(part.iter().map(|o| (o.kind, o.bytes.as_slice())));
        let refused = pair.net.stores[1].import_block(&part, MAX_PACK, &[due]);
        assert!(refused.is_err(), "{refused:?}");
    }
    assert!(!pair.net.stores[1].has_slice(&due.range));
}

#[test]
fn slices_that_stand_elsewhere() {
    let mut pair = Pair::new();
    for _ in 0..3 {
        pair.fork_block();
    }
    let path = pair.fork.path().to_owned();
    let second = pair.due(2, 3);
    let mut gap = second;
    gap.after = pair.chain.into();
    // A height that is not the block's: a part list whose middle id is another block's.
    let mut shifted = pair.due(1, 2);
    shifted.range.head = pair.fork.block_at(3).unwrap();
    let mut foreign = pair.due(1, 2);
    foreign.range.head = pair.net.stores[0].block_at(2).unwrap();
    let first = &mut pair.net.stores[0];
    let refused = first.take_slice(&path, &gap).map(drop);
    assert!(
        matches!(refused, Err(StoreError::SliceGap { .. })),
        "{refused:?}"
    );
    let refused = first.take_slice(&path, &shifted).map(drop);
    assert!(
        matches!(
            refused,
            Err(StoreError::Grammar {
                source: GrammarError::Contradiction(_),
                ..
            })
        ),
        "{refused:?}"
    );
    let refused = first.take_slice(&path, &foreign).map(drop);
    assert!(
        matches!(
            refused,
            Err(StoreError::Grammar {
                source: GrammarError::OtherChain { .. },
                ..
            })
        ),
        "{refused:?}"
    );
    // The second slice of a fork of which nothing is merged.
    let refused = first.take_slice(&path, &second).map(drop);
    assert!(
        matches!(refused, Err(StoreError::NotFound { .. })),
        "{refused:?}"
    );

    // A chain of the same genesis that went another way before the fork left.
    let mut twin = Net::new(1);
    for _ in 0..3 {
        twin.round(1);
    }
    let refused = twin.stores[0].take_slice(&path, &pair.due(1, 3)).map(drop);
    assert!(
        matches!(refused, Err(StoreError::OtherMother { .. })),
        "{refused:?}"
    );
}

/// Puts an object into a repository with stock git.
fn put(folder: &Path, object: &Object) {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["hash-object", "-w", "--stdin", "-t", object.kind.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&object.bytes)
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let id = String::from_utf8(output.stdout).unwrap();
    assert_eq!(id.trim(), object.id.to_hex());
}

/// Attack: the fork's validators certified an entry that its author never signed.
#[test]
fn a_forged_signature_inside_a_block_of_the_fork() {
    let mut pair = Pair::new();
    let mut entry = transfer(&pair.chain, 0, 0);
    entry.sig = transfer(&pair.chain, 0, 7).sig;
    let blob = Object::new(
        Kind::Blob,
        grammar::entries_jsonl(std::slice::from_ref(&entry)).unwrap(),
    );
    let tree = grammar::single_file_tree("entries.jsonl", &blob);
    let payload = LanePayload {
        chain: pair.chain,
        entries: 1,
        lane: lane_of(0),
        parent: pair.chain.into(),
        seq: 1,
        time_s: TIME_MS / 1000,
        tree: tree.id,
    };
    let signed = payload.sign(&key("lane", 0)).unwrap();
    let commit = Object::new(Kind::Commit, signed.to_bytes());
    let lane = LaneCommit {
        id: commit.id,
        lane: lane_of(0),
        seq: 1,
        parent: pair.chain.into(),
        time_s: TIME_MS / 1000,
        entries: vec![entry],
    };
    let mut draft = draft(&pair.fork, &[vec![lane]]);
    draft.header.time_ms = pair.time_ms + 1;
    let mut objects = vec![commit, tree, blob];
    objects.extend(objects_of(&draft));
    let head = objects.last().unwrap().id;
    for object in &objects {
        put(pair.fork.path(), object);
    }
    let due = ForkDue {
        after: pair.chain.into(),
        range: ForkRange {
            chain: pair.chain,
            from: 1,
            head,
            to: 1,
        },
    };
    let refused = pair.net.stores[0]
        .take_slice(pair.fork.path(), &due)
        .map(drop);
    let forged = |refused: &Result<(), StoreError>| {
        matches!(
            refused,
            Err(StoreError::Grammar {
                source: GrammarError::Entry { .. },
                ..
            })
        )
    };
    assert!(forged(&refused), "{refused:?}");
    // Neither from a proposer who has left the check out.
    let genesis = grammar::genesis_objects(pair.fork.genesis()).unwrap();
    objects.splice(0..0, genesis);
    objects.extend(objects_of(&pair.draft(due.range)));
    let pack = instar_ledger::pack::write(objects.iter().map(|o| (o.kind, o.bytes.as_slice())));
    let refused = pair.net.stores[1]
        .import_block(&pack, MAX_PACK, &[due])
        .map(drop);
    assert!(forged(&refused), "{refused:?}");
    assert!(!pair.net.stores[1].has_slice(&due.range));
}

/// The objects of a block, its commit last.
fn objects_of(draft: &BlockDraft) -> Vec<Object> {
    let mut objects = grammar::block_tree(draft).unwrap();
    let bytes = grammar::block_commit(&objects[0].id, &draft.header, &draft.receipts);
    objects.push(Object::new(Kind::Commit, bytes));
    objects
}

/// Attack: a part that brings more than a block may carry, in bytes that compress to nothing.
#[test]
fn a_slice_that_is_too_large() {
    let mut pair = Pair::new();
    for _ in 0..2 {
        let mut draft = draft(&pair.fork, &[]);
        let line = |i: usize| {
            ReceiptLine::Event(Event {
                body: json!({"text": "x".repeat(100_000)}),
                event: "noise".into(),
                id: Digest::of(&[i as u8]),
            })
        };
        draft.receipts = (0..MAX_SLICE_BYTES / 2 / 100_000 + 1).map(line).collect();
        draft.header.receipts = receipt::digest(&draft.receipts).unwrap();
        pair.finish(draft);
    }
    let parts = fork::cut(pair.fork.block_sizes(0, 2).unwrap()).unwrap();
    assert_eq!(parts.len(), 2, "nobody honest cuts it so");
    let due = pair.due(1, 2);
    let refused = pair.net.stores[0]
        .take_slice(pair.fork.path(), &due)
        .map(drop);
    assert!(
        matches!(
            refused,
            Err(StoreError::Grammar {
                source: GrammarError::TooMany { .. },
                ..
            })
        ),
        "{refused:?}"
    );
    pair.merge(&pair.due(1, 1));
    pair.merge(&pair.due(2, 2));
}

#[test]
fn a_header_that_merges_what_none_can() {
    let mut pair = Pair::new();
    pair.fork_block();
    let range = pair.due(1, 1).range;
    let refused = |forks: Vec<ForkRange>| {
        let mut draft = pair.draft(range);
        draft.header.forks = forks;
        grammar::block_tree(&draft).map(drop)
    };
    refused(vec![range]).unwrap();
    assert!(refused(vec![range, range]).is_err(), "one at a time");
    let own = ForkRange {
        chain: pair.net.chain,
        ..range
    };
    assert!(refused(vec![own]).is_err());
    assert!(refused(vec![ForkRange { from: 0, ..range }]).is_err());
    assert!(refused(vec![ForkRange { from: 2, ..range }]).is_err());
    let long = ForkRange {
        to: fork::MAX_SLICE_BLOCKS + 1,
        ..range
    };
    assert!(refused(vec![long]).is_err());
}

/// A fork that has merged a fork of its own would bring a third chain.
#[test]
fn a_fork_that_has_merged_a_fork_of_its_own() {
    let mut pair = Pair::new();
    pair.fork_block();
    let range = pair.due(1, 1).range;
    let mut draft = draft(&pair.fork, &[]);
    draft.header.time_ms = pair.time_ms + 2;
    draft.header.forks = vec![ForkRange {
        chain: ChainId::from_bytes([8; 32]),
        ..range
    }];
    let objects = objects_of(&draft);
    for object in &objects {
        put(pair.fork.path(), object);
    }
    let mut due = pair.due(1, 1);
    (due.range.to, due.range.head) = (2, objects.last().unwrap().id);
    let refused = pair.net.stores[0]
        .take_slice(pair.fork.path(), &due)
        .map(drop);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("a fork of its own"), "{error}");
}
