//! The crates: the source's own vendored folder, or one made by `cargo vendor`, each checked against `Cargo.lock`.
//!
//! A vendored crate carries the checksum of the registry's archive, which must be the lock file's, and a listing of its
//! files, each of which must hash to what is listed, with no file beside them. Cargo itself checks less: it reads files
//! that are not listed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use instar_attest::Digest;
use serde::{Deserialize, Serialize};

use crate::error::{At, BuildError, project};
use crate::lock::{LOCK_FILE, Lock, MAX_LOCK_BYTES, Package};
use crate::project::{read_file, read_text};
use crate::source::list_files;
use crate::toolchain::{Toolchain, sha256_file};

/// The listing that `cargo vendor` leaves in each crate.
const CHECKSUM_FILE: &str = ".cargo-checksum.json";
/// The largest listing. The `windows` crate, which has the most files, has one of 100 kB.
const MAX_CHECKSUM_BYTES: u64 = 16 << 20;
/// How much of a failed command's output an error carries.
const MAX_LOG_CHARS: usize = 4000;

/// The crates of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vendored {
    /// The folder, where it is not part of the source.
    pub folder: Option<PathBuf>,
    /// What went in, for provenance.
    pub facts: VendorFacts,
}

/// What a build's crates are, for provenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorFacts {
    /// Digest over all vendored files: path and SHA-256, sorted.
    pub digest: Digest,
    /// How many crates there are.
    pub crates: u64,
    /// Whether they came with the source.
    pub from_source: bool,
}

/// The lock file of the source.
pub fn read_lock(root: &Path) -> Result<Lock, BuildError> {
    let bytes = read_file(root, LOCK_FILE, MAX_LOCK_BYTES)?.ok_or_else(|| {
        project(
            LOCK_FILE,
            "there is none; commit it, so that everybody builds the same crates",
        )
    })?;
    Lock::parse(&bytes)
}

/// Finds or makes the vendored crates of the extracted source at `root`, and checks them.
pub fn prepare(
    root: &Path,
    lock: &Lock,
    toolchain: &Toolchain,
    cache: &Path,
) -> Result<Vendored, BuildError> {
    if let Some(folder) = own_folder(root)? {
        let facts = check(&root.join(&folder), lock, true)?;
        return Ok(Vendored {
            folder: None,
            facts,
        });
    }
    if lock.external().next().is_none() {
        let facts = VendorFacts {
            digest: Digest::tagged(VENDOR_DOMAIN, b""),
            crates: 0,
            from_source: true,
        };
        return Ok(Vendored {
            folder: None,
            facts,
        });
    }
    let folder = cache.join("vendor").join(lock.digest.to_hex());
    if !folder.is_dir() {
        cargo_vendor(root, toolchain, &folder)?;
    }
    // What lies in the cache is checked each time: only the lock file is trusted.
    let facts = check(&folder, lock, false)?;
    Ok(Vendored {
        folder: Some(folder),
        facts,
    })
}

const VENDOR_DOMAIN: &str = "instar/vendor/v1";

/// What a source's own `.cargo/config.toml` may say about vendored crates.
#[derive(Deserialize)]
struct CargoConfig {
    #[serde(default)]
    source: BTreeMap<String, SourceTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SourceTable {
    replace_with: Option<String>,
    directory: Option<String>,
}

/// The folder inside the source that its cargo configuration names in the place of crates.io.
fn own_folder(root: &Path) -> Result<Option<String>, BuildError> {
    const CONFIG: &str = ".cargo/config.toml";
    let Some(text) = read_text(root, CONFIG)? else {
        return Ok(None);
    };
    let config: CargoConfig = toml::from_str(&text).map_err(|e| project(CONFIG, e.to_string()))?;
    let replacement = config
        .source
        .get("crates-io")
        .and_then(|s| s.replace_with.as_ref());
    let folder = replacement.and_then(|name| config.source.get(name)?.directory.clone());
    let Some(folder) = folder else {
        return Ok(None);
    };
    let inside = Path::new(&folder)
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_)));
    let plain = inside && !root.join(&folder).is_symlink() && root.join(&folder).is_dir();
    if !plain {
        return Err(project(
            CONFIG,
            format!("{folder:?} is not a folder of the source"),
        ));
    }
    Ok(Some(folder))
}

fn cargo_vendor(root: &Path, toolchain: &Toolchain, folder: &Path) -> Result<(), BuildError> {
    let parent = folder.parent().expect("the folder was joined to one");
    fs::create_dir_all(parent).at("can't make", parent)?;
    let fresh = tempfile::tempdir_in(parent).at("can't make a folder in", parent)?;
    let run = |offline: bool| {
        let target = fresh
            .path()
            .join(if offline { "offline" } else { "online" });
        let mut command = Command::new(toolchain.sysroot.join("bin/cargo"));
        // Cargo takes its configuration from the current folder upwards. That of the source could name programs to
        // run, and this runs outside the sandbox; so it stands in an empty folder of ours.
        command.args(["vendor", "--locked", "--versioned-dirs", "--quiet"]);
        if offline {
            command.arg("--offline");
        }
        command
            .arg("--manifest-path")
            .arg(root.join("Cargo.toml"))
            .arg(&target);
        command
            .current_dir(fresh.path())
            .env("RUSTC", toolchain.sysroot.join("bin/rustc"));
        let out = command
            .stdin(Stdio::null())
            .output()
            .at("can't run cargo in", fresh.path())?;
        let log = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        Ok::<_, BuildError>((out.status.success(), target, log))
    };
    // First from what cargo has already: that needs no network and is what an air-gapped builder has.
    let mut last = run(true)?;
    if !last.0 {
        last = run(false)?;
    }
    let (ok, made, log) = last;
    if !ok {
        let skip = log.chars().count().saturating_sub(MAX_LOG_CHARS);
        return Err(BuildError::VendorCommand {
            log: log.chars().skip(skip).collect(),
        });
    }
    match fs::rename(&made, folder) {
        // Another builder on this machine was faster; its crates are checked like ours.
        Err(_) if folder.is_dir() => Ok(()),
        done => done.at("can't keep", folder),
    }
}

#[derive(Deserialize)]
struct Listing {
    files: BTreeMap<String, Digest>,
    package: Option<Digest>,
}

/// Checks every crate of the lock file in `folder`, and that there is no other.
fn check(folder: &Path, lock: &Lock, from_source: bool) -> Result<VendorFacts, BuildError> {
    let mut wanted: BTreeMap<String, &Package> = BTreeMap::new();
    for package in lock.external() {
        wanted.insert(package.id(), package);
    }
    let mut names: Vec<_> = fs::read_dir(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .at("can't list", folder)?
        .into_iter()
        .map(|e| e.file_name())
        .collect();
    names.sort();
    // By crate, not by folder: whether a folder's name has the version in it changes nothing.
    let mut lines = Vec::new();
    let mut crates = 0;
    for name in names {
        let shown = name.to_string_lossy().into_owned();
        let at = folder.join(&name);
        let id = crate_id(&at, &shown)?;
        let package = wanted
            .remove(&id)
            .ok_or_else(|| refused(&id, "Cargo.lock doesn't name it"))?;
        for (file, digest) in check_crate(&at, package)? {
            lines.push(format!("{id}/{file}  {digest}\n"));
        }
        crates += 1;
    }
    match wanted.into_keys().next() {
        Some(id) => Err(refused(&id, "it is missing")),
        None => {
            lines.sort();
            Ok(VendorFacts {
                digest: Digest::tagged(VENDOR_DOMAIN, lines.concat().as_bytes()),
                crates,
                from_source,
            })
        }
    }
}

#[derive(Deserialize)]
struct CrateToml {
    package: CratePackage,
}

#[derive(Deserialize)]
struct CratePackage {
    name: String,
    version: toml::Value,
}

fn crate_id(at: &Path, shown: &str) -> Result<String, BuildError> {
    let text =
        read_text(at, "Cargo.toml")?.ok_or_else(|| refused(shown, "it has no Cargo.toml"))?;
    let toml: CrateToml =
        toml::from_str(&text).map_err(|_| refused(shown, "its Cargo.toml names no package"))?;
    let version = toml.package.version.as_str().unwrap_or_default().to_owned();
    Ok(format!("{} {version}", toml.package.name))
}

/// The crate's files with their digests, sorted, after each was compared with the listing.
fn check_crate(at: &Path, package: &Package) -> Result<Vec<(String, Digest)>, BuildError> {
    let id = package.id();
    let bytes = read_file(at, CHECKSUM_FILE, MAX_CHECKSUM_BYTES)?
        .ok_or_else(|| refused(&id, "it has no .cargo-checksum.json"))?;
    let mut listing: Listing = serde_json::from_slice(&bytes)
        .map_err(|e| refused(&id, &format!(".cargo-checksum.json: {e}")))?;
    // A crate from git has no archive and so no checksum; the commit in the lock file is what pins it.
    if package.is_registry() && listing.package != package.checksum {
        return Err(refused(&id, "its checksum is not the one in Cargo.lock"));
    }
    // The listing itself is left out: versions of cargo write it differently.
    let mut found = Vec::new();
    for path in list_files(at)? {
        let Some(text) = path.to_str() else {
            return Err(refused(&id, "it has a file whose name is not UTF-8"));
        };
        if text == CHECKSUM_FILE {
            continue;
        }
        let file = at.join(&path);
        if !fs::symlink_metadata(&file)
            .at("can't look at", &file)?
            .is_file()
        {
            return Err(refused(&id, &format!("{text} is not a plain file")));
        }
        let digest = sha256_file(&file)?;
        match listing.files.remove(text) {
            Some(listed) if listed == digest => found.push((text.to_owned(), digest)),
            Some(_) => {
                return Err(refused(
                    &id,
                    &format!("{text} is not the file that is listed"),
                ));
            }
            None => {
                return Err(refused(
                    &id,
                    &format!("{text} is not listed in .cargo-checksum.json"),
                ));
            }
        }
    }
    match listing.files.into_keys().next() {
        Some(missing) => Err(refused(&id, &format!("{missing} is listed and not there"))),
        None => Ok(found),
    }
}

fn refused(krate: &str, why: &str) -> BuildError {
    BuildError::Vendor {
        krate: krate.to_owned(),
        why: why.to_owned(),
    }
}
