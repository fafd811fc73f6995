#![no_main]

#[path = "../../../node/ledger/tests/targets/entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entry::run(data);
});
