//! The corpus of the codecs, and changes of it, as a regression test.

#[path = "targets/codec.rs"]
mod codec;
#[path = "../../chunks/tests/targets/corpus.rs"]
mod corpus;
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
    assert_eq!(corpus::refused(CORPUS, codec::run), REFUSED);
}

#[test]
fn changes_of_the_corpus_break_nothing() {
    mutate::replay(CORPUS, ROUNDS, &|data| {
        codec::run(data);
    });
}
