//! The `instar` program.
fn main() {}
