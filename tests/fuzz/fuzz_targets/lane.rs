#![no_main]

#[path = "../../../node/ledger/tests/targets/lane.rs"]
mod lane;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    lane::run(data);
});
