//! The corpus of what dapps say, and changes of it, as a regression test.

#[path = "../../chunks/tests/targets/corpus.rs"]
mod corpus;
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
    assert_eq!(corpus::refused(CORPUS, dapp::run), REFUSED);
}

#[test]
fn changes_of_the_corpus_break_nothing() {
    mutate::replay(CORPUS, ROUNDS, &|data| {
        dapp::run(data);
    });
}
