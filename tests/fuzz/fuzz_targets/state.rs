#![no_main]

#[path = "../../../node/state/tests/targets/state.rs"]
mod state;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    state::run(data);
});
