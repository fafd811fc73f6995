//! A fork comes back: slices of its trunk in blocks of its mother, real merges for stock git.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use instar_attest::{ChainId, Digest};
use instar_ledger::fork::{self, ForkDue, ForkPart, ForkRange, MAX_SLICE_BYTES};
use instar_ledger::grammar::{self, GrammarError, Kind, LanePayload, Object};
use instar_ledger::store::{BaseCommit, OpenOptions, has_commit};
use instar_ledger::*;
use serde_json::json;
use support::*;

const MAX_PACK: usize = 8 << 20;

/// A mother of three blocks, and her fork at the second.
struct Pair {
    net: Net,
    fork: Store,
    chain: ChainId,
    time_ms: u64,
}

impl Pair {
    fn new() -> Self {
        let mut net = Net::new(2);
        for _ in 0..3 {
            net.round(2);
        }
        net.stores[0].flush().unwrap();
        let mut genesis = genesis("fork");
        genesis.time_ms = TIME_MS + 1_000_000;
        genesis.fork = Some(GenesisFork {
            dapps: vec!["coin".into()],
            header: net.stores[0].signed_header(2).unwrap().unwrap(),
        });
        let options = OpenOptions {
            lane_mark: Some(net.dir.path().join("fork.mark")),
            mother: Some(net.stores[0].path().into()),
        };
        let path = net.dir.path().join("fork.git");
        let (mut fork, chain) = Store::create_with(&path, &genesis, &options).unwrap();
        fork.begin_incarnation(&lane_of(0)).unwrap();
        Self {
            net,
            fork,
            chain,
            time_ms: genesis.time_ms,
        }
    }

    /// A block of the fork with one entry, which took effect there, and one that did not.
    fn fork_block(&mut self) -> (Oid, Digest) {
        let nonce = self.fork.head().0 * 2;
        let entries = [0, 1].map(|i| transfer(&self.chain, 0, nonce + i));
        let time_s = TIME_MS / 1000;
        let key = key("lane", 0);
        let commit = self
            .fork
            .append_lane(&key, &lane_of(0), &entries, time_s)
            .unwrap();
        let mut draft = draft(&self.fork, &[vec![commit]]);
        if let Some(ReceiptLine::Entry(receipt)) = draft.receipts.last_mut() {
            receipt.outcome = Outcome::Rejected;
        }
        draft.header.receipts = receipt::digest(&draft.receipts).unwrap();
        self.finish(draft);
        (self.fork.head().1, entries[0].id())
    }

    fn finish(&mut self, mut draft: BlockDraft) {
        draft.header.time_ms = self.time_ms + draft.header.height;
        let block = self.fork.write_block(&draft).unwrap();
        let certificate = certificate(&self.chain, draft.header.height, 0, block);
        self.fork.finalize(&block, &certificate).unwrap();
        self.fork.flush().unwrap();
    }

    /// The slice of the fork's blocks `from` to `to`.
    fn due(&self, from: u64, to: u64) -> ForkDue {
        ForkDue {
            after: self.fork.block_at(from - 1).unwrap(),
            range: ForkRange {
                chain: self.chain,
                from,
                head: self.fork.block_at(to).unwrap(),
                to,
            },
        }
    }

    /// The next block of the mother, merging a slice that its first node has.
    fn draft(&self, range: ForkRange) -> BlockDraft {
        let mut draft = draft(&self.net.stores[0], &[]);
        draft.header.forks = vec![range];
        draft
    }

    /// The first node takes the slice from the fork, the second from the block.
    fn merge(&mut self, due: &ForkDue) -> Oid {
        let first = &mut self.net.stores[0];
        first.take_slice(self.fork.path(), due).unwrap();
        let draft = self.draft(due.range);
        let block = self.net.stores[0].write_block(&draft).unwrap();
        let pack = self.net.stores[0].pack_block(&block).unwrap();
        let certificate = certificate(&self.net.chain, draft.header.height, 0, block);
        let imported = self.net.stores[1]
            .import_block(&pack, MAX_PACK, &[*due])
            .unwrap();
        assert_eq!(imported.blocks, [block]);
        for store in &mut self.net.stores {
            assert_eq!(store.read_block(&block).unwrap().header, draft.header);
            store.finalize(&block, &certificate).unwrap();
            store.flush().unwrap();
        }
        block
    }
}

fn clone_of(dir: &Path, store: &Store, name: &str) -> std::path::PathBuf {
    let from = format!("file://{}", store.path().display());
    git(dir, &["clone", "-q", &from, name]).unwrap();
    dir.join(name)
}

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
