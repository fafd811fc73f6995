//! The house rules that a compiler doesn't hold: which room may know which, and that pure rooms stay pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the root")
        .to_owned()
}

/// Room → rooms it may depend on, as `docs/architecture.md` draws it.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("instar-attest", &[][..]),
        ("instar-sandbox", &[]),
        ("instar-chunks", &[]),
        ("instar-delta", &["instar-chunks"]),
        (
            "instar-builder",
            &["instar-attest", "instar-chunks", "instar-sandbox"],
        ),
        ("instar-upgrader", &["instar-attest", "instar-chunks"]),
        ("instar-ledger", &["instar-attest"]),
        (
            "instar-chain",
            &["instar-attest", "instar-chunks", "instar-ledger"],
        ),
        (
            "instar-state",
            &["instar-chain", "instar-ledger", "instar-attest"],
        ),
        (
            "instar-runtime",
            &[
                "instar-sandbox",
                "instar-chunks",
                "instar-chain",
                "instar-ledger",
                "instar-attest",
            ],
        ),
        (
            "instar-consensus",
            &["instar-ledger", "instar-chain", "instar-attest"],
        ),
        ("instar-ipfs", &["instar-chunks"]),
        (
            "instar-audit",
            &[
                "instar-attest",
                "instar-chunks",
                "instar-ledger",
                "instar-chain",
                "instar-state",
                "instar-runtime",
            ],
        ),
        (
            "instar-node",
            &[
                "instar-attest",
                "instar-sandbox",
                "instar-chunks",
                "instar-ledger",
                "instar-chain",
                "instar-state",
                "instar-runtime",
                "instar-consensus",
                "instar-delta",
                "instar-ipfs",
                "instar-audit",
                "instar-upgrader",
            ],
        ),
    ])
}

#[test]
fn the_arrows_between_rooms_hold() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs this test, so cargo is there");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let allowed = allowed();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().expect("packages is a list") {
        let name = package["name"].as_str().expect("a package has a name");
        seen.insert(name.to_owned());
        // The command line and the tests may know every room; nothing may know the tests.
        let may: Option<&[&str]> = match name {
            "instar" | "instar-tests" => None,
            room => Some(allowed.get(room).unwrap_or_else(|| {
                panic!("{room} has no place in the house: see docs/architecture.md")
            })),
        };
        for dependency in package["dependencies"]
            .as_array()
            .expect("dependencies is a list")
        {
            let target = dependency["name"]
                .as_str()
                .expect("a dependency has a name");
            if dependency["path"].is_null() {
                continue;
            }
            assert_ne!(target, "instar-tests", "{name} depends on the tests");
            if let Some(may) = may {
                assert!(may.contains(&target), "{name} must not know {target}");
            }
        }
    }
    for room in allowed.keys() {
        assert!(seen.contains(*room), "{room} is drawn but not built");
    }
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("a folder entry is readable").path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The words that a pure room does not say: I/O, clocks, randomness, and maps without an order.
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "getrandom",
    "rand::",
    "HashMap",
    "HashSet",
];

#[test]
fn pure_rooms_do_no_io_and_read_no_clock() {
    let pure: [(&str, &[&str]); 5] = [
        ("attest/src", &["keyfile.rs", "keyfile", "keyless/sign.rs"]),
        ("node/chain/src", &["tests", "tests.rs", "fake.rs"]),
        ("node/consensus/src/bare", &[]),
        ("upgrader/src/machine", &[]),
        ("tests/src/sim", &[]),
    ];
    for (dir, except) in pure {
        // The simulation draws, from the seed that it is given.
        let draws = dir == "tests/src/sim";
        let mut files = Vec::new();
        let path = root().join(dir);
        if path.is_dir() {
            rust_files(&path, &mut files);
        } else {
            files.push(path.with_extension("rs"));
        }
        for file in files {
            if except
                .iter()
                .any(|e| file.ends_with(e) || file.components().any(|c| c.as_os_str() == *e))
            {
                continue;
            }
            let text = std::fs::read_to_string(&file)
                .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            // Unit tests at a file's end may do as they like.
            let code = text
                .split("#[cfg(test)]\nmod tests")
                .next()
                .expect("split yields at least one part");
            for (number, line) in code.lines().enumerate() {
                let said = line
                    .split("//")
                    .next()
                    .expect("split yields at least one part");
                for word in IMPURE {
                    if draws && word == "rand::" {
                        continue;
                    }
                    assert!(
                        !said.contains(word),
                        "{}:{}: a pure room says {word}",
                        file.display(),
                        number + 1
                    );
                }
            }
        }
    }
}

#[test]
fn the_top_level_is_as_given() {
    let given: BTreeSet<&str> = BTreeSet::from([
        ".ci",
        ".git",
        ".gitignore",
        ".gitlab-ci.yml",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "attest",
        "builder",
        "ci-templates",
        "clippy.toml",
        "deny.toml",
        "docs",
        "nix",
        "node",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "target",
        "tests",
        "upgrader",
    ]);
    for entry in std::fs::read_dir(root()).expect("the root is readable") {
        let name = entry.expect("a folder entry is readable").file_name();
        let name = name.to_str().expect("names here are ASCII");
        assert!(
            given.contains(name),
            "{name} does not belong at the top level"
        );
    }
}
