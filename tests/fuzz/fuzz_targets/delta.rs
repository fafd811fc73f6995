#![no_main]

#[path = "../../../node/delta/tests/targets/delta.rs"]
mod delta;

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta::run(data));
