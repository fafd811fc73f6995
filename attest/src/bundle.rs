//! Sigstore bundle v0.3: one envelope and a hint at the key that signed it, as one JSON file.
//!
//! The shape is that of `dev.sigstore.bundle.v1.Bundle` in the Sigstore protobuf specifications, in its JSON mapping,
//! narrowed to managed keys and to canonical JSON.

use serde::{Deserialize, Serialize};

use crate::dsse::{Envelope, EnvelopeError};
use crate::json::{self, JsonError};
use crate::key::{PublicKey, SecretKey};
use crate::statement::{PAYLOAD_TYPE, Statement, StatementError};

/// The media type of a bundle.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The largest bundle: it must fit into an entry, beside the list of files.
pub const MAX_BUNDLE_BYTES: usize = 40 << 10;

/// A bundle that a managed key signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// What was signed.
    #[serde(rename = "dsseEnvelope")]
    pub envelope: Envelope,
    /// [`MEDIA_TYPE`].
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// Which key to verify with.
    #[serde(rename = "verificationMaterial")]
    pub material: Material,
}

/// Which key to verify with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Material {
    /// A managed key.
    #[serde(rename = "publicKey")]
    pub public_key: KeyHint,
}

/// A hint at a managed key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyHint {
    /// The key's id; see [`PublicKey::key_id`].
    pub hint: String,
}

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not canonical JSON of this shape.
    #[error("the bundle: {0}")]
    Json(#[from] JsonError),
    /// Another media type.
    #[error("the bundle is of type {0:?}, not a Sigstore bundle v0.3")]
    MediaType(String),
    /// The hint and the signature name two keys.
    #[error("the bundle hints at key {hint:?}, its signature names {keyid:?}")]
    Hint {
        /// The key that the bundle hints at.
        hint: String,
        /// The key that the signature names.
        keyid: String,
    },
    /// The envelope is refused.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The statement is refused.
    #[error(transparent)]
    Statement(#[from] StatementError),
}

impl Bundle {
    /// Signs a statement with a builder's key.
    pub fn sign(key: &SecretKey, statement: &Statement) -> Result<Self, BundleError> {
        Ok(Self {
            envelope: Envelope::sign(key, PAYLOAD_TYPE, statement.to_bytes()?),
            media_type: MEDIA_TYPE.into(),
            material: Material {
                public_key: KeyHint {
                    hint: key.public().key_id(),
                },
            },
        })
    }

    /// Reads a bundle, strictly. Its signature is not checked yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let bundle: Self = json::from_slice(bytes, MAX_BUNDLE_BYTES)?;
        if bundle.media_type != MEDIA_TYPE {
            let got = bundle.media_type.chars().take(80).collect();
            return Err(BundleError::MediaType(got));
        }
        let keyid = &bundle.envelope.signature()?.keyid;
        if *keyid != bundle.material.public_key.hint {
            return Err(BundleError::Hint {
                hint: bundle.material.public_key.hint.chars().take(80).collect(),
                keyid: keyid.chars().take(80).collect(),
            });
        }
        Ok(bundle)
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let bytes = json::to_vec(self)?;
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::Json(JsonError::TooLarge {
                got: bytes.len(),
                max: MAX_BUNDLE_BYTES,
            }));
        }
        Ok(bytes)
    }

    /// The id of the key that the bundle says it is signed with.
    pub fn key_id(&self) -> &str {
        &self.material.public_key.hint
    }

    /// Checks the signature and gives the statement.
    pub fn verify(&self, key: &PublicKey) -> Result<Statement, BundleError> {
        let payload = self.envelope.verify(key, PAYLOAD_TYPE)?;
        Ok(Statement::parse(payload)?)
    }
}
