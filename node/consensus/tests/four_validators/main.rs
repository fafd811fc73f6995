//! Four validators as four processes on loopback: deciding, idling, refusing, being killed and coming back.
//!
//! Without arguments this is the test; with `node <index> <folder> <ports>` it is one validator.

// The whole target is a test, which clippy can't know without the usual harness.
#![allow(clippy::unwrap_used)]

mod node;
mod story;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("node") => node::main(&args[1..]),
        // The test harness asks for a list; this target is a single test.
        Some("--list") => println!("four_validators: test"),
        _ => story::main(),
    }
}
