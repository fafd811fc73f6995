//! The corpus of the fuzz target, and changes of it, as a regression test. `tests/fuzz/run` fuzzes.

#[path = "targets/attest.rs"]
mod attest;
#[path = "../../node/chunks/tests/targets/corpus.rs"]
mod corpus;
#[path = "../../node/chunks/tests/targets/mutate.rs"]
mod mutate;

/// Changes of each file of the corpus: some seconds in all.
const ROUNDS: usize = 5000;
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/attest");

/// What of the corpus is no document of any kind.
const REFUSED: [&str; 4] = [
    "release-number-0",
    "review-for-git",
    "statement-of-two-spellings",
    "value",
];

#[test]
fn the_corpus_is_accepted_or_refused_as_it_should_be() {
    assert_eq!(corpus::refused(CORPUS, attest::run), REFUSED);
}

#[test]
fn changes_of_the_corpus_break_nothing() {
    mutate::replay(CORPUS, ROUNDS, &|data| {
        attest::run(data);
    });
}
