//! in-toto Statement v1 with a SLSA provenance v1 predicate: what a builder says about what it built.
//!
//! The statement is canonical JSON, so that one claim has one byte form.

use serde::{Deserialize, Serialize};

use crate::digest::{ChainId, Digest};
use crate::json::{self, JsonError};
use crate::key::PublicKey;
use crate::names::{Cid, NameError, ProgramName, Recipe, Slot, Target};
use crate::release::Source;
use crate::reveal::{FileMode, FileReveal, MAX_TARGET_FILES, SbomReveal};

/// The type of an in-toto Statement v1.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The type of a SLSA provenance v1 predicate.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// The payload type of an in-toto statement in a DSSE envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The largest statement. In base64 and with its envelope it must fit into an entry.
pub const MAX_STATEMENT_BYTES: usize = 28 << 10;

/// What a builder id begins with; the builder's public key in hex follows.
const BUILDER_URI: &str = "urn:instar:builder:";
/// The names of the resolved dependencies, in the order in which they stand.
const DEPENDENCIES: [&str; 4] = ["source", "Cargo.lock", "toolchain", "vendor"];

/// Why a statement is refused.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Not canonical JSON of this shape.
    #[error("the statement: {0}")]
    Json(#[from] JsonError),
    /// Another statement type.
    #[error("the statement is of type {0:?}, not in-toto Statement v1")]
    Type(String),
    /// Another predicate.
    #[error("the predicate is of type {0:?}, not SLSA provenance v1")]
    Predicate(String),
    /// No subjects, or too many.
    #[error("the statement has {0} subjects")]
    SubjectCount(usize),
    /// The targets are not ascending, or one stands there twice.
    #[error("the statement's targets are out of order, or one stands there twice")]
    Targets,
    /// Two subjects of one name, or not in order.
    #[error("the subject {0:?} stands there twice, or out of order")]
    SubjectOrder(String),
    /// The builder id is not of our form.
    #[error("{0:?} is not a builder id")]
    BuilderId(String),
    /// The build type is not of our form.
    #[error(transparent)]
    BuildType(#[from] NameError),
    /// The resolved dependencies are not the four that we ask for.
    #[error(
        "the resolved dependencies are not source, Cargo.lock, toolchain and vendor, each with its digest"
    )]
    Dependencies,
    /// The source commit or tree is malformed, or differs between its two places.
    #[error(
        "the source in the parameters is not the source among the resolved dependencies, or is no object id"
    )]
    Source,
}

/// The whole statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// The provenance.
    pub predicate: Predicate,
    /// [`PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What was built, sorted by name.
    pub subject: Vec<Subject>,
}

/// One thing that was built.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// What stock tools don't look at.
    pub annotations: SubjectAnnotations,
    /// The content's digest.
    pub digest: Sha256Set,
    /// The path in the release.
    pub name: String,
}

/// What we add to a subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectAnnotations {
    /// The file's CID.
    pub cid: Cid,
    /// Executable or not.
    pub mode: FileMode,
}

/// A digest set with exactly one SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sha256Set {
    /// The digest, 64 lower-case hex digits.
    pub sha256: Digest,
}

/// SLSA provenance v1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicate {
    /// What was asked for, and with what.
    #[serde(rename = "buildDefinition")]
    pub build_definition: BuildDefinition,
    /// Who built.
    #[serde(rename = "runDetails")]
    pub run_details: RunDetails,
}

/// What was asked for, and with what it was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildDefinition {
    /// The recipe's URI.
    #[serde(rename = "buildType")]
    pub build_type: String,
    /// What the build round fixed.
    #[serde(rename = "externalParameters")]
    pub external_parameters: Parameters,
    /// Source, lock file, toolchain and vendored crates, in this order.
    #[serde(rename = "resolvedDependencies")]
    pub resolved_dependencies: Vec<Dependency>,
}

/// What the build round fixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The chain.
    pub chain: ChainId,
    /// The program's name.
    pub name: ProgramName,
    /// The release number.
    pub number: u64,
    /// The build round.
    pub round: Digest,
    /// What the release replaces.
    pub slot: Slot,
    /// What it was built from.
    pub source: Source,
    /// The targets that were built, ascending.
    pub targets: Vec<Target>,
}

/// One thing that went into the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// Its digests.
    pub digest: DependencyDigest,
    /// Which of the four it is.
    pub name: String,
}

/// The digests of a dependency: commit and tree for the source, SHA-256 for all else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DependencyDigest {
    /// Git object ids.
    Git(GitSet),
    /// SHA-256 of a file or of a sorted listing.
    Sha256(Sha256Set),
}

/// The digest set of a git source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitSet {
    /// The commit.
    #[serde(rename = "gitCommit")]
    pub commit: String,
    /// The tree.
    #[serde(rename = "gitTree")]
    pub tree: String,
}

/// Who built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunDetails {
    /// The builder.
    pub builder: Builder,
}

/// The builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// A URI that names the builder's key.
    pub id: String,
}

/// What a builder has to say; [`Statement::new`] puts it in form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The builder's attestation key.
    pub builder: PublicKey,
    /// SHA-256 of Cargo.lock.
    pub cargo_lock: Digest,
    /// The chain.
    pub chain: ChainId,
    /// The program's name.
    pub name: ProgramName,
    /// The release number.
    pub number: u64,
    /// The recipe.
    pub recipe: Recipe,
    /// The build round.
    pub round: Digest,
    /// What the release replaces.
    pub slot: Slot,
    /// What it was built from.
    pub source: Source,
    /// The targets that were built.
    pub targets: Vec<Target>,
    /// The toolchain's digest: whatever the recipe defines it over.
    pub toolchain: Digest,
    /// The digest of the vendored crates: whatever the recipe defines it over.
    pub vendor: Digest,
}

/// The id of the builder that holds this key.
pub fn builder_id(key: &PublicKey) -> String {
    format!("{BUILDER_URI}{key}")
}

/// The subjects for these files and this SBOM, sorted by name.
pub fn subjects(files: &[FileReveal], sbom: &SbomReveal) -> Vec<Subject> {
    let subject = |name: String, sha256, cid: &Cid, mode| Subject {
        annotations: SubjectAnnotations {
            cid: cid.clone(),
            mode,
        },
        digest: Sha256Set { sha256 },
        name,
    };
    let mut all: Vec<Subject> = files
        .iter()
        .map(|f| subject(f.path.to_string(), f.sha256, &f.cid, f.mode))
        .collect();
    all.push(subject(
        sbom.path.to_string(),
        sbom.sha256,
        &sbom.cid,
        FileMode::Plain,
    ));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

impl Statement {
    /// The statement about `files` and `sbom`, checked.
    pub fn new(
        build: Build,
        files: &[FileReveal],
        sbom: &SbomReveal,
    ) -> Result<Self, StatementError> {
        let mut targets = build.targets;
        targets.sort();
        let sha256 = |sha256| DependencyDigest::Sha256(Sha256Set { sha256 });
        let git = DependencyDigest::Git(GitSet {
            commit: build.source.commit.clone(),
            tree: build.source.tree.clone(),
        });
        let digests = [
            git,
            sha256(build.cargo_lock),
            sha256(build.toolchain),
            sha256(build.vendor),
        ];
        let resolved_dependencies = DEPENDENCIES
            .iter()
            .zip(digests)
            .map(|(name, digest)| Dependency {
                digest,
                name: (*name).to_owned(),
            })
            .collect();
        let statement = Self {
            kind: STATEMENT_TYPE.into(),
            predicate: Predicate {
                build_definition: BuildDefinition {
                    build_type: build.recipe.uri(),
                    external_parameters: Parameters {
                        chain: build.chain,
                        name: build.name,
                        number: build.number,
                        round: build.round,
                        slot: build.slot,
                        source: build.source,
                        targets,
                    },
                    resolved_dependencies,
                },
                run_details: RunDetails {
                    builder: Builder {
                        id: builder_id(&build.builder),
                    },
                },
            },
            predicate_type: PREDICATE_TYPE.into(),
            subject: subjects(files, sbom),
        };
        statement.check()?;
        Ok(statement)
    }

    /// Reads a statement, strictly.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        let statement: Self = json::from_slice(bytes, MAX_STATEMENT_BYTES)?;
        statement.check()?;
        Ok(statement)
    }

    /// The canonical bytes, which are what is signed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StatementError> {
        self.check()?;
        let bytes = json::to_vec(self)?;
        if bytes.len() > MAX_STATEMENT_BYTES {
            return Err(StatementError::Json(JsonError::TooLarge {
                got: bytes.len(),
                max: MAX_STATEMENT_BYTES,
            }));
        }
        Ok(bytes)
    }

    /// What the build round fixed.
    pub fn parameters(&self) -> &Parameters {
        &self.predicate.build_definition.external_parameters
    }

    /// The recipe that was followed.
    pub fn recipe(&self) -> Result<Recipe, StatementError> {
        Ok(Recipe::from_uri(
            &self.predicate.build_definition.build_type,
        )?)
    }

    /// The key of the builder that the statement names.
    pub fn builder(&self) -> Result<PublicKey, StatementError> {
        let id = &self.predicate.run_details.builder.id;
        id.strip_prefix(BUILDER_URI)
            .and_then(|hex| hex.parse().ok())
            .ok_or_else(|| StatementError::BuilderId(id.chars().take(120).collect()))
    }

    fn check(&self) -> Result<(), StatementError> {
        if self.kind != STATEMENT_TYPE {
            return Err(StatementError::Type(self.kind.chars().take(80).collect()));
        }
        if self.predicate_type != PREDICATE_TYPE {
            let got = self.predicate_type.chars().take(80).collect();
            return Err(StatementError::Predicate(got));
        }
        // One more than a target's files, for the SBOM.
        let targets = self.parameters().targets.len();
        if self.subject.is_empty() || self.subject.len() > targets * MAX_TARGET_FILES + 1 {
            return Err(StatementError::SubjectCount(self.subject.len()));
        }
        for pair in self.subject.windows(2) {
            if pair[0].name >= pair[1].name {
                let got = pair[1].name.chars().take(80).collect();
                return Err(StatementError::SubjectOrder(got));
            }
        }
        if !self.parameters().targets.is_sorted_by(|a, b| a < b) {
            return Err(StatementError::Targets);
        }
        self.builder()?;
        self.recipe()?;
        self.check_dependencies()
    }

    fn check_dependencies(&self) -> Result<(), StatementError> {
        let deps = &self.predicate.build_definition.resolved_dependencies;
        let names: Vec<&str> = deps.iter().map(|d| d.name.as_str()).collect();
        if names != DEPENDENCIES {
            return Err(StatementError::Dependencies);
        }
        let source = &self.parameters().source;
        source.check().map_err(|_| StatementError::Source)?;
        let DependencyDigest::Git(git) = &deps[0].digest else {
            return Err(StatementError::Dependencies);
        };
        if git.commit != source.commit || git.tree != source.tree {
            return Err(StatementError::Source);
        }
        let others_are_sha256 = deps[1..]
            .iter()
            .all(|d| matches!(d.digest, DependencyDigest::Sha256(_)));
        if !others_are_sha256 {
            return Err(StatementError::Dependencies);
        }
        Ok(())
    }
}
