//! The corpora of the fuzz targets, and changes of them, as regression tests. `tests/fuzz/run` fuzzes.

#[path = "targets/block.rs"]
mod block;
#[path = "targets/car.rs"]
mod car;
#[path = "targets/mutate.rs"]
mod mutate;

/// Changes of each file of a corpus: some seconds in all.
const ROUNDS: usize = 2000;

#[test]
fn blocks() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/block");
    mutate::replay(corpus, ROUNDS, &block::run);
}

#[test]
fn archives() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/car");
    mutate::replay(corpus, ROUNDS, &car::run);
}
