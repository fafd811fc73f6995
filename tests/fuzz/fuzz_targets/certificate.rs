#![no_main]

#[path = "../../../node/ledger/tests/targets/certificate.rs"]
mod certificate;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    certificate::run(data);
});
