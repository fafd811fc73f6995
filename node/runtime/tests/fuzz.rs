//! The corpus of what dapps say, and changes of it, as a regression test.

#![allow(clippy::unwrap_used)]

#[path = "targets/dapp.rs"]
mod dapp;
#[path = "../../chunks/tests/targets/mutate.rs"]
mod mutate;

/// Changes of each file of the corpus: some seconds in all.
const ROUNDS: usize = 30000;
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/dapp");

/// What of the corpus is refused.
const REFUSED: [&str; 7] = [
    "manifest-of-abi-2",
    "manifest-relative",
    "manifest-want-cut",
    "unknown-field",
    "verdict-twice",
    "verdict-with-float",
    "verdict-without-rule",
];

#[test]
fn the_corpus_is_understood_or_refused_as_it_should_be() {
    let mut refused: Vec<String> = std::fs::read_dir(CORPUS)
        .unwrap()
        .map(|file| file.unwrap())
        .filter(|file| !dapp::run(&std::fs::read(file.path()).unwrap()))
        .map(|file| file.file_name().into_string().unwrap())
        .collect();
    refused.sort();
    assert_eq!(refused, REFUSED);
}

#[test]
fn changes_of_the_corpus_break_nothing() {
    mutate::replay(CORPUS, ROUNDS, &|data| {
        dapp::run(data);
    });
}
