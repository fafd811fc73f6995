//! `release.json`: what a release consists of. Its bytes are a pure function of what the builders agreed on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{ChainId, Digest, hex_bytes};
use crate::json::{self, JsonError};
pub use crate::names::{
    ChunkProfile, Cid, NameError, ProgramName, Recipe, ReleasePath, Slot, Target,
};
pub use crate::reveal::{
    FileMode, FileReveal, Nonce, RevealError, SBOM_PATH, SbomReveal, check_files, check_sbom,
    commitment, target_digest,
};

/// The path of release.json in its own release.
pub const RELEASE_PATH: &str = "release.json";
/// The largest release.json. 256 files of 400 bytes fit twice.
pub const MAX_RELEASE_BYTES: usize = 256 << 10;
/// How many files all targets of a release may have together.
pub const MAX_RELEASE_FILES: usize = 256;

/// The only format there is so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ReleaseFormat {
    /// Version 1.
    #[default]
    #[serde(rename = "instar-release-v1")]
    V1,
}

/// How a release goes live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// A dapp slot switches inside the state machine.
    Dapp,
    /// Nodes swap in waves, under the same protocol.
    Rolling,
    /// The protocol number changes at one height for all.
    Coordinated,
}

impl Activation {
    /// Dapps switch by themselves, the node in one of the two other ways.
    pub fn fits(self, slot: &Slot) -> bool {
        (self == Self::Dapp) == slot.dapp_name().is_some()
    }
}

/// The object format of the source repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceFormat {
    /// 40 hex digits.
    Sha1,
    /// 64 hex digits.
    Sha256,
}

/// The source: a git commit and the tree that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The commit's object id.
    pub commit: String,
    /// The repository's object format.
    pub format: SourceFormat,
    /// The tree's object id.
    pub tree: String,
}

impl Source {
    /// Checks that both ids are lower-case hex of the format's length.
    pub fn check(&self) -> Result<(), ReleaseError> {
        for id in [&self.commit, &self.tree] {
            let ok = match self.format {
                SourceFormat::Sha1 => hex_bytes::<20>(id).is_ok(),
                SourceFormat::Sha256 => hex_bytes::<32>(id).is_ok(),
            };
            if !ok {
                return Err(ReleaseError::SourceId(id.chars().take(80).collect()));
            }
        }
        Ok(())
    }
}

/// A file of a release: what its builders revealed, and its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseFile {
    /// The file's CID under the release's chunk profile.
    pub cid: Cid,
    /// The cumulative size of its DAG in bytes.
    pub dag_size: u64,
    /// Executable or not.
    pub mode: FileMode,
    /// The path in the release; it begins with the target.
    pub path: ReleasePath,
    /// SHA-256 of the content.
    pub sha256: Digest,
    /// The content's size in bytes.
    pub size: u64,
    /// What the file is built for.
    pub target: Target,
}

impl ReleaseFile {
    /// The file as its builders revealed it.
    pub fn reveal(&self) -> FileReveal {
        FileReveal {
            cid: self.cid.clone(),
            dag_size: self.dag_size,
            mode: self.mode,
            path: self.path.clone(),
            sha256: self.sha256,
            size: self.size,
        }
    }

    fn new(target: &Target, file: FileReveal) -> Self {
        Self {
            cid: file.cid,
            dag_size: file.dag_size,
            mode: file.mode,
            path: file.path,
            sha256: file.sha256,
            size: file.size,
            target: target.clone(),
        }
    }
}

/// The content of release.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// How it goes live.
    pub activation: Activation,
    /// The chain that it is for.
    pub chain: ChainId,
    /// How its files are cut into blocks.
    pub chunk_profile: ChunkProfile,
    /// All files but the SBOM and release.json itself, sorted by path.
    pub files: Vec<ReleaseFile>,
    /// The format of this document.
    pub format: ReleaseFormat,
    /// The dapp's name, or the node program's.
    pub name: ProgramName,
    /// The release number: only goes up within a slot.
    pub number: u64,
    /// The protocol number that its code speaks.
    pub protocol: u32,
    /// The software bill of materials.
    pub sbom: SbomReveal,
    /// What it replaces.
    pub slot: Slot,
    /// What it was built from.
    pub source: Source,
}

/// What a build round fixes before anybody builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseHead {
    /// How it goes live.
    pub activation: Activation,
    /// The chain that it is for.
    pub chain: ChainId,
    /// How its files are cut into blocks.
    pub chunk_profile: ChunkProfile,
    /// The dapp's name, or the node program's.
    pub name: ProgramName,
    /// The release number.
    pub number: u64,
    /// The protocol number that its code speaks.
    pub protocol: u32,
    /// What it replaces.
    pub slot: Slot,
    /// What it was built from.
    pub source: Source,
}

/// Why a release is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Not canonical JSON of this shape.
    #[error("release.json: {0}")]
    Json(#[from] JsonError),
    /// The files are not as they must be.
    #[error("release.json: {0}")]
    Files(#[from] RevealError),
    /// A source id that is no object id.
    #[error("{0:?} is not an object id of the source's format")]
    SourceId(String),
    /// Too many files, or none.
    #[error("{0} files, a release has 1 to {MAX_RELEASE_FILES}")]
    FileCount(usize),
    /// An activation for another kind of slot.
    #[error("slot {0} can't be activated in this way")]
    Activation(Slot),
    /// A number that is 0 or 2^53 and more.
    #[error("{0} is not a release number")]
    Number(u64),
    /// A dapp slot that names another dapp.
    #[error("slot {slot} does not hold a program called {name}")]
    Name {
        /// The slot.
        slot: Slot,
        /// The program.
        name: ProgramName,
    },
}

/// A link of the release's DAG: where a file goes and what it weighs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The file's CID.
    pub cid: Cid,
    /// The cumulative size of its DAG in bytes.
    pub dag_size: u64,
}

impl Release {
    /// Puts a release together from what was fixed at the start and what the builders agreed on.
    pub fn assemble(
        head: ReleaseHead,
        targets: &BTreeMap<Target, Vec<FileReveal>>,
        sbom: SbomReveal,
    ) -> Result<Self, ReleaseError> {
        let mut files: Vec<ReleaseFile> = targets
            .iter()
            .flat_map(|(t, files)| files.iter().map(|f| ReleaseFile::new(t, f.clone())))
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let release = Self {
            activation: head.activation,
            chain: head.chain,
            chunk_profile: head.chunk_profile,
            files,
            format: ReleaseFormat::V1,
            name: head.name,
            number: head.number,
            protocol: head.protocol,
            sbom,
            slot: head.slot,
            source: head.source,
        };
        release.check()?;
        Ok(release)
    }

    /// Reads release.json, strictly: canonical, bounded, every rule checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        let release: Self = json::from_slice(bytes, MAX_RELEASE_BYTES)?;
        release.check()?;
        Ok(release)
    }

    /// The canonical bytes of release.json.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ReleaseError> {
        self.check()?;
        let bytes = json::to_vec(self)?;
        if bytes.len() > MAX_RELEASE_BYTES {
            return Err(ReleaseError::Json(JsonError::TooLarge {
                got: bytes.len(),
                max: MAX_RELEASE_BYTES,
            }));
        }
        Ok(bytes)
    }

    /// The targets, ascending.
    pub fn targets(&self) -> Vec<&Target> {
        let set: std::collections::BTreeSet<&Target> =
            self.files.iter().map(|f| &f.target).collect();
        set.into_iter().collect()
    }

    /// One target's files as its builders revealed them, sorted by path.
    pub fn files_of(&self, target: &Target) -> Vec<FileReveal> {
        let of = self.files.iter().filter(|f| f.target == *target);
        of.map(ReleaseFile::reveal).collect()
    }

    /// All links of the release's DAG but that of release.json, which is cut by whoever knows the profile.
    pub fn links(&self) -> BTreeMap<String, Link> {
        let link = |cid: &Cid, dag_size| Link {
            cid: cid.clone(),
            dag_size,
        };
        let mut links: BTreeMap<String, Link> = self
            .files
            .iter()
            .map(|f| (f.path.to_string(), link(&f.cid, f.dag_size)))
            .collect();
        links.insert(SBOM_PATH.into(), link(&self.sbom.cid, self.sbom.dag_size));
        links
    }

    fn check(&self) -> Result<(), ReleaseError> {
        if self.files.is_empty() || self.files.len() > MAX_RELEASE_FILES {
            return Err(ReleaseError::FileCount(self.files.len()));
        }
        for target in self.targets() {
            check_files(target, &self.files_of(target))?;
        }
        crate::reveal::check_paths(self.files.iter().map(|f| &f.path))?;
        check_sbom(&self.sbom)?;
        self.source.check()?;
        if self.number == 0 || self.number > json::MAX_INTEGER {
            return Err(ReleaseError::Number(self.number));
        }
        if !self.activation.fits(&self.slot) {
            return Err(ReleaseError::Activation(self.slot.clone()));
        }
        if self
            .slot
            .dapp_name()
            .is_some_and(|d| d != self.name.as_str())
        {
            return Err(ReleaseError::Name {
                slot: self.slot.clone(),
                name: self.name.clone(),
            });
        }
        Ok(())
    }
}
