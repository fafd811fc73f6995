//! A clone with one thing changed, in each way there is, and signed by validators that collude where that helps: each is
//! refused by the name of the object and of the rule.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use instar_audit::{Settings, Verdict, Wrong, verify};
use instar_ledger::grammar::{Kind, LanePayload, SignedLaneCommit};
use instar_ledger::{
    BlockDraft, Certificate, DeviceId, Entry, LaneRange, Oid, Outcome, ReceiptLine, Store,
};
use serde_json::json;
use support::forge::{Forge, loose, unpack};
use support::{Chain, key};

/// A short chain whose head merges a lane commit of two entries, and its clone.
fn cloned() -> (Chain, PathBuf) {
    let mut chain = Chain::new();
    for _ in 0..3 {
        let transfer = chain.entry(0, "coin", json!({"amount": "5", "to": "bob"}));
        let native = chain.entry(1, "upgrade", json!({"op": "nonsense"}));
        chain.block(&[transfer, native]);
    }
    let clone = chain.clone();
    (chain, clone)
}

fn check(clone: &Path) -> Verdict {
    verify(clone, Settings::default())
}

fn wrong(clone: &Path) -> Wrong {
    let verdict = check(clone);
    assert!(!verdict.ok);
    assert_eq!(verdict.cannot_tell, None);
    verdict.wrong.unwrap()
}

#[test]
fn an_honest_clone_holds() {
    let (_chain, clone) = cloned();
    let verdict = check(&clone);
    assert!(verdict.ok, "{:?}", verdict.wrong);
    assert_eq!(verdict.checked.blocks, 3);
    assert_eq!(verdict.checked.certificates, 3);
    assert_eq!(verdict.checked.entries, 6);
    assert_eq!(verdict.checked.state_roots, 3, "the coin wrote nothing");
    assert_eq!(verdict.checked.signatures, 6 + 3 + 9);
}

/// Changes the head, has it signed, and gives the rule that finds it.
fn forged(
    change: impl FnOnce(&Forge, &mut BlockDraft),
    certify: impl FnOnce(&mut Certificate),
) -> Wrong {
    let (chain, clone) = cloned();
    let forge = Forge::open(&clone);
    let mut draft = forge.head();
    change(&forge, &mut draft);
    let id = forge.replace(&chain, draft, certify);
    let wrong = wrong(&clone);
    assert_eq!(wrong.height, Some(3), "{wrong}");
    let named = wrong.object.unwrap();
    // The object is the block, its tip, or what it merges; never one of the honest blocks below.
    assert!(named == id || wrong.step != "native-rules", "{wrong}");
    wrong
}

fn honestly(_: &mut Certificate) {}

fn headers(change: impl FnOnce(&mut BlockDraft)) -> &'static str {
    forged(|_, draft| change(draft), honestly).rule
}

#[test]
fn a_header_that_says_something_else() {
    let other = instar_attest::Digest::of(b"other");
    assert_eq!(headers(|d| d.header.state_root = other), "state-root");
    assert_eq!(
        headers(|d| d.header.validators = other),
        "validators-differ"
    );
    assert_eq!(headers(|d| d.header.protocol = 2), "protocol-differs");
    assert_eq!(headers(|d| d.header.kernel = 2), "kernel-differs");
    assert_eq!(
        headers(|d| d.header.time_ms = support::TIME_MS),
        "block-time"
    );
    let extra = |d: &mut BlockDraft| {
        d.header.dapps.insert("doors".into(), other);
    };
    assert_eq!(headers(extra), "dapps-differ");
    let left_out = |d: &mut BlockDraft| d.header.left_out.push("coin".into());
    assert_eq!(headers(left_out), "receipt-differs");
    let unknown = |d: &mut BlockDraft| d.header.left_out.push("no-such-dapp".into());
    assert_eq!(headers(unknown), "left-out");
}

#[test]
fn receipts_that_are_changed_missing_or_too_many() {
    let change = |d: &mut BlockDraft| {
        let Some(ReceiptLine::Entry(receipt)) = d.receipts.last_mut() else {
            panic!("the last receipt is an entry's");
        };
        receipt.outcome = Outcome::Applied;
        receipt.rule = None;
    };
    assert_eq!(headers(change), "receipt-differs");
    let missing = |d: &mut BlockDraft| drop(d.receipts.pop());
    assert_eq!(headers(missing), "receipt-missing");
    let twice = |d: &mut BlockDraft| d.receipts.push(d.receipts[0].clone());
    assert_eq!(headers(twice), "receipt-extra");
    let swapped = |d: &mut BlockDraft| d.receipts.swap(0, 1);
    assert_eq!(headers(swapped), "receipt-missing");
}

#[test]
fn certificates_that_certify_nothing() {
    let certificate = |change: fn(&mut Certificate)| forged(|_, _| {}, change).rule;
    assert_eq!(
        certificate(|c| {
            c.signatures.pop();
        }),
        "certificate-power"
    );
    assert_eq!(
        certificate(|c| {
            c.signatures.pop();
            c.signatures.push(c.signatures[1]);
        }),
        "certificate-order",
        "a signer counted twice"
    );
    assert_eq!(
        certificate(|c| c.signatures.swap(0, 1)),
        "certificate-order"
    );
    assert_eq!(certificate(|c| c.round = 1), "certificate-signature");
    assert_eq!(
        certificate(|c| c.signatures[0].sig = c.signatures[1].sig),
        "certificate-signature"
    );
    // Signed by somebody who has no vote at this height, such as a validator of an old set.
    let stranger = certificate(|c| {
        c.signatures[0].validator = key("consensus", 7).public();
        c.signatures.sort_by_key(|s| s.validator);
    });
    assert_eq!(stranger, "certificate-signer");
}

#[test]
fn a_certificate_of_another_height() {
    let (chain, clone) = cloned();
    let forge = Forge::open(&clone);
    let head = Store::open_clone(&clone).unwrap().head().1;
    // Honestly signed, for this block, at the wrong height.
    let certificate = support::certificate(&chain.chain, 4, head, 3);
    forge.certify(&chain, &certificate, forge.head().header.time_ms);
    let wrong = wrong(&clone);
    assert_eq!(
        (wrong.rule, wrong.step),
        ("block-contradiction", "certificates")
    );
}

/// Has the head merge a commit that was put there by hand.
fn merging(commit: impl FnOnce(&Chain, &Forge, &Oid) -> Vec<u8>) -> Wrong {
    let (chain, clone) = cloned();
    let forge = Forge::open(&clone);
    let mut draft = forge.head();
    let bytes = commit(&chain, &forge, &draft.header.lanes[0].head);
    let id = forge.put(Kind::Commit, &bytes);
    draft.header.lanes[0].head = id;
    forge.replace(&chain, draft, honestly);
    let wrong = wrong(&clone);
    assert_eq!((wrong.height, wrong.object), (Some(3), Some(id)), "{wrong}");
    wrong
}

#[test]
fn a_lane_commit_wrapped_again() {
    // Its armour at another width: git verifies it, under another id.
    let wrong = merging(|_, forge, head| {
        let text = String::from_utf8(forge.get(head)).unwrap();
        let (before, rest) = text.split_once("SIGNATURE-----\n ").unwrap();
        let (armour, after) = rest.split_once("\n -----END").unwrap();
        let armour = armour.replace("\n ", "");
        let (a, b) = armour.split_at(64);
        format!("{before}SIGNATURE-----\n {a}\n {b}\n -----END{after}").into_bytes()
    });
    assert!(
        ["object-bytes", "lane-armour"].contains(&wrong.rule),
        "{wrong}"
    );
    // A header beside the signature.
    let wrong = merging(|_, forge, head| {
        let text = String::from_utf8(forge.get(head)).unwrap();
        text.replacen("\ngpgsig-sha256", "\ngpgsig junk\ngpgsig-sha256", 1)
            .into_bytes()
    });
    assert_eq!(wrong.rule, "object-bytes");
}

#[test]
fn a_lane_commit_that_was_not_signed_like_this() {
    // The signature of another payload.
    let wrong = merging(|chain, forge, head| {
        let mut commit = SignedLaneCommit::from_bytes(&forge.get(head), &chain.chain).unwrap();
        commit.payload.time_s += 1;
        commit.to_bytes()
    });
    assert_eq!(wrong.rule, "lane-signature");
    // Signed by another device's key.
    let sign_again = |change: fn(&mut LanePayload), by: usize| {
        move |chain: &Chain, forge: &Forge, head: &Oid| {
            let commit = SignedLaneCommit::from_bytes(&forge.get(head), &chain.chain).unwrap();
            let mut payload = commit.payload;
            change(&mut payload);
            payload.sign(&key("lane", by)).unwrap().to_bytes()
        }
    };
    assert_eq!(merging(sign_again(|_| {}, 1)).rule, "lane-key");
    assert_eq!(merging(sign_again(|p| p.seq += 1, 0)).rule, "lane-sequence");
    assert_eq!(
        merging(sign_again(|p| p.lane.incarnation = 2, 0)).rule,
        "other-lane"
    );
    assert_eq!(
        merging(sign_again(|p| p.entries = 1, 0)).rule,
        "object-bytes"
    );
    // Beside what is merged: it leaves out the commit before.
    let skips = sign_again(|p| p.parent = Oid::from_bytes([7; 32]), 0);
    assert_eq!(merging(skips).rule, "lane-gap");
}

/// Has the head merge a commit with these lines as its entries.
fn saying(lines: impl FnOnce(&Chain, Vec<Entry>) -> Vec<String>) -> &'static str {
    merging(|chain, forge, head| {
        let commit = SignedLaneCommit::from_bytes(&forge.get(head), &chain.chain).unwrap();
        let store = Store::open_clone(forge.repo.workdir().unwrap()).unwrap();
        let lines = lines(chain, store.lane_commit(head).unwrap().entries);
        let entries = lines.len();
        let blob = forge.put(Kind::Blob, (lines.join("\n") + "\n").as_bytes());
        let mut tree = b"100644 entries.jsonl\0".to_vec();
        tree.extend(blob.as_bytes());
        let tree = forge.put(Kind::Tree, &tree);
        let payload = LanePayload {
            tree,
            entries,
            ..commit.payload
        };
        payload.sign(&key("lane", 0)).unwrap().to_bytes()
    })
    .rule
}

#[test]
fn entries_that_their_authors_did_not_sign() {
    let changed = saying(|_, entries| {
        let mut lines: Vec<String> = entries.iter().map(Entry::to_line).collect();
        lines[0] = lines[0].replace("\"amount\":\"5\"", "\"amount\":\"6\"");
        lines
    });
    assert_eq!(changed, "entry-signature");
    let elsewhere = saying(|_, entries| {
        let other = instar_attest::ChainId::from_bytes([9; 32]);
        let entry = Entry::sign(&other, &key("account", 0), 2, "coin", json!({})).unwrap();
        vec![entry.to_line(), entries[1].to_line()]
    });
    assert_eq!(elsewhere, "other-chain");
    let respelt = saying(|_, entries| {
        let line = entries[0].to_line().replace("\"amount\":", "\"amount\": ");
        vec![line, entries[1].to_line()]
    });
    assert_eq!(respelt, "entry-bytes");
}

#[test]
fn an_entry_that_was_dropped_or_put_in() {
    // The lane's owner may sign such commits; but then the receipts are of other entries.
    let (chain, clone) = cloned();
    let forge = Forge::open(&clone);
    let mut draft = forge.head();
    let store = Store::open_clone(&clone).unwrap();
    let head = draft.header.lanes[0].head;
    let entries = store.lane_commit(&head).unwrap().entries;
    let payload = store.signed_lane_commit(&head).unwrap().payload;
    let blob = forge.put(Kind::Blob, (entries[0].to_line() + "\n").as_bytes());
    let mut tree = b"100644 entries.jsonl\0".to_vec();
    tree.extend(blob.as_bytes());
    let tree = forge.put(Kind::Tree, &tree);
    let payload = LanePayload {
        tree,
        entries: 1,
        ..payload
    };
    let commit = payload.sign(&key("lane", 0)).unwrap().to_bytes();
    draft.header.lanes[0].head = forge.put(Kind::Commit, &commit);
    forge.replace(&chain, draft, honestly);
    let wrong = wrong(&clone);
    assert_eq!((wrong.rule, wrong.height), ("receipt-extra", Some(3)));
}

#[test]
fn lanes_that_may_not_be_merged_like_this() {
    let gap = forged(
        |_, d| {
            let range = &mut d.header.lanes[0];
            (range.from, range.to) = (range.from + 1, range.to + 1);
        },
        honestly,
    );
    assert_eq!(gap.rule, "lane-sequence");
    let again = forged(|_, d| d.header.lanes[0].from -= 1, honestly);
    assert_eq!(again.rule, "lane-gap", "what was merged is merged again");
    let stranger = forged(
        |forge, d| {
            let chain = d.header.chain;
            let lane = instar_ledger::Lane {
                device: DeviceId::of(&key("lane", 8).public()),
                incarnation: 1,
            };
            let payload = SignedLaneCommit::from_bytes(&forge.get(&d.header.lanes[0].head), &chain)
                .unwrap()
                .payload;
            let payload = LanePayload {
                lane,
                parent: chain.into(),
                seq: 1,
                ..payload
            };
            let commit = payload.sign(&key("lane", 8)).unwrap().to_bytes();
            d.header.lanes = vec![LaneRange {
                device: lane.device,
                from: 1,
                head: forge.put(Kind::Commit, &commit),
                incarnation: 1,
                to: 1,
            }];
        },
        honestly,
    );
    assert_eq!(stranger.rule, "device-unknown");
}

#[test]
fn every_object_missing_or_changed() {
    let (chain, clone) = cloned();
    unpack(&clone);
    let store = Store::open_clone(&clone).unwrap();
    let mut ids = vec![Oid::from(chain.chain)];
    for height in 1..=3 {
        let id = store.block_at(height).unwrap();
        ids.push(id);
        let block = store.read_block(&id).unwrap();
        ids.extend(block.header.lanes.iter().map(|r| r.head));
    }
    // With each commit its tree and the files in it.
    let repo = git2::Repository::open(&clone).unwrap();
    let ours = |id: git2::Oid| Oid::from_bytes(id.as_bytes().try_into().unwrap());
    for id in ids.clone() {
        let commit = repo
            .find_commit(git2::Oid::from_bytes(id.as_bytes()).unwrap())
            .unwrap();
        ids.push(ours(commit.tree_id()));
        ids.extend(commit.tree().unwrap().iter().map(|file| ours(file.id())));
    }
    ids.sort();
    ids.dedup();
    assert!(ids.len() >= 4 + 3 + 7 + 1 + 9 + 2, "{}", ids.len());
    for id in ids {
        let path = loose(&clone, &id);
        let good = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let found = wrong(&clone);
        assert_eq!(
            (found.rule, found.object),
            ("object-missing", Some(id)),
            "{found}"
        );
        // The same kind and size, another content, well compressed.
        let odb_bytes = inflate(&good);
        let mut bad = odb_bytes.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&path, deflate(&bad)).unwrap();
        let found = wrong(&clone);
        assert_eq!(
            (found.rule, found.object),
            ("object-hash", Some(id)),
            "{found}"
        );
        // Not even compressed.
        std::fs::write(&path, b"junk").unwrap();
        let found = wrong(&clone);
        assert_eq!(found.object, Some(id), "{found}");
        std::fs::write(&path, &good).unwrap();
    }
    assert!(check(&clone).ok);
}

fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(bytes), &mut out).unwrap();
    out
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn another_chain_than_the_one_asked_for() {
    let (_chain, clone) = cloned();
    let settings = Settings {
        chain: Some(instar_attest::ChainId::from_bytes([1; 32])),
        ..Settings::default()
    };
    assert_eq!(verify(&clone, settings).wrong.unwrap().rule, "other-chain");
}
