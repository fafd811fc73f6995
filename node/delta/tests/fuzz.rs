//! The corpus of the fuzz target, and changes of it, as a regression test. `tests/fuzz/run` fuzzes.

#[path = "targets/delta.rs"]
mod delta;
#[path = "../../chunks/tests/targets/mutate.rs"]
mod mutate;

/// Changes of each file of the corpus: some seconds in all.
const ROUNDS: usize = 100;

#[test]
fn deltas() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/delta");
    mutate::replay(corpus, ROUNDS, &delta::run);
}
