//! `build.json`: what was built from what, with what. It lies beside the release, not in it, and is what a builder's
//! attestation says.

use std::path::Path;

use instar_attest::release::{FileReveal, ProgramName, Recipe, SbomReveal, Slot, Source, Target};
use instar_attest::{Digest, json};
use serde::{Deserialize, Serialize};

use crate::error::{At, BuildError};
use crate::files::write_atomic;
use crate::project::Kind;
use crate::vendor::VendorFacts;

/// The file's name in an output folder.
pub const RECORD_FILE: &str = "build.json";
/// The largest record: 256 files of 400 bytes fit ten times.
pub const MAX_RECORD_BYTES: usize = 1 << 20;
/// The recipe that builds in the sandbox, from vendored crates, twice.
pub const RECIPE_CARGO: &str = "cargo-vendored-v1";
/// The recipe that goes on from the target folder of a checkout, once.
pub const RECIPE_CARGO_WARM: &str = "cargo-warm-v1";

/// The recipe that builds in Nix's sandbox, and checks with `--check`.
pub const RECIPE_NIX: &str = "nix-v1";

/// The format of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordFormat {
    /// Version 1.
    #[serde(rename = "instar-build-v1")]
    V1,
}

/// What was built from what, with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRecord {
    /// The format of this document.
    pub format: RecordFormat,
    /// The recipe that was followed.
    pub recipe: Recipe,
    /// Whether everything that went in is pinned and nothing else could be reached.
    pub hermetic: bool,
    /// How many builds gave exactly these bytes.
    pub equal_builds: u32,
    /// What the release replaces.
    pub slot: Slot,
    /// The release number.
    pub number: u64,
    /// The name under which the program is released.
    pub name: ProgramName,
    /// Dapp or program.
    pub kind: Kind,
    /// What it was built from.
    pub source: Source,
    /// Where that came from, as a URL without a user or password; nothing if nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The ref that led to the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Whether the tree is a work tree that is not the commit's: such a build can't be attested.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dirty: bool,
    /// The commit's time, in seconds since 1970.
    pub source_time_s: u64,
    /// What was built, by target, ascending.
    pub targets: Vec<BuiltTarget>,
    /// The software bill of materials.
    pub sbom: SbomReveal,
    /// SHA-256 of `Cargo.lock`.
    pub cargo_lock: Digest,
    /// The Rust toolchain.
    pub toolchain: ToolchainFacts,
    /// The crates.
    pub vendor: VendorFacts,
    /// What the linker took from the system.
    pub system: SystemFacts,
    /// When the first build began, by this machine's clock, in seconds since 1970.
    pub started_s: u64,
    /// When the last build ended.
    pub finished_s: u64,
    /// What the warm recipe went on from; nothing in the other recipe.
    pub warm: Option<WarmFacts>,
}

/// The files of one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltTarget {
    /// The target.
    pub target: Target,
    /// Its files, sorted by path.
    pub files: Vec<FileReveal>,
}

/// The Rust toolchain that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolchainFacts {
    /// The digest over its files, see `docs/formats/builder.md`.
    pub digest: Digest,
    /// What `rustc -vV` prints.
    pub version: String,
}

/// What a static executable takes from the system: a C compiler drives the linker, and the C library is linked in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemFacts {
    /// The first line of `cc --version`; nothing where there is none.
    pub cc: Option<String>,
    /// The files that end up in every static executable.
    pub files: Vec<SystemFile>,
}

/// One file of the system that is linked in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemFile {
    /// Its name.
    pub name: String,
    /// SHA-256 of its content.
    pub sha256: Digest,
}

/// What the warm recipe went on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmFacts {
    /// How many crates were compiled.
    pub compiled: u64,
    /// How many files of the source are those of the checkout.
    pub files_unchanged: u64,
    /// How many are not.
    pub files_changed: u64,
    /// Why everything was built anew, where it was.
    pub fell_back: Option<String>,
}

impl BuildRecord {
    /// Reads the record of an output folder.
    pub fn read(out: &Path) -> Result<Self, BuildError> {
        let at = out.join(RECORD_FILE);
        let bytes = std::fs::read(&at).at("can't read", &at)?;
        Ok(json::from_slice(&bytes, MAX_RECORD_BYTES)?)
    }

    /// Writes the record into an output folder.
    pub(crate) fn write(&self, out: &Path) -> Result<(), BuildError> {
        write_atomic(&out.join(RECORD_FILE), &json::to_vec(self)?)
    }
}

/// Looks up what the system's C compiler links into static executables.
pub(crate) fn system_facts() -> Result<SystemFacts, BuildError> {
    let ask = |argument: &str| {
        let out = std::process::Command::new("cc")
            .arg(argument)
            .output()
            .ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        text.lines().next().map(str::to_owned)
    };
    let mut files = Vec::new();
    for name in [
        "crt1.o",
        "rcrt1.o",
        "crti.o",
        "crtn.o",
        "libc.a",
        "libm.a",
        "libgcc.a",
        "libgcc_eh.a",
    ] {
        // For a file that it doesn't have the compiler answers with the bare name.
        let found = ask(&format!("-print-file-name={name}")).filter(|at| at.starts_with('/'));
        if let Some(at) = found {
            let sha256 = crate::toolchain::sha256_file(Path::new(&at))?;
            files.push(SystemFile {
                name: name.to_owned(),
                sha256,
            });
        }
    }
    Ok(SystemFacts {
        cc: ask("--version"),
        files,
    })
}
