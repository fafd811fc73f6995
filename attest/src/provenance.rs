//! Provenance for releases off the ledger: the same SLSA v1 predicate, without chain and round, with the source's
//! repository and ref, and with what the CI says about itself.
//!
//! What a build round's reveal carries is [`crate::statement`], which is frozen; this one may grow fields.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::bundle::{Bundle, BundleError, KeyHint, MEDIA_TYPE, Material};
use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::json::{self, JsonError};
use crate::key::{PublicKey, SecretKey};
use crate::names::{ProgramName, Recipe, Target};
use crate::release::Source;
use crate::release_check::{TEST_PASSED, TEST_RESULT_TYPE};
use crate::reveal::{FileReveal, SbomReveal};
use crate::statement::{PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, builder_id, subjects};

/// The longest value of a CI variable that is taken.
pub const MAX_CI_VALUE: usize = 512;

/// What GitLab's predefined variables say about the job. They are the job's own claim: a key that signs them vouches for
/// the job, not for GitLab.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitLabFacts {
    /// `CI_COMMIT_SHA`: the commit of the project that ran the job.
    pub commit: String,
    /// `CI_JOB_ID`.
    pub job: String,
    /// `CI_JOB_URL`.
    pub job_url: String,
    /// `CI_PIPELINE_ID`.
    pub pipeline: String,
    /// `CI_PROJECT_PATH`.
    pub project: String,
    /// `CI_PROJECT_ID`.
    pub project_id: String,
    /// `CI_COMMIT_REF_PROTECTED`.
    pub protected: bool,
    /// `CI_COMMIT_REF_NAME`.
    #[serde(rename = "ref")]
    pub reference: String,
    /// `CI_RUNNER_ID`.
    pub runner: String,
    /// `CI_SERVER_URL`.
    pub server: String,
}

impl GitLabFacts {
    /// Takes the facts from the environment that `variable` looks into; nothing outside a GitLab job.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        if variable("GITLAB_CI")? != "true" {
            return None;
        }
        let text = |name: &str| -> String {
            let value = variable(name).unwrap_or_default();
            value
                .chars()
                .filter(|c| !c.is_control())
                .take(MAX_CI_VALUE)
                .collect()
        };
        Some(Self {
            commit: text("CI_COMMIT_SHA"),
            job: text("CI_JOB_ID"),
            job_url: text("CI_JOB_URL"),
            pipeline: text("CI_PIPELINE_ID"),
            project: text("CI_PROJECT_PATH"),
            project_id: text("CI_PROJECT_ID"),
            protected: text("CI_COMMIT_REF_PROTECTED") == "true",
            reference: text("CI_COMMIT_REF_NAME"),
            runner: text("CI_RUNNER_ID"),
            server: text("CI_SERVER_URL"),
        })
    }

    /// The project's URL.
    pub fn project_url(&self) -> String {
        format!("{}/{}", self.server.trim_end_matches('/'), self.project)
    }
}

/// Whom a provenance names as the builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuilderId {
    /// The builder's attestation key.
    Key(PublicKey),
    /// A URI of the identity that signs without a key of its own. The certificate is what vouches for it.
    Identity(String),
}

impl BuilderId {
    /// The `builder.id` of the provenance.
    fn uri(&self) -> String {
        match self {
            Self::Key(key) => builder_id(key),
            Self::Identity(uri) => uri.clone(),
        }
    }
}

/// What a builder says about a build that no round asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// Who built it.
    pub builder: BuilderId,
    /// The program's name.
    pub name: ProgramName,
    /// The recipe.
    pub recipe: Recipe,
    /// What it was built from.
    pub source: Source,
    /// Where that came from, as a URL; nothing if it was a folder.
    pub repository: Option<String>,
    /// The ref that led to the commit.
    pub reference: Option<String>,
    /// The targets that were built.
    pub targets: Vec<Target>,
    /// SHA-256 of the lock file.
    pub lock: Digest,
    /// The toolchain's digest: whatever the recipe defines it over.
    pub toolchain: Digest,
    /// The digest of the vendored inputs: whatever the recipe defines it over.
    pub vendor: Digest,
    /// How many builds, made to differ, gave these bytes.
    pub equal_builds: u32,
    /// What the CI says about itself.
    pub gitlab: Option<GitLabFacts>,
}

impl Provenance {
    /// The statement about `files` and `sbom`, as canonical bytes.
    pub fn statement(&self, files: &[FileReveal], sbom: &SbomReveal) -> Result<Vec<u8>, JsonError> {
        let mut targets = self.targets.clone();
        targets.sort();
        let mut external = Map::new();
        external.insert("name".into(), json!(self.name));
        external.insert("source".into(), json!(self.source));
        external.insert("targets".into(), json!(targets));
        for (name, value) in [("repository", &self.repository), ("ref", &self.reference)] {
            if let Some(value) = value {
                external.insert(name.into(), json!(value));
            }
        }
        let mut internal = Map::from_iter([("equalBuilds".into(), json!(self.equal_builds))]);
        let mut run = json!({"builder": {"id": self.builder.uri()}});
        if let Some(gitlab) = &self.gitlab {
            internal.insert("gitlab".into(), json!(gitlab));
            run["metadata"] = json!({"invocationId": gitlab.job_url});
        }
        let mut source = json!({
            "name": "source",
            "digest": {"gitCommit": self.source.commit, "gitTree": self.source.tree},
        });
        if let Some(repository) = &self.repository {
            source["uri"] = json!(format!("git+{repository}"));
        }
        let sha256 = |name: &str, d: &Digest| json!({"name": name, "digest": {"sha256": d}});
        let statement: Value = json!({
            "_type": STATEMENT_TYPE,
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": self.recipe.uri(),
                    "externalParameters": external,
                    "internalParameters": internal,
                    "resolvedDependencies": [
                        source,
                        sha256("Cargo.lock", &self.lock),
                        sha256("toolchain", &self.toolchain),
                        sha256("vendor", &self.vendor),
                    ],
                },
                "runDetails": run,
            },
            "subject": subjects(files, sbom),
        });
        json::to_vec(&statement)
    }
}

/// A test result about files that were built: in-toto's `test-result` predicate.
pub fn test_result(
    passed: bool,
    configuration: &str,
    files: &[FileReveal],
    sbom: &SbomReveal,
) -> Result<Vec<u8>, JsonError> {
    let tested: Vec<_> = subjects(files, sbom)
        .into_iter()
        .filter(|s| s.name != sbom.path.to_string())
        .collect();
    json::to_vec(&json!({
        "_type": STATEMENT_TYPE,
        "predicateType": TEST_RESULT_TYPE,
        "predicate": {
            "result": if passed { TEST_PASSED } else { "FAILED" },
            "configuration": [{"name": configuration}],
        },
        "subject": tested,
    }))
}

/// Signs any statement with a builder's key, as a bundle. Its size is the caller's business.
///
/// The envelope's `keyid` stays empty, as Sigstore's own clients leave it: cosign takes one that it did not compute itself
/// for somebody else's signature. Which key to try stands in the bundle's hint.
pub fn sign(key: &SecretKey, statement: Vec<u8>) -> Result<Vec<u8>, BundleError> {
    let mut envelope = Envelope::sign(key, PAYLOAD_TYPE, statement);
    for signature in &mut envelope.signatures {
        signature.keyid.clear();
    }
    let bundle = Bundle {
        envelope,
        media_type: MEDIA_TYPE.into(),
        material: Material {
            public_key: KeyHint {
                hint: key.public().key_id(),
            },
        },
    };
    Ok(json::to_vec(&bundle)?)
}
