//! Puts the sources of the coin dapp, and the crates that it is built from, into the program, so that the installed
//! program alone can write a developer's repository.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Folders of `node/dapps` that are not part of the first version's source: later versions, and what builds leave.
const NOT_SOURCE: [&str; 3] = ["coin-v2", "coin-hashmap", "target"];

/// Where the dapps stand, seen from this package.
const DAPPS: &str = "../dapps";

fn main() {
    // Paths are relative to the package, so that a checkout may be moved together with what was built in it.
    println!("cargo::rerun-if-changed={DAPPS}");
    let mut out = String::new();
    table(&mut out, "SOURCE", "", &NOT_SOURCE);
    table(&mut out, "COIN_V2", "coin-v2/", &[]);
    table(&mut out, "COIN_HASHMAP", "coin-hashmap/", &[]);
    let file = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it")).join("embedded.rs");
    std::fs::write(file, out).expect("the output folder is writable");
}

fn table(out: &mut String, name: &str, below: &str, without: &[&str]) {
    let root = Path::new(DAPPS).join(below);
    let mut files = Vec::new();
    list(&root, &mut files);
    files.sort();
    writeln!(out, "static {name}: &[(&str, &[u8])] = &[").expect("a string takes everything");
    for file in files {
        let path = file
            .strip_prefix(&root)
            .expect("it was found below")
            .to_str()
            .expect("our names are plain");
        let first = path.split('/').next().unwrap_or(path);
        // The ignore file is this repository's, not the developer's.
        if without.contains(&first) || path == ".gitignore" {
            continue;
        }
        let at = format!("/{DAPPS}/{below}{path}");
        writeln!(
            out,
            "    ({path:?}, include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {at:?}))),"
        )
        .expect("a string takes everything");
    }
    out.push_str("];\n");
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            // What builds leave is large, and left out later anyway.
            if path.file_name().is_some_and(|name| name != "target") {
                list(&path, files);
            }
        } else {
            files.push(path);
        }
    }
}
