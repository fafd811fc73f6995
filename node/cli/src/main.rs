//! The `instar` program; `lib.rs` beside it is what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    instar::main(include_str!("codename.txt"))
}
