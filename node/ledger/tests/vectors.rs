//! Golden vectors: the same keys give the same bytes, for ever. What stands in `vectors/` is what a second
//! implementation must reproduce; `docs/formats/ledger.md` explains each file.
//!
//! `INSTAR_BLESS=1` writes the files anew. Do that only before a format's first release: afterwards a difference is a
//! broken format.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use instar_attest::{ChainId, json};
use instar_ledger::equivocation::Evidence;
use instar_ledger::freshness;
use instar_ledger::grammar::{self, Kind, LanePayload, Object, SignedLaneCommit};
use instar_ledger::vote::{self, VoteKind};
use instar_ledger::*;
use serde_json::json;
use support::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// Every file of the vectors, made from fixed seeds.
fn made() -> BTreeMap<&'static str, Vec<u8>> {
    let mut files: BTreeMap<&'static str, Vec<u8>> = BTreeMap::new();
    let mut ids: BTreeMap<&'static str, String> = BTreeMap::new();
    let genesis = genesis("vectors");
    let [commit, _, blob] = grammar::genesis_objects(&genesis).unwrap();
    let chain = genesis.chain_id().unwrap();
    ids.insert("chain", chain.to_hex());
    files.insert("genesis.commit", commit.bytes);
    files.insert("genesis.json", blob.bytes);

    let body = json!({"amount": "5", "memo": "tea & \u{1F375}\n", "op": "transfer", "to": "bob"});
    let entries = [
        Entry::sign(&chain, &key("account", 0), 1, "coin", body).unwrap(),
        transfer(&chain, 1, 7),
    ];
    ids.insert("entry", entries[0].id().to_hex());
    files.insert("entry.signed", entries[0].signed_bytes());
    files.insert("entry.json", entries[0].to_line().into_bytes());

    let jsonl = grammar::entries_jsonl(&entries).unwrap();
    let blob = Object::new(Kind::Blob, jsonl.clone());
    let tree = grammar::single_file_tree(grammar::ENTRIES_FILE, &blob);
    files.insert("entries.jsonl", jsonl);
    let lane = lane_of(0);
    ids.insert("device", lane.device.to_string());
    ids.insert("lane_tree", tree.id.to_hex());
    let payload = LanePayload {
        chain,
        entries: 2,
        lane,
        parent: chain.into(),
        seq: 1,
        time_s: TIME_MS / 1000,
        tree: tree.id,
    };
    files.insert("lane.payload", payload.to_bytes());
    let commit = payload.clone().sign(&key("lane", 0)).unwrap();
    files.insert(
        "lane.sig",
        format!("{}\n", commit.sig.to_armour()).into_bytes(),
    );
    files.insert("lane.commit", commit.to_bytes());
    ids.insert("lane_commit", commit.id().to_hex());
    let signers = [("v0".to_owned(), key("lane", 0).public())];
    let signers = sshsig::allowed_signers(&signers).into_bytes();
    files.insert("allowed_signers", signers);

    let twin = LanePayload {
        time_s: TIME_MS / 1000 + 1,
        ..payload
    };
    let twin = twin.sign(&key("lane", 0)).unwrap();
    let evidence = Evidence::of(&chain, &commit.to_bytes(), &twin.to_bytes()).unwrap();
    files.insert("evidence.json", json::to_vec(&evidence).unwrap());

    let receipts = vec![
        ReceiptLine::Event(Event {
            body: json!({"height": 1}),
            event: "activated".into(),
            id: entries[0].id(),
        }),
        ReceiptLine::Entry(Receipt {
            chain: None,
            detail: None,
            entry: entries[0].id(),
            index: 0,
            lane,
            outcome: Outcome::Applied,
            output: Some(json!({"balance": "95"})),
            rule: None,
            seq: 1,
        }),
        ReceiptLine::Entry(Receipt {
            chain: None,
            detail: Some("the next nonce of this author is 1".into()),
            entry: entries[1].id(),
            index: 1,
            lane,
            outcome: Outcome::Rejected,
            output: None,
            rule: Some("nonce".into()),
            seq: 1,
        }),
    ];
    let set = genesis.validator_set().unwrap();
    ids.insert("validators", set.digest().to_hex());
    files.insert("validators.json", json::to_vec(&set).unwrap());
    let mut block = BlockDraft {
        header: Header {
            chain,
            dapps: BTreeMap::from([("coin".into(), instar_attest::Digest::of(b"coin"))]),
            forks: vec![],
            height: 1,
            kernel: 1,
            lanes: vec![LaneRange {
                device: lane.device,
                from: 1,
                head: commit.id(),
                incarnation: 1,
                to: 1,
            }],
            left_out: vec![],
            parent: chain.into(),
            proposer: key("consensus", 0).public(),
            protocol: 1,
            receipts: receipt::digest(&receipts).unwrap(),
            state_root: instar_attest::Digest::of(b"state 1"),
            time_ms: TIME_MS + 1,
            validators: set.digest(),
        },
        receipts,
        previous: None,
    };
    files.insert(
        "receipts.jsonl",
        receipt::to_jsonl(&block.receipts).unwrap(),
    );
    files.insert("header.json", json::to_vec(&block.header).unwrap());
    let tree = &grammar::block_tree(&block).unwrap()[0];
    let bytes = grammar::block_commit(&tree.id, &block.header, &block.receipts);
    let first = Oid::of_object("commit", &bytes);
    ids.insert("block_tree", tree.id.to_hex());
    ids.insert("block", first.to_hex());
    files.insert("block.commit", bytes);

    files.insert(
        "precommit.signed",
        vote::signed_bytes(&chain, VoteKind::Precommit, 1, 0, Some(&first)),
    );
    files.insert(
        "prevote-nil.signed",
        vote::signed_bytes(&chain, VoteKind::Prevote, 1, 3, None),
    );
    files.insert(
        "proposal.signed",
        vote::proposal_bytes(&chain, 1, 2, -1, &first),
    );
    let payload = instar_attest::Digest::of(b"payload");
    files.insert(
        "parts.signed",
        vote::parts_bytes(&chain, 1, 2, &first, &payload),
    );
    files.insert(
        "validator-proof.signed",
        vote::validator_proof_bytes(&chain, &key("consensus", 0).public(), b"peer id"),
    );
    files.insert(
        "head.signed",
        freshness::head_bytes(&chain, &instar_attest::Digest::of(b"nonce"), 1, &first),
    );
    let certificate = certificate(&chain, 1, 0, first);
    certificate.verify(&chain, &set).unwrap();
    files.insert("certificate.json", certificate.to_bytes().unwrap());
    let tree = &grammar::tip_tree(&certificate).unwrap()[0];
    let bytes = grammar::tip_commit(&chain, &certificate, &tree.id, block.header.time_ms);
    ids.insert("tip_tree", tree.id.to_hex());
    ids.insert("tip", Oid::of_object("commit", &bytes).to_hex());
    files.insert("tip.commit", bytes);

    // The second block merges nothing and holds the first one's certificate.
    block.header.height = 2;
    block.header.lanes.clear();
    block.header.parent = first;
    block.header.time_ms += 1000;
    block.receipts.clear();
    block.header.receipts = receipt::digest(&[]).unwrap();
    block.previous = Some(certificate);
    let tree = &grammar::block_tree(&block).unwrap()[0];
    let bytes = grammar::block_commit(&tree.id, &block.header, &[]);
    let second = Oid::of_object("commit", &bytes);
    ids.insert("block_2", second.to_hex());
    ids.insert("block_2_tree", tree.id.to_hex());
    files.insert("block-2.commit", bytes);
    merge_a_fork(block, second, lane, &mut files, &mut ids);

    files.insert("ids.json", serde_json::to_vec_pretty(&ids).unwrap());
    files
}

/// The third block merges two blocks of a fork that is here by its ids alone, with the receipt of one of its entries.
fn merge_a_fork(
    mut block: BlockDraft,
    second: Oid,
    lane: Lane,
    files: &mut BTreeMap<&'static str, Vec<u8>>,
    ids: &mut BTreeMap<&'static str, String>,
) {
    let chain = block.header.chain;
    let fork = ChainId::from(Oid::of_object("commit", b"a fork's genesis"));
    block.previous = Some(certificate(&chain, 2, 0, second));
    block.header.height = 3;
    block.header.parent = second;
    block.header.time_ms += 1000;
    block.header.forks = vec![ForkRange {
        chain: fork,
        from: 1,
        head: Oid::of_object("commit", b"a fork's second block"),
        to: 2,
    }];
    block.receipts = vec![ReceiptLine::Entry(Receipt {
        chain: Some(fork),
        detail: None,
        entry: transfer(&fork, 0, 0).id(),
        index: 0,
        lane,
        outcome: Outcome::Applied,
        output: None,
        rule: None,
        seq: 1,
    })];
    block.header.receipts = receipt::digest(&block.receipts).unwrap();
    files.insert(
        "receipts-3.jsonl",
        receipt::to_jsonl(&block.receipts).unwrap(),
    );
    files.insert("header-3.json", json::to_vec(&block.header).unwrap());
    let tree = &grammar::block_tree(&block).unwrap()[0];
    let bytes = grammar::block_commit(&tree.id, &block.header, &block.receipts);
    ids.insert("block_3", Oid::of_object("commit", &bytes).to_hex());
    ids.insert("block_3_tree", tree.id.to_hex());
    files.insert("block-3.commit", bytes);
}

#[test]
fn vectors_hold() {
    let made = made();
    if std::env::var_os("INSTAR_BLESS").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        for (name, bytes) in &made {
            std::fs::write(folder().join(name), bytes).unwrap();
        }
    }
    for (name, bytes) in &made {
        let stored = std::fs::read(folder().join(name)).unwrap_or_default();
        assert!(
            stored == *bytes,
            "{name} has changed: this breaks every chain that exists"
        );
    }
    let known: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "check.sh" && !made.contains_key(name.as_str()))
        .collect();
    assert!(known.is_empty(), "files that nothing makes: {known:?}");
}

/// What a reader makes of the files alone, without the code that wrote them.
#[test]
fn vectors_are_read() {
    let file = |name: &str| std::fs::read(folder().join(name)).unwrap();
    let genesis = Genesis::from_bytes(&file("genesis.json")).unwrap();
    let chain = genesis.chain_id().unwrap();
    let ids: BTreeMap<String, String> = serde_json::from_slice(&file("ids.json")).unwrap();
    assert_eq!(ids["chain"], chain.to_hex());

    let entry = Entry::parse(&file("entry.json"), &chain).unwrap();
    assert_eq!(entry.id().to_hex(), ids["entry"]);
    let commit = SignedLaneCommit::from_bytes(&file("lane.commit"), &chain).unwrap();
    assert_eq!(commit.id().to_hex(), ids["lane_commit"]);
    let device = DeviceId::of(&genesis.validators[0].keys.lane);
    assert_eq!(
        (commit.payload.lane.device, commit.sig.key),
        (device, genesis.validators[0].keys.lane)
    );

    let evidence: Evidence = json::from_slice(&file("evidence.json"), 1 << 16).unwrap();
    assert_eq!(evidence.check(&chain).unwrap().seq, 1);

    let certificate = Certificate::from_bytes(&file("certificate.json")).unwrap();
    let set: ValidatorSet = json::from_slice(&file("validators.json"), 1 << 16).unwrap();
    assert_eq!(set, genesis.validator_set().unwrap());
    certificate.verify(&chain, &set).unwrap();
    assert_eq!(certificate.block.to_hex(), ids["block"]);
    assert_eq!(certificate.signed_bytes(&chain), file("precommit.signed"));

    // A block is read from its objects, as from any object database.
    let objects: BTreeMap<Oid, Object> = [
        ("block.commit", Kind::Commit),
        ("block-2.commit", Kind::Commit),
        ("header.json", Kind::Blob),
        ("receipts.jsonl", Kind::Blob),
    ]
    .map(|(name, kind)| Object::new(kind, file(name)))
    .into_iter()
    .map(|object| (object.id, object))
    .collect();
    let header = Oid::of_object("blob", &file("header.json"));
    let receipts = Oid::of_object("blob", &file("receipts.jsonl"));
    let mut tree = b"100644 header.json\0".to_vec();
    tree.extend(header.as_bytes());
    tree.extend(b"100644 receipts.jsonl\0");
    tree.extend(receipts.as_bytes());
    assert_eq!(Oid::of_object("tree", &tree).to_hex(), ids["block_tree"]);
    let block =
        grammar::read_block::<grammar::GrammarError>(certificate.block, &chain, |id, kind| {
            match kind {
                Kind::Tree => Ok(tree.clone()),
                _ => Ok(objects[id].bytes.clone()),
            }
        })
        .unwrap();
    assert_eq!(block.header.height, 1);
    assert_eq!(block.receipts.len(), 3);
}
