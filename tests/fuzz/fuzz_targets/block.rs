#![no_main]

#[path = "../../../node/chunks/tests/targets/block.rs"]
mod block;

libfuzzer_sys::fuzz_target!(|data: &[u8]| block::run(data));
