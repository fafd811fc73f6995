//! The corpora of the fuzz targets, and changes of them, as regression tests. `tests/fuzz/run` fuzzes.
//!
//! A corpus holds what our own writers make, and what was once a mistake or an attack, under its name.
#![allow(clippy::unwrap_used)]

mod support;

#[path = "targets/certificate.rs"]
mod certificate;
#[path = "../../chunks/tests/targets/corpus.rs"]
mod corpus;
#[path = "targets/entry.rs"]
mod entry;
#[path = "targets/lane.rs"]
mod lane;
#[path = "targets/light.rs"]
mod light;
#[path = "../../chunks/tests/targets/mutate.rs"]
mod mutate;
#[path = "targets/pack.rs"]
mod pack;
#[path = "targets/sync.rs"]
mod sync;
#[path = "targets/trunk.rs"]
mod trunk;

use std::fs;
use std::path::{Path, PathBuf};

use instar_attest::{Digest, json};
use instar_ledger::Certificate;
use instar_ledger::freshness::SignedHead;
use instar_ledger::grammar::{Kind, Object, single_file_tree};
use instar_ledger::light::{Change, Changes};
use instar_ledger::sync::push;

/// Changes of each file of a corpus: some seconds in all.
const ROUNDS: usize = 1000;

type Target = fn(&[u8]) -> bool;

/// Each target, and what of its corpus is refused.
const TARGETS: [(&str, Target, &[&str]); 7] = [
    (
        "certificate",
        certificate::run,
        &[
            "negative-height",
            "round-over-u32",
            "set-not-sorted",
            "set-of-power-2-53",
            "spaced",
        ],
    ),
    (
        "entry",
        entry::run,
        &[
            "body-no-object",
            "deep-json",
            "duplicate-key",
            "escaped-letter",
            "float",
            "nonce-over-2-53",
            "not-utf8",
            "other-signature",
            "topic-in-capitals",
            "trailing-newline",
            "unknown-field",
        ],
    ),
    (
        "lane",
        lane::run,
        &[
            "author-is-not-committer",
            "entries-without-last-newline",
            "no-message",
            "rewrapped",
            "second-signature-header",
            "two-parents",
        ],
    ),
    (
        "light",
        light::run,
        &[
            "head-cut",
            "header-with-forks-empty",
            "header-with-previous-null",
            "nothing",
        ],
    ),
    (
        "pack",
        pack::run,
        &[
            "a-delta",
            "bomb",
            "bytes-behind-the-last-object",
            "longer-than-it-says",
            "more-objects-than-allowed",
            "object-of-2-to-the-46-bytes",
            "objects-tree-too-large",
            "says-more-objects-than-it-has",
            "size-without-end",
            "wrong-checksum",
        ],
    ),
    (
        "sync",
        sync::run,
        &[
            "certificate-spaced",
            "claims-gigabytes-of-certificate",
            "claims-gigabytes-of-pack",
            "cut",
        ],
    ),
    (
        "trunk",
        trunk::run,
        &[
            "genesis-name-of-two-lines",
            "genesis-with-fork-null",
            "header-in-height-0",
            "header-lane-from-0",
            "header-lanes-not-in-order",
        ],
    ),
];

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn folder(name: &str) -> PathBuf {
    tests().join("corpus").join(name)
}

#[test]
fn the_corpora_are_accepted_or_refused_as_they_should_be() {
    for (name, run, expected) in TARGETS {
        let folder = folder(name);
        let refused = corpus::refused(folder.to_str().unwrap(), run);
        assert_eq!(refused, expected, "{name}");
    }
}

#[test]
fn changes_of_the_corpora_break_nothing() {
    for (name, run, _) in TARGETS {
        mutate::replay(folder(name).to_str().unwrap(), ROUNDS, &|data| {
            run(data);
        });
    }
}

fn vector(name: &str) -> Vec<u8> {
    fs::read(tests().join("vectors").join(name)).unwrap()
}

fn put(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    assert!(bytes.len() < 2 << 10, "{target}/{name}: {}", bytes.len());
    fs::create_dir_all(folder(target)).unwrap();
    fs::write(folder(target).join(name), bytes).unwrap();
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

/// Of the vectors, and of two nodes with fixed keys.
#[test]
#[ignore = "writes what our own writers make into the corpora"]
fn write_the_corpora() {
    let line = vector("entry.json").trim_ascii_end().to_vec();
    put("entry", "entry", &line);
    put(
        "entry",
        "other-signature",
        replaced(&line, "\"nonce\":1", "\"nonce\":2"),
    );
    put(
        "entry",
        "topic-in-capitals",
        replaced(&line, "\"topic\":\"coin\"", "\"topic\":\"Coin\""),
    );
    let evidence = vector("evidence.json");
    let entries = vector("entries.jsonl");
    put("lane", "commit", vector("lane.commit"));
    put("lane", "payload", vector("lane.payload"));
    put("lane", "armour", vector("lane.sig").trim_ascii_end());
    put("lane", "entries", &entries);
    put(
        "lane",
        "entries-without-last-newline",
        entries.trim_ascii_end(),
    );
    put("lane", "evidence", &evidence);

    let certificate = vector("certificate.json");
    let set = vector("validators.json");
    let with = |set: &[u8]| [certificate.as_slice(), b"\n", set].concat();
    put("certificate", "certificate", &certificate);
    put("certificate", "with-its-set", with(&set));
    let heavy = replaced(&set, "\"power\":1", "\"power\":9");
    put("certificate", "with-a-heavy-stranger", with(&heavy));
    let huge = replaced(&set, "\"power\":1", "\"power\":9007199254740991");
    put("certificate", "set-of-power-2-53", with(&huge));
    let mut list: Vec<serde_json::Value> = serde_json::from_slice(&set).unwrap();
    list.reverse();
    put(
        "certificate",
        "set-not-sorted",
        with(&json::to_vec(&list).unwrap()),
    );

    let genesis = vector("genesis.json");
    put("trunk", "genesis", &genesis);
    put(
        "trunk",
        "genesis-name-of-two-lines",
        replaced(&genesis, "\"chain_name\":\"", "\"chain_name\":\"a\\n"),
    );
    put(
        "trunk",
        "genesis-with-fork-null",
        replaced(&genesis, "\"kernel\"", "\"fork\":null,\"kernel\""),
    );
    let files = |header: &[u8], receipts: &str, certificate: &[u8]| {
        [header, &vector(receipts), certificate].join(&0)
    };
    let (first, third) = (vector("header.json"), vector("header-3.json"));
    put("trunk", "block", files(&first, "receipts.jsonl", b""));
    put(
        "trunk",
        "block-3",
        files(&third, "receipts-3.jsonl", &certificate),
    );
    let change = |from: &str, to: &str| {
        let header = replaced(&first, from, to);
        files(&header, "receipts.jsonl", b"")
    };
    put(
        "trunk",
        "header-in-height-0",
        change("\"height\":1", "\"height\":0"),
    );
    put(
        "trunk",
        "block-with-forks-empty",
        change("\"height\":1", "\"forks\":[],\"height\":1"),
    );
    put(
        "trunk",
        "header-lane-from-0",
        change("\"from\":1", "\"from\":0"),
    );
    let lane = "{\"device\":\"";
    let twice = first.clone();
    let text = String::from_utf8(twice).unwrap();
    let start = text.find(lane).unwrap();
    let range = &text[start..=start + text[start..].find('}').unwrap()];
    put(
        "trunk",
        "header-lanes-not-in-order",
        change(range, &format!("{range},{range}")),
    );

    let mut net = support::Net::new(1);
    net.append(0, 1);
    let store = &net.stores[0];
    put(
        "pack",
        "lane",
        store.pack_lane(&support::lane_of(0), 0).unwrap(),
    );
    let objects = |list: &[(u8, &[u8])]| {
        let mut out = Vec::new();
        for (kind, bytes) in list {
            out.push(*kind);
            out.extend((bytes.len() as u16).to_le_bytes());
            out.extend(*bytes);
        }
        out
    };
    let (commit, blob) = (vector("lane.commit"), vector("entries.jsonl"));
    let blob_of = Object::new(Kind::Blob, blob.clone());
    let tree = single_file_tree("entries.jsonl", &blob_of).bytes;
    put(
        "pack",
        "objects",
        objects(&[(0, &commit), (1, &tree), (2, &blob)]),
    );
    put(
        "pack",
        "objects-without-tree",
        objects(&[(0, &commit), (2, &blob)]),
    );
    put("pack", "objects-stray", objects(&[(2, b"a stray")]));
    put("pack", "objects-none", b"");
    put(
        "pack",
        "objects-tree-too-large",
        objects(&[(1, &[b'a'; 600])]),
    );
    let block = [vector("block.commit"), first.clone()];
    put(
        "pack",
        "objects-block",
        objects(&[(0, &block[0]), (2, &block[1])]),
    );

    let small = Certificate {
        signatures: Vec::new(),
        ..Certificate::from_bytes(&certificate).unwrap()
    };
    let small = small.to_bytes().unwrap();
    let pack = store.pack_lane(&support::lane_of(0), 1).unwrap();
    let mut answer = Vec::new();
    put("sync", "none", &answer);
    assert!(push(&mut answer, &small, &pack));
    put("sync", "one", &answer);
    assert!(push(&mut answer, &certificate, b"no pack"));
    put("sync", "two", &answer);
    put("sync", "cut", &answer[..answer.len() - 1]);
    let claim = |certificate: u32, pack: u32| {
        [
            &certificate.to_be_bytes(),
            &pack.to_be_bytes(),
            small.as_slice(),
        ]
        .concat()
    };
    let length = small.len() as u32;
    put("sync", "claims-gigabytes-of-pack", claim(length, u32::MAX));
    put(
        "sync",
        "claims-gigabytes-of-certificate",
        claim(u32::MAX, 0),
    );
    put("sync", "certificate-without-pack", claim(length, 0));
    let mut spaced = Vec::new();
    assert!(push(&mut spaced, &replaced(&small, ":", ": "), &pack));
    put("sync", "certificate-spaced", &spaced);

    net.round(1);
    net.round(1);
    let store = &net.stores[0];
    let header = |height| store.signed_header(height).unwrap().unwrap();
    let first = json::to_vec(&header(1)).unwrap();
    put("light", "header", &first);
    put(
        "light",
        "header-with-previous-null",
        replaced(&first, "},\"receipts\"", "},\"previous\":null,\"receipts\""),
    );
    put(
        "light",
        "header-with-forks-empty",
        replaced(
            &first,
            "\"height\":1,\"kernel\"",
            "\"forks\":[],\"height\":1,\"kernel\"",
        ),
    );
    let mut at = header(2);
    put("light", "header-2", json::to_vec(&at).unwrap());
    let validators = store.genesis().validator_set().unwrap();
    at.certificate.signatures.truncate(2);
    let changes = Changes {
        changes: vec![Change { at, validators }],
        more: true,
    };
    put(
        "light",
        "change-of-too-few",
        json::to_vec(&changes).unwrap(),
    );
    let none = Changes {
        changes: Vec::new(),
        more: false,
    };
    put("light", "changes-none", json::to_vec(&none).unwrap());
    let nonce = Digest::of(b"nonce");
    let key = support::key("consensus", 0);
    let (height, block) = store.head();
    let head = SignedHead::sign(store.chain(), &key, &nonce, height, block);
    let head = json::to_vec(&head).unwrap();
    put("light", "head", &head);
    put("light", "head-cut", &head[..head.len() - 1]);
}
