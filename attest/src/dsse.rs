//! DSSE: the envelope around a statement, and the bytes that its signature covers.
//!
//! <https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::key::{PublicKey, SecretKey, Signature};

/// Bytes that stand in JSON as standard base64 with padding: the one spelling that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        // The engine refuses missing padding, spaces, and bits after the end that stand for nothing.
        STANDARD
            .decode(text)
            .map(Self)
            .map_err(|e| serde::de::Error::custom(format!("not strict base64: {e}")))
    }
}

/// A DSSE envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// What was signed.
    pub payload: Base64,
    /// What kind of bytes these are; the signature covers it too.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// One signature.
    pub signatures: Vec<EnvelopeSignature>,
}

/// A signature in an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// The key's id; see [`PublicKey::key_id`].
    pub keyid: String,
    /// The signature.
    pub sig: Base64,
}

/// Why an envelope is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Another payload type than the place asks for.
    #[error("the payload is of type {got:?}, not {expected:?}")]
    PayloadType {
        /// The type in the envelope.
        got: String,
        /// The type that was asked for.
        expected: &'static str,
    },
    /// Not exactly one signature.
    #[error("the envelope has {0} signatures, exactly one is allowed")]
    SignatureCount(usize),
    /// The key id belongs to another key.
    #[error("the signature names key {got:?}, not {expected}")]
    KeyId {
        /// The id in the envelope.
        got: String,
        /// The id of the key that was asked for.
        expected: String,
    },
    /// The signature is not the key's.
    #[error("the signature is not valid for key {0} over this payload (strict Ed25519)")]
    Signature(String),
}

/// The pre-authentication encoding: the bytes that are signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    out.extend_from_slice(payload);
    out
}

impl Envelope {
    /// Signs `payload` with a builder's key.
    pub fn sign(key: &SecretKey, payload_type: &str, payload: Vec<u8>) -> Self {
        let sig = key.sign(&pae(payload_type, &payload));
        Self {
            payload: Base64(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![EnvelopeSignature {
                keyid: key.public().key_id(),
                sig: Base64(sig.as_bytes().to_vec()),
            }],
        }
    }

    /// Checks the one signature against `key` and gives the payload.
    pub fn verify(
        &self,
        key: &PublicKey,
        payload_type: &'static str,
    ) -> Result<&[u8], EnvelopeError> {
        if self.payload_type != payload_type {
            return Err(EnvelopeError::PayloadType {
                got: self.payload_type.chars().take(80).collect(),
                expected: payload_type,
            });
        }
        let signature = self.signature()?;
        if signature.keyid != key.key_id() {
            return Err(EnvelopeError::KeyId {
                got: signature.keyid.chars().take(80).collect(),
                expected: key.key_id(),
            });
        }
        self.verify_bytes(key)?;
        Ok(&self.payload.0)
    }

    /// The one signature.
    pub fn signature(&self) -> Result<&EnvelopeSignature, EnvelopeError> {
        match self.signatures.as_slice() {
            [one] => Ok(one),
            other => Err(EnvelopeError::SignatureCount(other.len())),
        }
    }

    /// Whether the one signature is `key`'s, whatever id it claims.
    pub fn verify_bytes(&self, key: &PublicKey) -> Result<(), EnvelopeError> {
        let refused = || EnvelopeError::Signature(key.key_id());
        let sig: [u8; 64] = self
            .signature()?
            .sig
            .0
            .as_slice()
            .try_into()
            .map_err(|_| refused())?;
        key.verify(
            &pae(&self.payload_type, &self.payload.0),
            &Signature::from_bytes(sig),
        )
        .map_err(|_| refused())
    }
}
