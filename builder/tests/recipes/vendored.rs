//! Crates that come with the source, checked against the lock file.

use std::path::PathBuf;

use instar_attest::Digest;
use instar_builder::{BuildError, build};

use crate::support::{CARGO, Place, equal, place, quiet};

const CHECKSUM: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const GREET: &str = "pub fn greet() -> &'static str { \"greetings\" }\n";
const GREET_TOML: &str = "[package]\nname = \"greet\"\nversion = \"1.0.0\"\nedition = \"2021\"\n";

fn source(place: &Place, greet: &str, extra: Option<(&str, &str)>, checksum: &str) -> PathBuf {
    let manifest = format!("{CARGO}\n[dependencies]\ngreet = \"1\"\n");
    let lock = format!(
        "version = 4\n\n[[package]]\nname = \"greet\"\nversion = \"1.0.0\"\n\
         source = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{checksum}\"\n\n\
         [[package]]\nname = \"tiny\"\nversion = \"0.1.0\"\ndependencies = [\n \"greet\",\n]\n"
    );
    let config = "[source.crates-io]\nreplace-with = \"vendored\"\n[source.vendored]\ndirectory = \"vendor\"\n";
    // The listing is always of the honest file.
    let listing = format!(
        "{{\"files\":{{\"Cargo.toml\":\"{}\",\"src/lib.rs\":\"{}\"}},\"package\":\"{CHECKSUM}\"}}",
        Digest::of(GREET_TOML.as_bytes()),
        Digest::of(GREET.as_bytes())
    );
    let mut files = vec![
        ("Cargo.toml", manifest.as_str()),
        ("Cargo.lock", lock.as_str()),
        (".cargo/config.toml", config),
        (
            "src/main.rs",
            "fn main() { println!(\"{}\", greet::greet()); }\n",
        ),
        ("vendor/greet/Cargo.toml", GREET_TOML),
        ("vendor/greet/src/lib.rs", greet),
        ("vendor/greet/.cargo-checksum.json", listing.as_str()),
    ];
    files.extend(extra);
    place.repository("source", "sha256", &files)
}

fn refusal(greet: &str, extra: Option<(&str, &str)>, checksum: &str) -> String {
    let place = place();
    let repository = source(&place, greet, extra, checksum);
    match build(&place.request(&repository, "out"), &mut quiet) {
        Err(error @ BuildError::Vendor { .. }) => error.to_string(),
        other => panic!("{other:#?}"),
    }
}

pub fn vendored_crates_are_used() {
    let place = place();
    let built = equal(place.build(&source(&place, GREET, None, CHECKSUM), "out"));
    assert_eq!(
        (built.record.vendor.crates, built.record.vendor.from_source),
        (1, true)
    );
    let sbom = std::fs::read_to_string(built.out.join("release/sbom.cdx.json")).unwrap();
    assert!(sbom.contains("\"purl\":\"pkg:cargo/greet@1.0.0\"") && sbom.contains(CHECKSUM));
}

pub fn a_changed_file() {
    let why = refusal(&GREET.replace("greetings", "gold"), None, CHECKSUM);
    assert!(
        why.contains("greet 1.0.0: src/lib.rs is not the file that is listed"),
        "{why}"
    );
}

pub fn an_unlisted_file() {
    // Cargo would run this build script without a word.
    let why = refusal(
        GREET,
        Some(("vendor/greet/build.rs", "fn main() {}\n")),
        CHECKSUM,
    );
    assert!(why.contains("build.rs is not listed"), "{why}");
}

pub fn another_checksum() {
    let why = refusal(GREET, None, &CHECKSUM.replace('1', "2"));
    assert!(
        why.contains("its checksum is not the one in Cargo.lock"),
        "{why}"
    );
}
