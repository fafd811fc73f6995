//! Every decoder of this room that bytes from the network reach, fed with a small corpus and with what chance makes of
//! it. Nothing may panic; and what a decoder accepts has one spelling: written again, it is the bytes that came in.
//!
//! The corpus is the vectors, and `corpus/<decoder>/`, one file for each input that was once a mistake or an attack.
//! Chance is a fixed sequence, so that a failure comes again.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use instar_attest::{ChainId, json};
use instar_ledger::grammar::{self, GrammarError, Kind, Object, SignedLaneCommit};
use instar_ledger::light::{Changes, SignedHeader};
use instar_ledger::*;
use support::*;

/// Mutants of each file of the corpus: some seconds for all of them together.
const MUTANTS: u64 = 400;
/// Inputs that say more than they hold are the rule among attacks; none of ours is larger.
const MAX_INPUT_BYTES: usize = 256 * 1024;

/// What a decoder did.
enum Outcome {
    Refused,
    /// It was accepted, and this is how it is written.
    Accepted(Vec<u8>),
}

fn outcome<T, E>(result: Result<T, E>, write: impl FnOnce(T) -> Vec<u8>) -> Outcome {
    match result {
        Ok(value) => Outcome::Accepted(write(value)),
        Err(_) => Outcome::Refused,
    }
}

fn chain() -> ChainId {
    // The vectors' chain.
    static CHAIN: LazyLock<ChainId> = LazyLock::new(|| {
        let ids = std::fs::read(tests().join("vectors/ids.json")).unwrap();
        let ids: serde_json::Value = serde_json::from_slice(&ids).unwrap();
        ids["chain"].as_str().unwrap().parse().unwrap()
    });
    *CHAIN
}

type Decoder = fn(&[u8]) -> Outcome;

/// Name, vectors that begin its corpus, and the decoder.
const DECODERS: &[(&str, &[&str], Decoder)] = &[
    ("entry", &["entry.json"], |bytes| {
        outcome(Entry::parse(bytes, &chain()), |e| e.to_line().into_bytes())
    }),
    ("lane-commit", &["lane.commit"], |bytes| {
        let read = SignedLaneCommit::from_bytes(bytes, &chain());
        outcome(read, |c| c.to_bytes())
    }),
    ("entries", &["entries.jsonl"], |bytes| {
        let read = grammar::read_entries(bytes, &chain());
        outcome(read, |e| grammar::entries_jsonl(&e).unwrap())
    }),
    ("certificate", &["certificate.json"], |bytes| {
        outcome(Certificate::from_bytes(bytes), |c| c.to_bytes().unwrap())
    }),
    ("validators", &["validators.json"], |bytes| {
        let read = json::from_slice::<ValidatorSet>(bytes, MAX_INPUT_BYTES);
        outcome(read, |s| json::to_vec(&s).unwrap())
    }),
    ("genesis", &["genesis.json"], |bytes| {
        outcome(Genesis::from_bytes(bytes), |g| g.to_bytes().unwrap())
    }),
    ("block", &["block.commit"], |bytes| {
        let objects = objects();
        let id = Oid::of_object("commit", bytes);
        let fetch = |wanted: &Oid, kind: Kind| {
            if *wanted == id {
                return Ok(bytes.to_vec());
            }
            let found = objects.iter().find(|o| o.id == *wanted && o.kind == kind);
            found
                .map(|o| o.bytes.clone())
                .ok_or(GrammarError::Contradiction("not there"))
        };
        let read = grammar::read_block(id, &chain(), fetch);
        outcome(read, |b| {
            let draft = BlockDraft {
                header: b.header,
                receipts: b.receipts,
                previous: b.previous,
            };
            let tree = grammar::block_tree(&draft).unwrap();
            grammar::block_commit(&tree[0].id, &draft.header, &draft.receipts)
        })
    }),
    ("header", &["header.json"], |bytes| {
        let draft = json::from_slice::<Header>(bytes, MAX_INPUT_BYTES);
        outcome(draft, |h| json::to_vec(&h).unwrap())
    }),
    ("pack", &[], |bytes| {
        // Packs compress, so that two of them may hold the same: only what they hold is compared.
        match pack::read(bytes, MAX_INPUT_BYTES) {
            Err(_) => Outcome::Refused,
            Ok(read) => {
                let again = pack::write(read.iter().map(|o| (o.kind, o.bytes.as_slice())));
                assert_eq!(pack::read(&again, usize::MAX).unwrap(), read);
                Outcome::Accepted(bytes.to_vec())
            }
        }
    }),
    ("light-header", &[], |bytes| {
        let read = SignedHeader::from_bytes(bytes);
        outcome(read, |h| {
            let _ = h.block();
            json::to_vec(&h).unwrap()
        })
    }),
    ("light-changes", &[], |bytes| {
        outcome(Changes::from_bytes(bytes), |c| json::to_vec(&c).unwrap())
    }),
    ("sync", &[], |bytes| {
        let write = |blocks: Vec<sync::SyncedBlock>| {
            let mut out = Vec::new();
            for block in blocks {
                let certificate = block.certificate.to_bytes().unwrap();
                assert!(sync::push(&mut out, &certificate, &block.pack));
            }
            out
        };
        outcome(sync::read(bytes), write)
    }),
    ("evidence", &["evidence.json"], |bytes| {
        let read = json::from_slice::<equivocation::Evidence>(bytes, MAX_INPUT_BYTES);
        outcome(read, |e| {
            let _ = e.check(&chain());
            json::to_vec(&e).unwrap()
        })
    }),
];

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The vectors' files as objects, for the blocks that name them.
fn objects() -> Vec<Object> {
    let read = |name: &str| std::fs::read(tests().join("vectors").join(name)).unwrap();
    let mut blobs: Vec<Object> = ["header.json", "receipts.jsonl", "certificate.json"]
        .map(|name| Object::new(Kind::Blob, read(name)))
        .into();
    let tree = |files: &[(&str, &Object)]| {
        let mut bytes = Vec::new();
        for (name, blob) in files {
            bytes.extend(format!("100644 {name}\0").bytes());
            bytes.extend(blob.id.as_bytes());
        }
        Object::new(Kind::Tree, bytes)
    };
    let first = tree(&[("header.json", &blobs[0]), ("receipts.jsonl", &blobs[1])]);
    blobs.push(first);
    blobs
}

/// What no vector has: bytes that our own writers make.
fn made(decoder: &str) -> Vec<Vec<u8>> {
    let mut net = Net::new(2);
    net.round(2);
    let store = &net.stores[0];
    match decoder {
        "pack" => vec![
            store.pack_block(&store.head().1).unwrap(),
            store.pack_lane(&lane_of(0), 0).unwrap(),
        ],
        "sync" => {
            let certificate = store.tip_certificate().unwrap().to_bytes().unwrap();
            let pack = store.pack_block(&store.head().1).unwrap();
            let mut answer = Vec::new();
            for _ in 0..2 {
                assert!(sync::push(&mut answer, &certificate, &pack));
            }
            vec![answer]
        }
        "light-header" => vec![json::to_vec(&store.signed_header(1).unwrap().unwrap()).unwrap()],
        "light-changes" => {
            let at = store.signed_header(1).unwrap().unwrap();
            let validators = store.genesis().validator_set().unwrap();
            let changes = vec![light::Change { at, validators }];
            vec![
                json::to_vec(&Changes {
                    changes,
                    more: true,
                })
                .unwrap(),
            ]
        }
        _ => Vec::new(),
    }
}

/// A fixed sequence (splitmix64): no randomness of this machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// One to three changes: bits, bytes, pieces cut out, repeated, moved, and words that decoders stumble over.
    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        const WORDS: &[&[u8]] = &[
            b"\0",
            b"\n",
            b"\n\n",
            b" ",
            b"{",
            b"[",
            b"\"",
            b",",
            b"null",
            b"-1",
            b"1e9",
            b"1.0",
            b"18446744073709551616",
            b"9007199254740992",
            b"\\u0000",
            b"\xff\xff\xff\xff",
            b"gpgsig-sha256 ",
            b"parent ",
            b"\x7f",
            b"\xc3\x28",
        ];
        let mut out = bytes.to_vec();
        for _ in 0..1 + self.below(3) {
            let at = self.below(out.len());
            let length = 1 + self.below(40);
            let end = (at + length).min(out.len());
            match self.below(6) {
                0 if !out.is_empty() => out[at] ^= 1 << self.below(8),
                1 if !out.is_empty() => out[at] = self.next() as u8,
                2 => drop(out.drain(at..end)),
                3 => {
                    let piece = out[at..end].to_vec();
                    let to = self.below(out.len() + 1);
                    out.splice(to..to, piece);
                }
                4 => out.truncate(at),
                _ => {
                    let word = WORDS[self.below(WORDS.len())];
                    out.splice(at..at, word.iter().copied());
                }
            }
        }
        out
    }
}

#[test]
fn every_decoder_survives_its_corpus_and_mutants_of_it() {
    for (name, vectors, decode) in DECODERS {
        let mut corpus = made(name);
        for vector in *vectors {
            let bytes = std::fs::read(tests().join("vectors").join(vector)).unwrap();
            corpus.push(match *vector {
                "entry.json" => bytes.trim_ascii_end().to_vec(),
                _ => bytes,
            });
        }
        let honest = corpus.len();
        let folder = tests().join("corpus").join(name);
        if folder.is_dir() {
            let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
                .unwrap()
                .map(|f| f.unwrap().path())
                .collect();
            files.sort();
            corpus.extend(files.iter().map(|f| std::fs::read(f).unwrap()));
        }
        let mut accepted = 0;
        for (index, bytes) in corpus.iter().enumerate() {
            match decode(bytes) {
                Outcome::Accepted(again) => {
                    assert_eq!(&again, bytes, "{name}, {index}");
                    accepted += 1;
                }
                Outcome::Refused => assert!(index >= honest, "{name} refuses its own vector"),
            }
            let mut chance = Chance(index as u64);
            for round in 0..MUTANTS {
                let mutant = chance.mutate(bytes);
                if let Outcome::Accepted(again) = decode(&mutant) {
                    assert_eq!(again, mutant, "{name}, {index}, mutant {round}");
                }
            }
        }
        assert_eq!(
            accepted, honest,
            "{name}: the corpus holds what must be refused"
        );
    }
}
