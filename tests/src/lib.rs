//! Support for tests that cross rooms, and the deterministic simulation.

pub mod sim;

use std::path::PathBuf;

/// The `instar` program that this run of the tests built.
///
/// # Panics
///
/// When it was not built: `tests/run` builds it before it runs the tests.
pub fn instar() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    // target/release/deps/test-… → target/release/instar
    let dir = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("test programs lie in target/PROFILE/deps");
    let program = dir.join("instar");
    assert!(
        program.is_file(),
        "{} is not built; run tests/run, or `cargo build --release --workspace` first",
        program.display()
    );
    program
}
