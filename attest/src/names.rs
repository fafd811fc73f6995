//! Names with a grammar: each is checked once, when it is made, and can't be wrong afterwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest release path, in bytes. Far below what file systems take, so that staging folders can be put before it.
pub const MAX_PATH: usize = 255;
/// How many segments a release path may have.
pub const MAX_PATH_SEGMENTS: usize = 16;
/// The longest target triple, dapp name or recipe name.
pub const MAX_NAME: usize = 64;

/// Why a text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is not {what}: {why}")]
pub struct NameError {
    /// Which name was expected.
    pub what: &'static str,
    /// The text, cut after 80 characters.
    pub got: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks the grammar.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(why) => Err(NameError {
                        what: $what,
                        got: text.chars().take(80).collect(),
                        why,
                    }),
                }
            }
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A content address: CIDv1, codec raw or dag-pb, sha2-256, in lower-case base32: the one spelling that is accepted.
    Cid,
    "an artifact CID",
    check_cid
);
name!(
    /// Where a file stands in a release: relative, ASCII, `/` between segments, no `.` or `..`.
    ReleasePath,
    "a release path",
    check_path
);
name!(
    /// A target triple, such as `x86_64-unknown-linux-gnu`.
    Target,
    "a target",
    check_target
);
name!(
    /// The name of a dapp or of the node program: what an entry's topic and a binary's file name are.
    ProgramName,
    "a program name",
    check_program
);
name!(
    /// The name of a build recipe, such as `cargo-vendored-v1`.
    Recipe,
    "a recipe name",
    check_recipe
);
name!(
    /// What a release replaces: `node`, or `dapps/<name>`.
    Slot,
    "a slot",
    check_slot
);
name!(
    /// The name of a chunk profile, such as `instar-cdc-v1`.
    ChunkProfile,
    "a chunk profile",
    check_recipe
);

/// What [`Recipe::uri`] puts before the name.
const RECIPE_URI: &str = "urn:instar:recipe:";

impl Recipe {
    /// The `buildType` of the SLSA provenance.
    pub fn uri(&self) -> String {
        format!("{RECIPE_URI}{}", self.0)
    }
    /// Reads a `buildType`.
    pub fn from_uri(uri: &str) -> Result<Self, NameError> {
        let name = uri.strip_prefix(RECIPE_URI).ok_or_else(|| NameError {
            what: "a recipe URI",
            got: uri.chars().take(80).collect(),
            why: "it does not begin with urn:instar:recipe:",
        })?;
        Self::new(name)
    }
}

impl Slot {
    /// The slot of the node program.
    pub fn node() -> Self {
        Self("node".into())
    }
    /// The slot of a dapp.
    pub fn dapp(name: &ProgramName) -> Self {
        Self(format!("dapps/{name}"))
    }
    /// The dapp's name, or nothing for the node slot.
    pub fn dapp_name(&self) -> Option<&str> {
        self.0.strip_prefix("dapps/")
    }
}

impl ReleasePath {
    /// The path of a file of `target`.
    pub fn of_target(target: &Target, relative: &str) -> Result<Self, NameError> {
        Self::new(format!("{target}/{relative}"))
    }
    /// Whether the first segment is `target`, and something stands below it.
    pub fn is_under(&self, target: &Target) -> bool {
        self.0
            .strip_prefix(target.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
    }
    /// The path without its first segment, which is the target.
    pub fn relative(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, rest)| rest)
    }
}

/// `b` and 58 digits of RFC 4648 base32 without padding hold the 36 bytes of a CID.
const CID_CHARS: usize = 59;

fn check_cid(text: &str) -> Result<(), &'static str> {
    let digits = text.as_bytes();
    if digits.len() != CID_CHARS || digits[0] != b'b' {
        return Err("it is not 59 characters of lower-case base32 that begin with b");
    }
    let mut bytes = Vec::with_capacity(37);
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in &digits[1..] {
        let value = match digit {
            b'a'..=b'z' => digit - b'a',
            b'2'..=b'7' => digit - b'2' + 26,
            _ => return Err("it has a character that is not lower-case base32"),
        };
        bits = (bits << 5) | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    if bits != 0 {
        return Err("its last character has bits that stand for nothing");
    }
    match bytes.as_slice() {
        [0x01, 0x55 | 0x70, 0x12, 0x20, hash @ ..] if hash.len() == 32 => Ok(()),
        _ => Err("it is not CIDv1, raw or dag-pb, with a sha2-256 hash"),
    }
}

fn check_path(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > MAX_PATH {
        return Err("a path has 1 to 255 characters");
    }
    if text.split('/').count() > MAX_PATH_SEGMENTS {
        return Err("a path has at most 16 segments");
    }
    for segment in text.split('/') {
        match segment {
            "" => return Err("a segment is empty; paths are relative, without a slash at the end"),
            "." | ".." => return Err("a segment is . or .."),
            _ => {}
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+@=,-".contains(&b);
        if !segment.bytes().all(plain) {
            return Err("only ASCII letters, digits and . _ + @ = , - may stand in a segment");
        }
    }
    Ok(())
}

fn check_target(text: &str) -> Result<(), &'static str> {
    let plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-' || b == b'.';
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(plain) {
        return Err("a target has 1 to 64 of a-z, 0-9, _, - and .");
    }
    if !text.as_bytes()[0].is_ascii_alphanumeric() {
        return Err("a target begins with a letter or digit");
    }
    // Targets are the first segment of a path; these two names are taken in a release's root.
    if matches!(text, "release.json" | "sbom.cdx.json") {
        return Err("this name is reserved in a release");
    }
    Ok(())
}

fn check_program(text: &str) -> Result<(), &'static str> {
    let ok = text.len() <= 32
        && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if ok {
        Ok(())
    } else {
        Err("1 to 32 of a-z, 0-9 and -, the first a letter")
    }
}

fn check_recipe(text: &str) -> Result<(), &'static str> {
    let ok = text.len() <= MAX_NAME
        && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if ok {
        Ok(())
    } else {
        Err("1 to 64 of a-z, 0-9 and -, the first a letter")
    }
}

fn check_slot(text: &str) -> Result<(), &'static str> {
    match text.strip_prefix("dapps/") {
        Some(name) => check_program(name),
        None if text == "node" => Ok(()),
        None => Err("a slot is node or dapps/<name>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &str = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

    #[test]
    fn a_cid_has_one_spelling() {
        assert!(Cid::new(RAW).is_ok());
        assert!(Cid::new("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi").is_ok());
        for bad in [
            "",
            "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
            &RAW.to_uppercase(),
            &format!("z{}", &RAW[1..]),
            &RAW[..58],
            // The last digit carries two bits; any of the other three spellings of it is refused.
            &format!("{}z", &RAW[..58]),
            // dag-cbor
            "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
        ] {
            assert!(Cid::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_that_leave_the_release_are_refused() {
        for bad in [
            "",
            "/etc/passwd",
            "a/../b",
            "..",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "a\0",
            "é",
            "a b",
            "a:b",
            &"x/".repeat(20),
            &"x".repeat(256),
        ] {
            assert!(ReleasePath::new(bad).is_err(), "{bad:?}");
        }
        let t = Target::new("x86_64-unknown-linux-gnu").unwrap();
        let p = ReleasePath::of_target(&t, "rootfs/bin/coin").unwrap();
        assert!(p.is_under(&t));
        assert_eq!(p.relative(), "rootfs/bin/coin");
        assert!(
            !ReleasePath::new("x86_64-unknown-linux-gnux/a")
                .unwrap()
                .is_under(&t)
        );
        assert!(Target::new("release.json").is_err());
        assert!(Target::new("..").is_err());
    }

    #[test]
    fn slots() {
        assert!(Slot::new("node").is_ok());
        assert_eq!(Slot::new("dapps/coin").unwrap().dapp_name(), Some("coin"));
        for bad in ["dapps/", "dapps/../x", "dapps/Coin", "nodes", ""] {
            assert!(Slot::new(bad).is_err(), "{bad}");
        }
        let recipe = Recipe::new("cargo-vendored-v1").unwrap();
        assert_eq!(Recipe::from_uri(&recipe.uri()), Ok(recipe));
        assert!(Recipe::from_uri("https://example.org/x").is_err());
    }
}
