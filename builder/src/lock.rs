//! `Cargo.lock`, read strictly enough to check vendored crates against it and to write an SBOM from it.

use instar_attest::Digest;
use serde::Deserialize;

use crate::error::{BuildError, project};

/// The lock file's name.
pub const LOCK_FILE: &str = "Cargo.lock";
/// The largest lock file. Seven hundred crates take 180 kB.
pub const MAX_LOCK_BYTES: u64 = 8 << 20;

/// A lock file: what it says, and the digest of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// The packages, sorted by name, version and source.
    pub packages: Vec<Package>,
}

/// One locked package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Package {
    /// The crate's name.
    pub name: String,
    /// The crate's version.
    pub version: String,
    /// Where it comes from; nothing for the packages of the source itself.
    pub source: Option<String>,
    /// SHA-256 of the registry's `.crate` file.
    pub checksum: Option<Digest>,
    /// What it needs, as cargo writes it: `name`, `name version` or `name version (source)`.
    #[serde(default)]
    pub dependencies: Vec<String>,
}

#[derive(Deserialize)]
struct LockFile {
    version: Option<u32>,
    #[serde(default, rename = "package")]
    packages: Vec<Package>,
}

impl Lock {
    /// Reads the bytes of a `Cargo.lock` of format 3 or 4.
    pub fn parse(bytes: &[u8]) -> Result<Self, BuildError> {
        let wrong = |why: String| project(LOCK_FILE, why);
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".into()))?;
        let file: LockFile = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        // Format 3 and 4 keep the checksum beside its package; older ones in a table that cargo rewrites on sight,
        // which `--locked` would refuse anyway.
        if !matches!(file.version, Some(3 | 4)) {
            return Err(wrong(
                "its format is not 3 or 4; run `cargo generate-lockfile`".into(),
            ));
        }
        let mut packages = file.packages;
        for package in &packages {
            if package.is_registry() && package.checksum.is_none() {
                return Err(wrong(format!("{} has no checksum", package.id())));
            }
        }
        packages.sort();
        Ok(Self {
            digest: Digest::of(bytes),
            packages,
        })
    }

    /// The packages that come from elsewhere.
    pub fn external(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|p| p.source.is_some())
    }

    /// The package that a dependency line means.
    pub fn find(&self, line: &str) -> Option<&Package> {
        let mut words = line.split(' ');
        let name = words.next()?;
        let version = words.next();
        let source = words.next().map(|s| s.trim_matches(['(', ')']));
        self.packages.iter().find(|p| {
            p.name == name
                && version.is_none_or(|v| p.version == v)
                && source.is_none_or(|s| p.source.as_deref() == Some(s))
        })
    }
}

impl Package {
    /// Name and version, for people.
    pub fn id(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// Whether it comes from a registry, so that it has a checksum.
    pub fn is_registry(&self) -> bool {
        self.source
            .as_deref()
            .is_some_and(|s| s.starts_with("registry+") || s.starts_with("sparse+"))
    }
}
