#![no_main]

#[path = "../../../node/ledger/tests/targets/trunk.rs"]
mod trunk;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    trunk::run(data);
});
