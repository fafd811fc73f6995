//! The corpus of the fuzz target, and changes of it, as a regression test. `tests/fuzz/run` fuzzes.

#[path = "../../chunks/tests/targets/corpus.rs"]
mod corpus;
#[path = "../../chunks/tests/targets/mutate.rs"]
mod mutate;
#[path = "targets/state.rs"]
mod state;

/// Changes of each file of the corpus: some seconds in all.
const ROUNDS: usize = 10_000;
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/state");

/// What of the corpus is refused.
const REFUSED: [&str; 6] = [
    "chunk-claims-gigabytes",
    "chunk-not-in-order",
    "chunk-of-another-place",
    "proof-absence-of-what-is-there",
    "proof-of-another-key",
    "proof-of-another-value",
];

#[test]
fn the_corpus_is_accepted_or_refused_as_it_should_be() {
    assert_eq!(corpus::refused(CORPUS, state::run), REFUSED);
}

#[test]
fn changes_of_the_corpus_break_nothing() {
    mutate::replay(CORPUS, ROUNDS, &|data| {
        state::run(data);
    });
}
