//! Keyless bundles: a short-lived certificate of Fulcio, an entry in a transparency log, and a timestamp.
//!
//! The Sigstore organisation's own client does the work, offline, from a trusted root that the caller brings. Its default
//! cryptography is a C library with a build of its own; it takes another through a trait, and here that is ring, which is
//! in the program anyway for TLS.

use std::fmt;
use std::sync::Once;

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use ring::{digest, signature};
use sigstore_verify::crypto::{
    CryptoProvider, HashContext, SigningScheme, error::Error as CryptoError,
    install_default_provider,
};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Artifact, Bundle, HashAlgorithm, Sha256Hash};
use sigstore_verify::{
    CertificateError, Error, TimestampError, TransparencyLogError, VerificationPolicy, Verifier,
};

use crate::received::{Claim, MAX_RECEIVED_BYTES, Received};
use crate::release_policy::Identity;

/// The largest trusted root; the public one has 10 kB.
pub const MAX_TRUSTED_ROOT_BYTES: usize = 1 << 20;

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
pub fn verify(bundle: &[u8], trusted_root: &[u8]) -> Result<Certified, KeylessError> {
    use_ring();
    if trusted_root.len() > MAX_TRUSTED_ROOT_BYTES || bundle.len() > MAX_RECEIVED_BYTES {
        return Err(KeylessError::Malformed("it is too large".into()));
    }
    let root = std::str::from_utf8(trusted_root)
        .map_err(|e| KeylessError::TrustedRoot(e.to_string()))
        .and_then(|text| {
            TrustedRoot::from_json(text).map_err(|e| KeylessError::TrustedRoot(e.to_string()))
        })?;
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
    let result = Verifier::new(&root)?.verify(artifact, &parsed, &policy)?;
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

/// Tells the client to compute with ring; once in a process, and it stays so.
fn use_ring() {
    static ONCE: Once = Once::new();
    // Somebody else in this process may have chosen before, which is just as good.
    ONCE.call_once(|| {
        let _ = install_default_provider(&RingProvider);
    });
}

#[derive(Debug)]
struct RingProvider;

struct RingHash(digest::Context);

impl HashContext for RingHash {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

impl CryptoProvider for RingProvider {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>, CryptoError> {
        let algorithm = match algorithm {
            HashAlgorithm::Sha2256 => &digest::SHA256,
            HashAlgorithm::Sha2384 => &digest::SHA384,
            HashAlgorithm::Sha2512 => &digest::SHA512,
            other => return Err(CryptoError::UnsupportedAlgorithm(other.to_string())),
        };
        Ok(Box::new(RingHash(digest::Context::new(algorithm))))
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        data: &[u8],
        sig: &[u8],
    ) -> Result<(), CryptoError> {
        let algorithm: &dyn signature::VerificationAlgorithm = match scheme {
            SigningScheme::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
            SigningScheme::EcdsaP256Sha384 => &signature::ECDSA_P256_SHA384_ASN1,
            SigningScheme::EcdsaP384Sha256 => &signature::ECDSA_P384_SHA256_ASN1,
            SigningScheme::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
            SigningScheme::Ed25519 => &signature::ED25519,
            SigningScheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
            SigningScheme::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
            SigningScheme::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
            SigningScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            SigningScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            SigningScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            other => return Err(CryptoError::UnsupportedAlgorithm(format!("{other:?}"))),
        };
        signature::UnparsedPublicKey::new(algorithm, key)
            .verify(data, sig)
            .map_err(|_| invalid())
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        digest: &[u8],
        sig: &[u8],
    ) -> Result<(), CryptoError> {
        // ring hashes by itself; only P-256, which every signature of a blob uses, is needed without that.
        if !matches!(scheme, SigningScheme::EcdsaP256Sha256) {
            return Err(CryptoError::UnsupportedAlgorithm(format!(
                "{scheme:?} over a digest"
            )));
        }
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(|_| invalid())?;
        let sig = p256::ecdsa::Signature::from_der(sig).map_err(|_| invalid())?;
        key.verify_prehash(digest, &sig).map_err(|_| invalid())
    }
}

fn invalid() -> CryptoError {
    CryptoError::Verification("the signature does not match".into())
}
