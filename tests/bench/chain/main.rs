//! Benchmarks of a whole chain of processes on this machine: `speed`, four validators; `growth ENTRIES`, one validator whose
//! chain grows to so many; and `followers COUNT`, one validator that so many follow.
//!
//! Everything shares this machine's processors: the load, the nodes, their containers. The last line is JSON.

mod followers;
mod growth;
mod load;
mod speed;

use instar::demo::stage::{Setup, Stage};
use instar::demo::{Talk, VALIDATORS, chain};

/// What is measured.
enum What {
    Speed,
    Growth(u64),
    Followers(u64),
}

fn main() {
    instar_sandbox::init();
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().expect("a number");
    let (validators, what) = match words[..] {
        ["speed", ..] => (VALIDATORS, What::Speed),
        ["growth", entries, ..] => (1, What::Growth(number(entries))),
        ["followers", count, ..] => (1, What::Followers(number(count))),
        _ => panic!("say `speed`, `growth ENTRIES` or `followers COUNT`"),
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
    let report = match what {
        What::Speed => speed::measure(&stage),
        What::Growth(entries) => growth::measure(&mut stage, entries),
        What::Followers(count) => followers::measure(&stage, count),
    };
    println!("{report}");
}
