//! The corpus of the codecs, and changes of it, as a regression test.

#![allow(clippy::unwrap_used)]

#[path = "targets/codec.rs"]
mod codec;
#[path = "../../chunks/tests/targets/mutate.rs"]
mod mutate;

/// Changes of each file of the corpus: some seconds in all.
const ROUNDS: usize = 30000;
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/codec");

/// What of the corpus is refused.
const REFUSED: [&str; 5] = [
    "liveness-claims-gigabytes",
    "message-with-a-byte-more",
    "part-of-round-below-nil",
    "response-claims-gigabytes",
    "stream-of-another-id",
];

#[test]
fn the_corpus_is_accepted_or_refused_as_it_should_be() {
    let mut refused: Vec<String> = std::fs::read_dir(CORPUS)
        .unwrap()
        .map(|file| file.unwrap())
        .filter(|file| !codec::run(&std::fs::read(file.path()).unwrap()))
        .map(|file| file.file_name().into_string().unwrap())
        .collect();
    refused.sort();
    assert_eq!(refused, REFUSED);
}

#[test]
fn changes_of_the_corpus_break_nothing() {
    mutate::replay(CORPUS, ROUNDS, &|data| {
        codec::run(data);
    });
}
