#![no_main]

#[path = "../../../attest/tests/targets/attest.rs"]
mod attest;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    attest::run(data);
});
