//! Whole builds in the sandbox.

fn main() {
    instar_sandbox::init();
}
