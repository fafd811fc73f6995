//! The software bill of materials: CycloneDX 1.5 as canonical JSON, a pure function of the lock file.
//!
//! There is no serial number, time, machine or tool version in it: builders that agree on a lock file agree on these
//! bytes. What changes them is [`FORMAT_VERSION`], which stands in them.

use instar_attest::json::{self, JsonError};
use serde_json::{Value, json};

use crate::lock::{Lock, Package};

/// The version of the form described in `docs/formats/builder.md`.
pub const FORMAT_VERSION: &str = "1";

/// The bytes of `sbom.cdx.json` for this lock file.
pub fn sbom(lock: &Lock) -> Result<Vec<u8>, JsonError> {
    let components: Vec<Value> = lock.packages.iter().map(component).collect();
    let dependencies: Vec<Value> = lock.packages.iter().map(|p| dependency(lock, p)).collect();
    json::to_vec(&json!({
        "bomFormat": "CycloneDX",
        "components": components,
        "dependencies": dependencies,
        "metadata": {
            "properties": [
                {"name": "instar:sbom-format", "value": FORMAT_VERSION},
                {"name": "instar:cargo-lock-sha256", "value": lock.digest.to_hex()},
            ],
        },
        "specVersion": "1.5",
        "version": 1,
    }))
}

fn component(package: &Package) -> Value {
    let purl = purl(package);
    let mut component = json!({
        "bom-ref": purl,
        "name": package.name,
        "purl": purl,
        "type": "library",
        "version": package.version,
    });
    if let Some(checksum) = &package.checksum {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum.to_hex()}]);
    }
    component
}

fn dependency(lock: &Lock, package: &Package) -> Value {
    let mut on: Vec<String> = package
        .dependencies
        .iter()
        .filter_map(|line| lock.find(line))
        .map(purl)
        .collect();
    on.sort();
    on.dedup();
    json!({"dependsOn": on, "ref": purl(package)})
}

/// The package URL; the source stands in it where it is not crates.io, so that it is unique in a lock file.
fn purl(package: &Package) -> String {
    let version = escape(&package.version);
    let base = format!("pkg:cargo/{}@{version}", escape(&package.name));
    match package.source.as_deref() {
        None => format!("{base}?local=true"),
        Some("registry+https://github.com/rust-lang/crates.io-index") => base,
        Some(git) if git.starts_with("git+") => format!("{base}?vcs_url={}", escape(git)),
        Some(other) => {
            let url = other.split_once('+').map_or(other, |(_, url)| url);
            format!("{base}?repository_url={}", escape(url))
        }
    }
}

/// Percent-encoding as package URLs ask for it.
fn escape(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b".-_~".contains(&b) {
            out.push(char::from(b));
        } else {
            write!(out, "%{b:02X}").expect("a string takes every write");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"version = 4

[[package]]
name = "coin"
version = "0.2.0"
dependencies = ["itoa", "ryu 1.0.0+b1"]

[[package]]
name = "ryu"
version = "1.0.0+b1"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "5555555555555555555555555555555555555555555555555555555555555555"

[[package]]
name = "itoa"
version = "1.0.0"
source = "git+https://example.org/itoa#abc"
"#;

    #[test]
    fn it_depends_on_the_lock_file_only() {
        let lock = Lock::parse(LOCK.as_bytes()).unwrap();
        let one = sbom(&lock).unwrap();
        assert_eq!(one, sbom(&Lock::parse(LOCK.as_bytes()).unwrap()).unwrap());
        let value: Value = json::from_slice(&one, 1 << 20).unwrap();
        assert_eq!(value["components"][2]["purl"], "pkg:cargo/ryu@1.0.0%2Bb1");
        assert_eq!(
            value["components"][1]["purl"],
            "pkg:cargo/itoa@1.0.0?vcs_url=git%2Bhttps%3A%2F%2Fexample.org%2Fitoa%23abc"
        );
        assert_eq!(
            value["dependencies"][0]["dependsOn"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        assert!(value.get("serialNumber").is_none());
        let other = Lock::parse(LOCK.replace("0.2.0", "0.2.1").as_bytes()).unwrap();
        assert_ne!(one, sbom(&other).unwrap());
    }

    #[test]
    fn a_registry_crate_without_checksum_is_refused() {
        let cut: String = LOCK
            .lines()
            .filter(|l| !l.starts_with("checksum"))
            .map(|l| format!("{l}\n"))
            .collect();
        assert!(
            Lock::parse(cut.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("ryu 1.0.0+b1 has no checksum")
        );
        assert!(Lock::parse(b"version = 2\n").is_err());
    }
}
