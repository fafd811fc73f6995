#![no_main]

#[path = "../../../node/chunks/tests/targets/car.rs"]
mod car;

libfuzzer_sys::fuzz_target!(|data: &[u8]| car::run(data));
