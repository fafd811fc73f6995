//! What strangers send, decoded: a corpus of honest and hostile bytes, each as it is and in thousands of changed forms. No
//! decoder panics, none takes more than it was given, and what it took reads the same when it is written again.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use instar_ipfs::fuzzing;

/// Changed forms of each file. The same ones each time: a failure names its file and number.
const CHANGES: u64 = 3_000;
/// Longest changed form.
const MAX_BYTES: usize = 8_192;

type Decoder = fn(&[u8]) -> bool;

const DECODERS: [(&str, Decoder); 4] = [
    ("bitswap", fuzzing::bitswap),
    ("gossip", fuzzing::gossip),
    ("delta", fuzzing::delta),
    ("frames", fuzzing::frames),
];

fn corpus(kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/wire")
        .join(kind);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}

/// One to four changes: bits, bytes that lengths like, cuts, pieces of others, pieces again.
fn change(seed: u64, bytes: &[u8], others: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len());
        match random.below(6) {
            0 if !out.is_empty() => out[at] ^= 1 << random.below(8),
            1 if !out.is_empty() => out[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 => out.truncate(at),
            3 => {
                let other = &others[random.below(others.len())].1;
                let from = random.below(other.len());
                let piece = other[from..].to_vec();
                out.splice(at..at, piece);
            }
            4 => {
                let piece = out[at..].to_vec();
                out.extend(piece);
            }
            _ => out.insert(at.min(out.len()), random.below(256) as u8),
        }
        out.truncate(MAX_BYTES);
    }
    out
}

#[test]
fn the_corpus_is_taken_or_refused_as_it_should_be() {
    for (kind, decode) in DECODERS {
        let taken: Vec<String> = corpus(kind)
            .into_iter()
            .filter(|(_, bytes)| !decode(bytes))
            .map(|(name, _)| name)
            .collect();
        let refused: &[&str] = match kind {
            "bitswap" => &["group", "length-of-64-bits", "length-over-end"],
            "gossip" => &["push-cut", "topic-not-utf8"],
            "frames" => &[
                "claims-the-most",
                "claims-too-much",
                "cut",
                "long-varint",
                "no-varint",
            ],
            _ => &[],
        };
        assert_eq!(taken, refused, "{kind}");
    }
}

#[test]
fn changed_forms_break_nothing() {
    for (kind, decode) in DECODERS {
        let files = corpus(kind);
        let mut taken = 0;
        for (number, (name, bytes)) in files.iter().enumerate() {
            for n in 0..CHANGES {
                let changed = change(n * 1_000 + number as u64, bytes, &files);
                let result = std::panic::catch_unwind(|| decode(&changed));
                taken += u64::from(result.unwrap_or_else(|_| panic!("{kind}/{name}, change {n}")));
            }
        }
        // Neither all nor none got past the first byte.
        let all = files.len() as u64 * CHANGES;
        assert!(taken > all / 20 && taken < all, "{kind}: {taken} of {all}");
    }
}
