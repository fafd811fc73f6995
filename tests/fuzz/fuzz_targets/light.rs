#![no_main]

#[path = "../../../node/ledger/tests/targets/light.rs"]
mod light;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    light::run(data);
});
