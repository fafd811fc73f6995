//! The audit bundle: what an auditor needs beside a clone of the ledger, in a folder.
//!
//! ```text
//! audit.json                         {"chain":…,"format":"instar-audit-v1","release":CID}
//! allowed_signers                    for `git verify-commit`
//! genesis.json                       as it stands in the genesis commit
//! release.json, sbom.cdx.json        members of the release
//! files/<path>                       every other file of the release
//! attestations/<builder>.json        each builder's Sigstore bundle, named by its public key
//! source-commit                      the raw git commit object that was built, without git's prefix
//! ledger.bundle                      in a bundle that is one file: the ledger, as `git bundle` writes it
//! ```
//!
//! It is not trusted: every member is compared with the ledger, and none may be missing or too many.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use instar_attest::json::{self, JsonError};
use instar_attest::{ChainId, PublicKey};
use serde::{Deserialize, Serialize};

/// The member that says what the bundle is about.
pub const AUDIT_FILE: &str = "audit.json";
/// The member for `git verify-commit`.
pub const SIGNERS_FILE: &str = "allowed_signers";
/// The genesis.
pub const GENESIS_FILE: &str = "genesis.json";
/// The release's description.
pub const RELEASE_FILE: &str = "release.json";
/// The software bill of materials.
pub const SBOM_FILE: &str = "sbom.cdx.json";
/// The source commit.
pub const COMMIT_FILE: &str = "source-commit";
/// The ledger, for `git clone`.
pub const LEDGER_FILE: &str = "ledger.bundle";
/// The folder of the release's other files.
pub const FILES_DIR: &str = "files";
/// The folder of attestations.
pub const ATTESTATIONS_DIR: &str = "attestations";

/// The largest member that is read into memory; files of the release are streamed.
pub const MAX_MEMBER_BYTES: u64 = 32 << 20;
/// How many members a bundle may have.
pub const MAX_MEMBERS: usize = 2048;
/// How deep its folders may nest.
const MAX_DEPTH: usize = 20;

/// The only format there is so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditFormat {
    /// Version 1.
    #[serde(rename = "instar-audit-v1")]
    V1,
}

/// The format that is written.
pub const ABOUT_FORMAT: AuditFormat = AuditFormat::V1;

/// The content of `audit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The chain.
    pub chain: ChainId,
    /// The format of the bundle.
    pub format: AuditFormat,
    /// The root CID of the release.
    pub release: String,
}

/// Why a bundle can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A member that can't be a member.
    #[error("{0} is neither a plain file nor a folder, or its name is not plain ASCII")]
    Member(PathBuf),
    /// Too many members, or nested too deeply.
    #[error("the bundle has more than {MAX_MEMBERS} members, or nests too deeply")]
    TooMany,
    /// A member that is larger than it may be.
    #[error("{path} is larger than {max} bytes")]
    TooLarge {
        /// The member.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
    /// `audit.json` is not as it must be.
    #[error("audit.json: {0}")]
    About(#[from] JsonError),
    /// The set of members is not the one that the release asks for.
    #[error("{}", differing(.missing, .extra))]
    Members {
        /// Members that should be there.
        missing: Vec<String>,
        /// Members that should not.
        extra: Vec<String>,
    },
}

fn differing(missing: &[String], extra: &[String]) -> String {
    let list = |what: &str, names: &[String]| match names {
        [] => None,
        names => Some(format!("{what}: {}", names.join(", "))),
    };
    let both = [list("missing", missing), list("too many", extra)];
    both.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// A bundle on disk.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
}

impl Bundle {
    /// Takes a folder; nothing is read yet.
    pub fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Where a member lies.
    pub fn path(&self, member: &str) -> PathBuf {
        self.dir.join(member)
    }

    /// Reads a member.
    pub fn read(&self, member: &str) -> Result<Vec<u8>, BundleError> {
        let path = self.path(member);
        let io = |source| BundleError::Io {
            path: path.clone(),
            source,
        };
        let mut bytes = Vec::new();
        self.open(member)?
            .take(MAX_MEMBER_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(io)?;
        if bytes.len() as u64 > MAX_MEMBER_BYTES {
            return Err(BundleError::TooLarge {
                path,
                max: MAX_MEMBER_BYTES,
            });
        }
        Ok(bytes)
    }

    /// Opens a member, to be streamed.
    pub fn open(&self, member: &str) -> Result<File, BundleError> {
        let path = self.path(member);
        File::open(&path).map_err(|source| BundleError::Io { path, source })
    }

    /// Reads `audit.json`.
    pub fn about(&self) -> Result<About, BundleError> {
        Ok(json::from_slice(&self.read(AUDIT_FILE)?, 4096)?)
    }

    /// The names of all members. Links and other things that are no plain files are refused.
    pub fn members(&self) -> Result<BTreeSet<String>, BundleError> {
        let mut out = BTreeSet::new();
        self.walk(&self.dir, "", 0, &mut out)?;
        Ok(out)
    }

    fn walk(
        &self,
        dir: &Path,
        prefix: &str,
        depth: usize,
        out: &mut BTreeSet<String>,
    ) -> Result<(), BundleError> {
        if depth > MAX_DEPTH {
            return Err(BundleError::TooMany);
        }
        let io = |source| BundleError::Io {
            path: dir.to_owned(),
            source,
        };
        for item in fs::read_dir(dir).map_err(io)? {
            let item = item.map_err(io)?;
            let refused = || BundleError::Member(item.path());
            let name = item.file_name().into_string().map_err(|_| refused())?;
            if !name.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(refused());
            }
            let name = format!("{prefix}{name}");
            // Of the entry itself: a link is not followed.
            let kind = item.file_type().map_err(io)?;
            if kind.is_dir() {
                self.walk(&item.path(), &format!("{name}/"), depth + 1, out)?;
            } else if kind.is_file() {
                out.insert(name);
            } else {
                return Err(refused());
            }
            if out.len() > MAX_MEMBERS {
                return Err(BundleError::TooMany);
            }
        }
        Ok(())
    }

    /// Checks that exactly these members are there.
    pub fn expect_members(&self, expected: &BTreeSet<String>) -> Result<(), BundleError> {
        let found = self.members()?;
        if found == *expected {
            return Ok(());
        }
        Err(BundleError::Members {
            missing: expected.difference(&found).cloned().collect(),
            extra: found.difference(expected).cloned().collect(),
        })
    }
}

/// The member that holds a file of the release.
pub fn file_member(path: &str) -> String {
    format!("{FILES_DIR}/{path}")
}

/// The member that holds a builder's attestation.
pub fn attestation_member(builder: &PublicKey) -> String {
    format!("{ATTESTATIONS_DIR}/{builder}.json")
}
