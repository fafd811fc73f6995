//! Keyless bundles: a short-lived certificate of Fulcio, an entry in a transparency log, and a timestamp.
//!
//! The Sigstore organisation's own client does the work, offline, from a trusted root that the caller brings: [`verify`]
//! checks a bundle, [`Certified::matches`] whom it is from. Making such bundles takes a network and is a feature of its
//! own, `keyless-sign`: see [`sign`].
//!
#![cfg_attr(not(feature = "keyless-sign"), allow(rustdoc::broken_intra_doc_links))]

use std::fmt;

use serde::Deserialize;
use sigstore_verify::trust_root::{SIGSTORE_PRODUCTION_TRUSTED_ROOT, TrustedRoot};
use sigstore_verify::types::{Artifact, Bundle, Sha256Hash};
use sigstore_verify::{
    CertificateError, Error, TimestampError, TransparencyLogError, VerificationPolicy, Verifier,
};

use crate::received::{Claim, MAX_RECEIVED_BYTES, Received};
use crate::release_policy::Identity;

mod provider;
#[cfg(feature = "keyless-sign")]
pub mod sign;

use provider::use_ring;

/// The largest trusted root or trust configuration; the public ones have 10 kB.
pub const MAX_TRUSTED_ROOT_BYTES: usize = 1 << 20;
/// The trusted root of Sigstore's public instance, as it was when the client was published. Old bundles stay verifiable
/// with a newer one and the other way round, unless a key was revoked in between.
pub const PUBLIC_TRUSTED_ROOT: &str = SIGSTORE_PRODUCTION_TRUSTED_ROOT;

/// Whom Fulcio certified, after everything else about the bundle held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Who vouched for the identity.
    pub issuer: String,
    /// The certificate's subject: a mail address, or a URI of a workflow.
    pub subject: String,
    /// The project whose CI signed, where it was one.
    pub project: Option<String>,
}

/// Why a keyless bundle is refused. [`KeylessError::rule`] is the short name.
#[derive(Debug, thiserror::Error)]
pub enum KeylessError {
    /// The trusted root can't be read.
    #[error("the trusted root: {0}")]
    TrustedRoot(String),
    /// The bundle is not well-formed.
    #[error("{0}")]
    Malformed(String),
    /// Nobody saw it being signed.
    #[error(
        "it has no entry in a transparency log; one that is queued is completed by its signer, with `instar attest --flush-queue`"
    )]
    NotLogged,
    /// Certificate, log or timestamp don't hold.
    #[error(transparent)]
    Refused(#[from] Error),
}

impl KeylessError {
    /// The rule's short name.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::TrustedRoot(_) => "keyless-trusted-root",
            Self::Malformed(_) => "attestation-malformed",
            Self::NotLogged => "log-entry-missing",
            Self::Refused(error) => match error {
                Error::Certificate(CertificateError::Expired { .. }) => "certificate-expired",
                // The chain is checked first, by webpki, whose words are all that is left of its reason.
                Error::Certificate(CertificateError::ChainInvalid(why))
                    if why.contains("CertExpired") =>
                {
                    "certificate-expired"
                }
                Error::Certificate(CertificateError::Sct(_)) => "certificate-sct",
                Error::Certificate(_) => "certificate",
                Error::TransparencyLog(TransparencyLogError::InclusionProof(_)) => {
                    "log-inclusion-proof"
                }
                // The artifact is named from the statement itself, so only the log's entry can be of another.
                Error::TransparencyLog(TransparencyLogError::EntryMismatch(_))
                | Error::ArtifactMismatch(_) => "log-entry-of-another",
                Error::TransparencyLog(_) => "log",
                Error::Timestamp(TimestampError::Invalid(_)) => "timestamp",
                Error::Timestamp(_) => "timestamp-missing",
                Error::SignatureInvalid(_) => "attestation-signature",
                _ => "attestation-malformed",
            },
        }
    }
}

impl Certified {
    /// Whether this is the identity that a policy names; else the rule and what differs.
    pub fn matches(&self, wanted: &Identity) -> Result<(), (&'static str, String)> {
        if self.issuer != wanted.issuer {
            let detail = format!("the identity is vouched for by {:?}", self.issuer);
            return Err(("keyless-issuer", detail));
        }
        if wanted.subject.as_ref().is_some_and(|s| *s != self.subject) {
            return Err((
                "keyless-subject",
                format!("the subject is {:?}", self.subject),
            ));
        }
        if wanted.project.is_some() && wanted.project != self.project {
            return Err((
                "keyless-project",
                format!("the project is {:?}", self.project),
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (vouched for by {})", self.subject, self.issuer)
    }
}

/// Verifies a bundle with a certificate: the certificate at the time of the signature, the log's proof and promise, the
/// timestamps, the signature. Who may sign is another question: see [`Certified::matches`].
///
/// `trusted_root` is a trusted root, or a client trust configuration that holds one.
pub fn verify(bundle: &[u8], trusted_root: &[u8]) -> Result<Certified, KeylessError> {
    verify_with(bundle, &read_root(trusted_root)?, Log::Required)
}

/// Whether a bundle must carry its log entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    Required,
    /// The entry is still to be made, and the time is the timestamp authority's.
    #[cfg(feature = "keyless-sign")]
    Queued,
}

/// Reads a trusted root, or the one inside of a client trust configuration.
fn read_root(bytes: &[u8]) -> Result<TrustedRoot, KeylessError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Either {
        trusted_root: Option<serde_json::Value>,
    }
    let refuse = |e: &dyn fmt::Display| KeylessError::TrustedRoot(e.to_string());
    if bytes.len() > MAX_TRUSTED_ROOT_BYTES {
        return Err(refuse(&format_args!(
            "it has more than {MAX_TRUSTED_ROOT_BYTES} bytes"
        )));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| refuse(&e))?;
    let either: Either = serde_json::from_str(text).map_err(|e| refuse(&e))?;
    let inner = either.trusted_root.map(|root| root.to_string());
    let root = TrustedRoot::from_json(inner.as_deref().unwrap_or(text)).map_err(|e| refuse(&e))?;
    // All its lists may be left out in JSON, so that many a document would be taken for one that trusts nobody.
    if root.certificate_authorities.is_empty() {
        return Err(refuse(
            &"it names no certificate authority, so nothing could be verified with it; is it another file?",
        ));
    }
    Ok(root)
}

fn verify_with(bundle: &[u8], root: &TrustedRoot, log: Log) -> Result<Certified, KeylessError> {
    use_ring();
    if bundle.len() > MAX_RECEIVED_BYTES {
        return Err(KeylessError::Malformed(format!(
            "it has more than {MAX_RECEIVED_BYTES} bytes"
        )));
    }
    let malformed = |e: &dyn fmt::Display| KeylessError::Malformed(e.to_string());
    // Our own reading first: it is the stricter one, and its answer is what the policy is applied to.
    let received = Received::parse(bundle).map_err(|e| malformed(&e))?;
    let claim = Claim::parse(&received.payload).map_err(|e| malformed(&e))?;
    let text = std::str::from_utf8(bundle).map_err(|e| malformed(&e))?;
    let parsed = Bundle::from_json(text).map_err(|e| malformed(&e))?;
    // The subjects are compared with the files by the caller; the client wants one of them named.
    let named = claim
        .subjects
        .first()
        .ok_or_else(|| malformed(&"no subjects"))?;
    let artifact = Artifact::from_digest(Sha256Hash::new(*named.sha256.as_bytes()));
    let mut policy = VerificationPolicy::any_identity();
    if root.ctlogs.is_empty() {
        // A private instance without a certificate transparency log says so in its root.
        policy = policy.skip_sct();
    }
    if log != Log::Required {
        policy = policy.skip_tlog_unsafe();
    } else if parsed.verification_material.tlog_entries.is_empty() {
        return Err(KeylessError::NotLogged);
    }
    let result = Verifier::new(root)?.verify(artifact, &parsed, &policy)?;
    Ok(Certified {
        issuer: result.issuer().unwrap_or_default().to_owned(),
        subject: result
            .identity()
            .map(ToString::to_string)
            .unwrap_or_default(),
        project: result
            .certificate()
            .and_then(|c| c.ci_claims.source_repository_uri.clone()),
    })
}
