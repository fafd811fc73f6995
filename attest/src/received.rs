//! Bundles and statements as others make them: any spelling of JSON, any predicate, keys or certificates.
//!
//! What the ledger takes is narrower, see [`crate::bundle`]. Here the rule is: fields that are not known are left alone,
//! a key that stands twice is refused, and everything is bounded before it is looked at.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::digest::Digest;
use crate::dsse::{Base64, pae};
use crate::json::{self, JsonError};
use crate::statement::{PAYLOAD_TYPE, STATEMENT_TYPE};

/// The largest bundle of somebody else: a certificate chain, a log proof and a statement with thousands of subjects.
pub const MAX_RECEIVED_BYTES: usize = 1 << 20;
/// How many subjects one statement may have.
pub const MAX_SUBJECTS: usize = 4096;
/// The longest name of a subject.
pub const MAX_SUBJECT_NAME: usize = 1024;
/// What the media types of bundles begin with; the versions 0.1 to 0.3 differ in what we don't look at.
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle";

/// Why something received can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ReceivedError {
    /// Not JSON of this shape.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// Another media type.
    #[error("it is of type {0:?}, not a Sigstore bundle")]
    MediaType(String),
    /// A bundle over a blob, without an envelope.
    #[error(
        "it signs a blob and holds no statement; an attestation is a DSSE envelope with an in-toto statement"
    )]
    NoEnvelope,
    /// Another payload type.
    #[error("the payload is of type {0:?}, not {PAYLOAD_TYPE:?}")]
    PayloadType(String),
    /// Not exactly one signature.
    #[error("the envelope has {0} signatures, exactly one is allowed")]
    SignatureCount(usize),
    /// Not a statement.
    #[error("the statement is of type {0:?}, not in-toto Statement v1")]
    StatementType(String),
    /// No subjects, or too many.
    #[error("the statement has {0} subjects, 1 to {MAX_SUBJECTS} are allowed")]
    SubjectCount(usize),
    /// A subject twice.
    #[error("the subject {0:?} stands there twice")]
    SubjectTwice(String),
    /// A subject that says nothing.
    #[error("the subject {name:?} {why}")]
    Subject {
        /// Its name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// What a bundle is to be verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Material {
    /// A key that the verifier has to know.
    Key,
    /// A short-lived certificate: keyless.
    Certificate,
}

/// A bundle whose shape is right and whose signature has not been checked.
#[derive(Debug, Clone)]
pub struct Received {
    /// What was signed.
    pub payload: Vec<u8>,
    /// The one signature.
    pub signature: Vec<u8>,
    /// Which key the bundle says it is signed with; a hint and nothing more.
    pub hints: Vec<String>,
    /// How it is verified.
    pub material: Material,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    media_type: String,
    dsse_envelope: Option<WireEnvelope>,
    verification_material: WireMaterial,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEnvelope {
    payload: Base64,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Deserialize)]
struct WireSignature {
    sig: Base64,
    #[serde(default)]
    keyid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMaterial {
    public_key: Option<WireHint>,
    certificate: Option<Value>,
    x509_certificate_chain: Option<Value>,
}

#[derive(Deserialize)]
struct WireHint {
    #[serde(default)]
    hint: String,
}

impl Received {
    /// Reads a Sigstore bundle with an in-toto statement in a DSSE envelope.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceivedError> {
        let wire: Wire = json::from_slice_of_others(bytes, MAX_RECEIVED_BYTES)?;
        if !wire.media_type.starts_with(MEDIA_TYPE) {
            let got = wire.media_type.chars().take(80).collect();
            return Err(ReceivedError::MediaType(got));
        }
        let envelope = wire.dsse_envelope.ok_or(ReceivedError::NoEnvelope)?;
        if envelope.payload_type != PAYLOAD_TYPE {
            let got = envelope.payload_type.chars().take(80).collect();
            return Err(ReceivedError::PayloadType(got));
        }
        let [signature] = envelope.signatures.as_slice() else {
            return Err(ReceivedError::SignatureCount(envelope.signatures.len()));
        };
        let material = &wire.verification_material;
        let certified = material.certificate.is_some() || material.x509_certificate_chain.is_some();
        let hint = wire.verification_material.public_key.map(|k| k.hint);
        Ok(Self {
            signature: signature.sig.0.clone(),
            hints: [Some(signature.keyid.clone()), hint]
                .into_iter()
                .flatten()
                .filter(|h| !h.is_empty())
                .collect(),
            material: if certified {
                Material::Certificate
            } else {
                Material::Key
            },
            payload: envelope.payload.0,
        })
    }

    /// The bytes that the signature covers.
    pub fn signed_bytes(&self) -> Vec<u8> {
        pae(PAYLOAD_TYPE, &self.payload)
    }
}

/// An in-toto Statement v1 of any predicate.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The predicate's type.
    pub predicate_type: String,
    /// What it is about.
    pub subjects: Vec<Named>,
    /// What it says about them.
    pub predicate: Value,
}

/// A name with the SHA-256 of what bears it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The name: a path in the release.
    pub name: String,
    /// The content's digest.
    pub sha256: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStatement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<WireSubject>,
    predicate_type: String,
    #[serde(default)]
    predicate: Value,
}

#[derive(Deserialize)]
struct WireSubject {
    #[serde(default)]
    name: String,
    digest: WireDigests,
}

#[derive(Deserialize)]
struct WireDigests {
    sha256: Option<Digest>,
}

impl Claim {
    /// Reads a statement. Every subject needs a name of its own and a SHA-256 in lower-case hex.
    pub fn parse(payload: &[u8]) -> Result<Self, ReceivedError> {
        let wire: WireStatement = json::from_slice_of_others(payload, MAX_RECEIVED_BYTES)?;
        if wire.kind != STATEMENT_TYPE {
            let got = wire.kind.chars().take(80).collect();
            return Err(ReceivedError::StatementType(got));
        }
        if wire.subject.is_empty() || wire.subject.len() > MAX_SUBJECTS {
            return Err(ReceivedError::SubjectCount(wire.subject.len()));
        }
        let mut names = BTreeSet::new();
        let mut subjects = Vec::with_capacity(wire.subject.len());
        for subject in wire.subject {
            let shown = || subject.name.chars().take(80).collect::<String>();
            let refuse = |why| ReceivedError::Subject { name: shown(), why };
            if subject.name.is_empty() || subject.name.len() > MAX_SUBJECT_NAME {
                return Err(refuse("has no name, or a very long one"));
            }
            if !names.insert(subject.name.clone()) {
                return Err(ReceivedError::SubjectTwice(shown()));
            }
            let Some(sha256) = subject.digest.sha256 else {
                return Err(refuse("has no SHA-256"));
            };
            subjects.push(Named {
                name: subject.name,
                sha256,
            });
        }
        Ok(Self {
            predicate_type: wire.predicate_type,
            subjects,
            predicate: wire.predicate,
        })
    }

    /// A text in the predicate, by its JSON pointer.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.predicate.pointer(pointer)?.as_str()
    }

    /// The source commits that an SLSA provenance names: all must be one.
    pub fn commits(&self) -> BTreeSet<&str> {
        let dependencies = self
            .predicate
            .pointer("/buildDefinition/resolvedDependencies")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let resolved = dependencies
            .iter()
            .filter_map(|d| d.pointer("/digest/gitCommit")?.as_str());
        let asked = self.text("/buildDefinition/externalParameters/source/commit");
        resolved.chain(asked).collect()
    }
}
