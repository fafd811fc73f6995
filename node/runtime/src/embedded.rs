//! The coin dapp's sources, which the program carries: a whole repository, with its lock file and its vendored crate.

use std::collections::BTreeMap;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The files of a version of the coin dapp, by path: 1 is the first; 2 adds a memo to transfers; 3 must never go live,
/// because it walks a `HashMap` in its own order. None for any other.
pub fn coin_source(version: u32) -> Option<Vec<(&'static str, &'static [u8])>> {
    let changes: &[_] = match version {
        1 => &[],
        2 => COIN_V2,
        3 => COIN_HASHMAP,
        _ => return None,
    };
    let mut files: BTreeMap<&str, &[u8]> = SOURCE.iter().copied().collect();
    files.extend(changes.iter().copied());
    Some(files.into_iter().collect())
}

/// The coin dapp's manifest, which is the same in all versions.
pub fn coin_manifest() -> &'static [u8] {
    let found = SOURCE.iter().find(|(path, _)| *path == "coin/dapp.json");
    found
        .map(|(_, bytes)| *bytes)
        .expect("the manifest stands beside the coin's source, which a test reads")
}

#[cfg(test)]
mod tests {
    use instar_attest::Digest;
    use serde_json::Value;

    use super::*;
    use crate::Manifest;

    fn text(files: &[(&'static str, &'static [u8])], path: &str) -> &'static str {
        let (_, bytes) = files.iter().find(|(found, _)| *found == path).unwrap();
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn versions_differ_where_they_should() {
        let [one, two, three] = [1, 2, 3].map(|version| coin_source(version).unwrap());
        assert!(coin_source(4).is_none());
        for other in [&two, &three] {
            assert_eq!(one.len(), other.len());
            let changed: Vec<_> = one
                .iter()
                .zip(other)
                .filter(|(a, b)| a != b)
                .map(|(a, _)| a.0)
                .collect();
            assert_eq!(changed, ["coin/src/main.rs"]);
        }
        assert!(!text(&one, "coin/src/main.rs").contains("memo"));
        assert!(text(&two, "coin/src/main.rs").contains("memo"));
        assert!(text(&three, "coin/src/main.rs").contains("HashMap"));
        assert!(Manifest::parse(coin_manifest()).is_ok());
    }

    /// What cargo checks when it builds, checked here for everything that is embedded: the lock file's checksum is the
    /// vendored crate's, each listed file is there with its hash, and no file is there that isn't listed.
    #[test]
    fn vendored_crates_are_those_of_the_lock_file() {
        let files = coin_source(1).unwrap();
        let lock = text(&files, "Cargo.lock");
        let mut crates = 0;
        for package in lock.split("[[package]]").skip(1) {
            let field = |name: &str| {
                package
                    .lines()
                    .find_map(|line| line.strip_prefix(&format!("{name} = \"")))?
                    .strip_suffix('"')
            };
            let name = field("name").unwrap();
            let Some(checksum) = field("checksum") else {
                assert!(
                    field("source").is_none(),
                    "{name} comes from somewhere without a checksum"
                );
                continue;
            };
            crates += 1;
            let folder = format!("vendor/{name}/");
            let manifest = text(&files, &format!("{folder}Cargo.toml"));
            assert!(manifest.contains(&format!("version = \"{}\"", field("version").unwrap())));
            let listing: Value =
                serde_json::from_str(text(&files, &format!("{folder}.cargo-checksum.json")))
                    .unwrap();
            assert_eq!(listing["package"], checksum);
            let mut listed: BTreeMap<_, _> = listing["files"]
                .as_object()
                .unwrap()
                .clone()
                .into_iter()
                .collect();
            for (path, bytes) in &files {
                let Some(path) = path
                    .strip_prefix(&folder)
                    .filter(|path| *path != ".cargo-checksum.json")
                else {
                    continue;
                };
                let expected = listed
                    .remove(path)
                    .unwrap_or_else(|| panic!("{path} is not listed"));
                assert_eq!(Digest::of(bytes).to_hex(), expected, "{path}");
            }
            assert!(listed.is_empty(), "{listed:?} are listed and not there");
        }
        let folders = files
            .iter()
            .filter(|(path, _)| path.starts_with("vendor/") && path.ends_with("/Cargo.lock"));
        assert_eq!(
            crates,
            folders.count(),
            "a crate is vendored that the lock file doesn't have"
        );
    }

    #[test]
    fn no_procedural_macros_are_used() {
        for (path, bytes) in coin_source(1).unwrap() {
            if path.ends_with("Cargo.toml") {
                assert!(
                    !String::from_utf8_lossy(bytes).contains("proc-macro"),
                    "{path}"
                );
            }
        }
    }
}
