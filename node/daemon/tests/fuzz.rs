//! The corpus of what nodes tell each other, and changes of it, as a regression test.

#[path = "../../chunks/tests/targets/corpus.rs"]
mod corpus;
#[path = "targets/messages.rs"]
mod messages;
#[path = "../../chunks/tests/targets/mutate.rs"]
mod mutate;

/// Changes of each file of the corpus: some seconds in all.
const ROUNDS: usize = 30000;
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/messages");

/// What of the corpus is refused.
const REFUSED: [&str; 4] = [
    "lane-in-incarnation-minus-1",
    "lane-spaced",
    "lane-without-pack",
    "list-of-another-format",
];

#[test]
fn the_corpus_is_accepted_or_refused_as_it_should_be() {
    assert_eq!(corpus::refused(CORPUS, messages::run), REFUSED);
}

#[test]
fn changes_of_the_corpus_break_nothing() {
    mutate::replay(CORPUS, ROUNDS, &|data| {
        messages::run(data);
    });
}
