//! The Rust toolchain: which one is used, and the digest of what it consists of.
//!
//! A toolchain is used where it lies, mounted read-only; its programs are called by their real paths, since the
//! proxies of rustup choose by environment and folder.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use instar_attest::{Digest, json};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{At, BuildError, project};
use crate::files::write_atomic;
use crate::project::read_text;

/// How many files of a toolchain go into its digest. One with two targets has 120.
const MAX_TOOLCHAIN_FILES: usize = 20_000;
/// The largest file of remembered digests.
const MAX_CACHE_BYTES: usize = 1 << 20;
/// How many digests are remembered: each upgrade of a toolchain leaves one behind.
const MAX_CACHED: usize = 256;

/// A toolchain on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// Its folder: `bin/rustc`, `bin/cargo` and `lib/rustlib` lie below.
    pub sysroot: PathBuf,
    /// The target that it runs on.
    pub host: String,
    /// What `rustc -vV` prints, for provenance.
    pub version: String,
}

impl Toolchain {
    /// The toolchain that the source at `root` asks for, or the machine's default one.
    ///
    /// Nothing of the source is executed: of its toolchain file only the channel's name is taken.
    pub fn find(root: &Path) -> Result<Self, BuildError> {
        let channel = wanted_channel(root)?;
        if let Some(channel) = &channel {
            // Only rustup's proxy knows `+channel`; a plain rustc refuses it and is asked in the ordinary way below.
            if let Ok(found) = Self::ask(&[&format!("+{channel}")]) {
                return Ok(found);
            }
        }
        let found = Self::ask(&[]).map_err(BuildError::Toolchain)?;
        if let Some(channel) = channel.filter(|c| c.starts_with(|d: char| d.is_ascii_digit())) {
            let release = found.version.split(' ').nth(1).unwrap_or_default();
            if release != channel && !release.starts_with(&format!("{channel}.")) {
                let why = format!(
                    "the source asks for Rust {channel}, here is {release}; `rustup toolchain install {channel}`"
                );
                return Err(BuildError::Toolchain(why));
            }
        }
        Ok(found)
    }

    fn ask(first: &[&str]) -> Result<Self, String> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let run = |args: &[&str]| {
            let out = Command::new(&rustc)
                .args(first)
                .args(args)
                // A source that is the current folder must not choose the toolchain by a file of its own.
                .current_dir("/")
                .env("RUSTUP_AUTO_INSTALL", "0")
                .stdin(Stdio::null())
                .output()
                .map_err(|e| format!("{}: {e}", rustc.to_string_lossy()))?;
            if !out.status.success() {
                return Err(String::from_utf8_lossy(&out.stderr).trim().to_owned());
            }
            Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        let sysroot = PathBuf::from(run(&["--print", "sysroot"])?);
        let version = run(&["-vV"])?;
        let host = version
            .lines()
            .find_map(|l| l.strip_prefix("host: "))
            .ok_or("`rustc -vV` names no host")?
            .to_owned();
        for program in ["rustc", "cargo"] {
            let at = sysroot.join("bin").join(program);
            if !at.is_file() {
                return Err(format!("there is no {}", at.display()));
            }
        }
        let sysroot = sysroot
            .canonicalize()
            .map_err(|e| format!("{}: {e}", sysroot.display()))?;
        Ok(Self {
            sysroot,
            host,
            version,
        })
    }

    /// Whether the standard library for `target` is there.
    pub fn has_target(&self, target: &str) -> bool {
        self.sysroot
            .join("lib/rustlib")
            .join(target)
            .join("lib")
            .is_dir()
    }

    /// The digest over all files that take part in a build for `targets`, remembered in `cache` by path, size and
    /// time, since hashing half a gigabyte for each build would cost more than the build.
    pub fn digest(&self, targets: &[&str], cache: &Path) -> Result<Digest, BuildError> {
        let files = self.files(targets)?;
        let mut key = Sha256::new();
        for (path, meta) in &files {
            let line = format!(
                "{}\0{}\0{}\0{}\n",
                path.display(),
                meta.size(),
                meta.mtime(),
                meta.mtime_nsec()
            );
            key.update(line);
        }
        key.update(self.sysroot.as_os_str().as_encoded_bytes());
        let key = Digest::from_bytes(key.finalize().into());
        let cache_file = cache.join("toolchains.json");
        let mut known = Known::read(&cache_file);
        if let Some(found) = known.digests.get(&key.to_hex()) {
            return Ok(*found);
        }
        let mut all = Sha256::new();
        all.update(b"instar/toolchain/v1\0");
        for (path, _) in &files {
            let at = self.sysroot.join(path);
            all.update(format!("{}  {}\n", sha256_file(&at)?, path.display()));
        }
        let digest = Digest::from_bytes(all.finalize().into());
        if known.digests.len() >= MAX_CACHED {
            known.digests.clear();
        }
        known.digests.insert(key.to_hex(), digest);
        write_atomic(&cache_file, &json::to_vec(&known)?)?;
        Ok(digest)
    }

    /// Compiler, cargo, their libraries, and the standard libraries of the host and the targets; no documentation.
    fn files(&self, targets: &[&str]) -> Result<Vec<(PathBuf, fs::Metadata)>, BuildError> {
        let mut open: Vec<PathBuf> = vec!["bin/rustc".into(), "bin/cargo".into()];
        let libraries = self.sysroot.join("lib");
        for entry in fs::read_dir(&libraries).at("can't list", &libraries)? {
            let name = entry.at("can't list", &libraries)?.file_name();
            let text = name.to_string_lossy();
            // By name, because a toolchain of the distribution lies in /usr, beside everything else.
            if ["librustc_driver", "libLLVM", "libstd-"]
                .iter()
                .any(|own| text.starts_with(own))
            {
                open.push(Path::new("lib").join(name));
            }
        }
        let rustlib = Path::new("lib/rustlib");
        open.push(rustlib.join(&self.host));
        open.extend(
            targets
                .iter()
                .filter(|t| **t != self.host)
                .map(|t| rustlib.join(t)),
        );
        let mut files = Vec::new();
        while let Some(path) = open.pop() {
            let at = self.sysroot.join(&path);
            let meta = fs::metadata(&at).at("can't look at", &at)?;
            if meta.is_dir() {
                for entry in fs::read_dir(&at).at("can't list", &at)? {
                    open.push(path.join(entry.at("can't list", &at)?.file_name()));
                }
            } else {
                files.push((path, meta));
            }
            if files.len() + open.len() > MAX_TOOLCHAIN_FILES {
                return Err(BuildError::Toolchain(format!(
                    "more than {MAX_TOOLCHAIN_FILES} files"
                )));
            }
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(files)
    }
}

/// Digests of toolchains seen before. Losing it costs half a second.
#[derive(Default, Serialize, Deserialize)]
struct Known {
    digests: std::collections::BTreeMap<String, Digest>,
}

impl Known {
    fn read(at: &Path) -> Self {
        let read = fs::read(at).ok();
        read.and_then(|bytes| json::from_slice(&bytes, MAX_CACHE_BYTES).ok())
            .unwrap_or_default()
    }
}

/// SHA-256 of a file, read in pieces.
pub(crate) fn sha256_file(at: &Path) -> Result<Digest, BuildError> {
    let mut file = fs::File::open(at).at("can't open", at)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 17];
    loop {
        let got = file.read(&mut buffer).at("can't read", at)?;
        if got == 0 {
            return Ok(Digest::from_bytes(hash.finalize().into()));
        }
        hash.update(&buffer[..got]);
    }
}

#[derive(Deserialize)]
struct ToolchainFile {
    toolchain: ToolchainTable,
}

#[derive(Deserialize)]
struct ToolchainTable {
    channel: Option<String>,
}

fn wanted_channel(root: &Path) -> Result<Option<String>, BuildError> {
    const FILE: &str = "rust-toolchain.toml";
    let Some(text) = read_text(root, FILE)? else {
        return Ok(None);
    };
    let file: ToolchainFile = toml::from_str(&text).map_err(|e| project(FILE, e.to_string()))?;
    let Some(channel) = file.toolchain.channel else {
        return Ok(None);
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if channel.is_empty() || channel.len() > 64 || !channel.bytes().all(plain) {
        return Err(project(FILE, "its channel is not a plain name"));
    }
    Ok(Some(channel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_remembered_and_the_same() {
        let root = tempfile::tempdir().unwrap();
        let cache = tempfile::tempdir().unwrap();
        let toolchain = Toolchain::find(root.path()).unwrap();
        let host = toolchain.host.clone();
        let first = toolchain.digest(&[&host], cache.path()).unwrap();
        let start = std::time::Instant::now();
        assert_eq!(first, toolchain.digest(&[&host], cache.path()).unwrap());
        assert!(
            start.elapsed().as_millis() < 100,
            "a remembered digest reads no file of the toolchain"
        );
        fs::remove_file(cache.path().join("toolchains.json")).unwrap();
        assert_eq!(first, toolchain.digest(&[&host], cache.path()).unwrap());
    }

    #[test]
    fn a_source_can_not_run_a_toolchain_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        fs::write(
            root.path().join("rust-toolchain.toml"),
            "[toolchain]\nchannel = \"../evil\"\n",
        )
        .unwrap();
        assert!(Toolchain::find(root.path()).is_err());
        fs::write(
            root.path().join("rust-toolchain.toml"),
            "[toolchain]\npath = \"./evil\"\n",
        )
        .unwrap();
        assert!(
            Toolchain::find(root.path()).is_ok(),
            "the path is not looked at"
        );
        fs::write(
            root.path().join("rust-toolchain.toml"),
            "[toolchain]\nchannel = \"1.2.3\"\n",
        )
        .unwrap();
        assert!(matches!(
            Toolchain::find(root.path()),
            Err(BuildError::Toolchain(_))
        ));
    }
}
