//! Benchmarks of a whole chain of processes on this machine: `speed`, four validators, and `growth ENTRIES`, one validator
//! whose chain grows to so many.
//!
//! Everything shares this machine's processors: the load, the nodes, their containers. The last line is JSON.

mod growth;
mod load;
mod speed;

use instar::demo::stage::{Setup, Stage};
use instar::demo::{Talk, VALIDATORS, chain};

fn main() {
    instar_sandbox::init();
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (validators, entries) = match words[..] {
        ["speed", ..] => (VALIDATORS, None),
        ["growth", entries, ..] => (1, Some(entries.parse().expect("a number of entries"))),
        _ => panic!("say `speed` or `growth ENTRIES`"),
    };
    let home = tempfile::tempdir().expect("a temporary folder");
    let home = home.path().canonicalize().expect("it is there");
    let talk = Talk::default();
    let mut policy = chain::policy(false);
    // As many as there are can be asked for.
    policy.dapps.builders = policy.dapps.builders.min(validators as u32);
    let setup = Setup {
        program: &instar_tests::instar(),
        home: &home,
        policy,
        accounts: chain::FUNDED,
        validators,
        outlive: false,
        checkout: None,
    };
    let mut stage = Stage::found(&talk, &setup).expect("a chain");
    let report = match entries {
        None => speed::measure(&stage),
        Some(entries) => growth::measure(&mut stage, entries),
    };
    println!("{report}");
}
