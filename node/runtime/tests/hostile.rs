//! What a dapp can do wrong, on purpose or not: each ends with a failure of the right kind, in bounded time and memory.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use instar_chain::{DappFailure, MemoryState};
use serde_json::json;
use support::{Host, account, compile, entry, release};

/// Which kind of failure is expected, and a part of its text.
enum Expected {
    Protocol(&'static str),
    Crash(&'static str),
    Abstain(&'static str),
    Vetoed,
    Fine,
}

use Expected::{Abstain, Crash, Fine, Protocol, Vetoed};

fn main() {
    instar_sandbox::init();
    let program = compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/hostile.rs"));
    let cases = [
        ("polite", Fine),
        ("silent_exit", Crash("exit code 0")),
        ("panic", Crash("it panics")),
        ("segfault", Crash("signal 11")),
        ("missing", Crash("can't start")),
        ("closes_output", Crash("closed its output")),
        ("endless_line", Protocol("a line of more than")),
        ("endless_lines", Protocol("more bytes than")),
        ("endless_questions", Protocol("too many operations")),
        (
            "reads_everything_again_and_again",
            Protocol("too much of the state"),
        ),
        ("no_json", Protocol("not understood")),
        ("deep_json", Protocol("not understood")),
        ("unknown_line", Protocol("not understood")),
        ("emits", Protocol("not understood")),
        ("wrong_entry", Protocol("a verdict on")),
        ("two_verdicts", Protocol("not expected")),
        ("done_too_early", Protocol("not expected")),
        ("bad_key", Protocol("a key is")),
        ("long_key", Protocol("a key is")),
        ("long_value", Protocol("a value of more")),
        ("large_output", Protocol("an output")),
        ("float_output", Protocol("an output")),
        ("bad_rule", Protocol("no name of a rule")),
        ("sleeps", Abstain("no end after")),
        ("spins", Abstain("no end after")),
        ("complains_without_end", Abstain("no end after")),
        ("eats_memory", Crash("signal")),
        ("vetoes", Vetoed),
    ];
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    // Those that run into the clock wait side by side.
    std::thread::scope(|scope| {
        for (name, expected) in cases.iter().filter(|(name, _)| name.contains(&filter)) {
            let program = &program;
            let test = move || {
                run(name, expected, program);
                println!("test {name} ... ok");
            };
            if matches!(expected, Abstain(_)) {
                scope.spawn(test);
            } else {
                test();
            }
        }
    });
    println!("test result: ok. {} tests", cases.len());
}

fn run(name: &str, expected: &Expected, program: &[u8]) {
    let mut host = Host::new();
    let manifest = json!({"abi": 1, "command": ["/bin/hostile", name], "topic": "hostile"});
    let manifest = if name == "missing" {
        json!({"abi": 1, "command": ["/bin/none"], "topic": "hostile"})
    } else {
        manifest
    };
    let release = release(
        &host.blocks,
        "hostile",
        program,
        manifest.to_string().as_bytes(),
    );
    let mut state = MemoryState::default();
    for number in 0..900 {
        state.insert(format!("key/{number}"), vec![b'x'; 200]);
    }
    let entries = vec![
        entry("hostile", account(1), 1, json!({"n": 1})),
        entry("hostile", account(1), 2, json!({"n": 2})),
    ];
    let start = Instant::now();
    let result = host.run("hostile", &release, &state, entries);
    let took = start.elapsed();
    let limit = if matches!(expected, Abstain(_)) {
        Duration::from_secs(20)
    } else {
        Duration::from_secs(9)
    };
    assert!(took < limit, "{name}: {took:?}");
    let text = result
        .as_ref()
        .err()
        .map(ToString::to_string)
        .unwrap_or_default();
    match (expected, &result) {
        (Protocol(part), Err(DappFailure::Protocol(_)))
        | (Crash(part), Err(DappFailure::Crash(_)))
        | (Abstain(part), Err(DappFailure::Abstain(_))) => {
            assert!(text.contains(part), "{name}: {text}")
        }
        (Fine, Ok(result)) => {
            assert!(result.verdicts.iter().all(|verdict| verdict.ok));
            assert_eq!(result.writes.len(), 2, "{result:?}");
        }
        (Vetoed, Ok(result)) => {
            assert!(result.writes.is_empty());
            assert!(
                result
                    .verdicts
                    .iter()
                    .all(|verdict| verdict.rule.as_deref() == Some("not-today")),
                "{result:?}"
            );
            assert_eq!(result.verdicts.len(), 2);
        }
        _ => panic!("{name}: {result:?}"),
    }
    assert!(text.len() < 4096, "{name} fills the log");
}
