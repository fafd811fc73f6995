//! Public keys that others sign with: our Ed25519, and the P-256 of cosign and of most certificates.
//!
//! Instar signs with Ed25519 alone. What it accepts when it verifies somebody's bundle off the ledger is wider by exactly
//! one algorithm: ECDSA over P-256 with SHA-256, the signature in DER, as Sigstore's clients make it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Verifier as _;
use p256::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::key::{PublicKey, Signature};

/// The longest text of a key; a P-256 key in PEM has 178 bytes.
pub const MAX_KEY_TEXT: usize = 1024;
/// The longest DER signature of P-256.
const MAX_P256_SIGNATURE: usize = 72;

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";
/// What an Ed25519 `SubjectPublicKeyInfo` begins with (RFC 8410).
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// A key that may verify: Ed25519 or P-256.
#[derive(Clone, PartialEq, Eq)]
pub enum VerifyKey {
    /// Ed25519, strict.
    Ed25519(PublicKey),
    /// ECDSA over P-256 with SHA-256.
    P256(Box<p256::ecdsa::VerifyingKey>),
}

/// The text is no key that can be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no key: expected 64 hex digits (Ed25519), or the PEM of a public key of Ed25519 or P-256"
)]
pub struct KeyTextError(String);

impl VerifyKey {
    /// Reads a DER `SubjectPublicKeyInfo`; the one spelling of a key that encoders write.
    pub fn from_spki_der(der: &[u8]) -> Option<Self> {
        if let Some(key) = der.strip_prefix(&ED25519_SPKI) {
            return Some(Self::Ed25519(PublicKey::from_bytes(key.try_into().ok()?)));
        }
        let key = Self::P256(Box::new(
            p256::ecdsa::VerifyingKey::from_public_key_der(der).ok()?,
        ));
        (key.to_spki_der() == der).then_some(key)
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub fn to_spki_der(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.to_spki_der(),
            Self::P256(key) => key
                .to_public_key_der()
                .expect("a point of P-256 always has a DER form")
                .into_vec(),
        }
    }

    /// The PEM form, as OpenSSL, cosign and in-toto read it.
    pub fn to_pem(&self) -> String {
        let encoded = STANDARD.encode(self.to_spki_der());
        let mut text = format!("{PEM_BEGIN}\n");
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            text.push('\n');
        }
        text + PEM_END + "\n"
    }

    /// SHA-256 of the DER form, hex: the id of a key in our bundles.
    pub fn key_id(&self) -> String {
        Digest::of(&self.to_spki_der()).to_hex()
    }

    /// What the key is of, for people.
    pub const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "Ed25519",
            Self::P256(_) => "P-256",
        }
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => <[u8; 64]>::try_from(signature)
                .is_ok_and(|sig| key.verify(message, &Signature::from_bytes(sig)).is_ok()),
            Self::P256(key) => {
                signature.len() <= MAX_P256_SIGNATURE
                    && p256::ecdsa::Signature::from_der(signature)
                        .is_ok_and(|sig| key.verify(message, &sig).is_ok())
            }
        }
    }
}

impl FromStr for VerifyKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        let refused = || KeyTextError(text.chars().take(40).collect());
        if text.len() > MAX_KEY_TEXT {
            return Err(refused());
        }
        if let Ok(key) = text.parse() {
            return Ok(Self::Ed25519(key));
        }
        let body: String = text
            .trim()
            .strip_prefix(PEM_BEGIN)
            .and_then(|t| t.strip_suffix(PEM_END))
            .ok_or_else(refused)?
            .split_ascii_whitespace()
            .collect();
        let der = STANDARD.decode(body).map_err(|_| refused())?;
        Self::from_spki_der(&der).ok_or_else(refused)
    }
}

impl fmt::Display for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ed25519(key) => key.fmt(f),
            Self::P256(_) => write!(f, "P-256 {}", self.key_id()),
        }
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyKey({self})")
    }
}

impl Serialize for VerifyKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ed25519(key) => key.serialize(s),
            Self::P256(_) => s.serialize_str(&self.to_pem()),
        }
    }
}

impl<'de> Deserialize<'de> for VerifyKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;
    use p256::ecdsa::signature::Signer as _;

    #[test]
    fn both_kinds_verify_and_have_one_spelling() {
        let ours = SecretKey::from_seed(&[5; 32]);
        let key = VerifyKey::Ed25519(ours.public());
        assert!(key.verifies(b"m", ours.sign(b"m").as_bytes()));
        assert!(!key.verifies(b"n", ours.sign(b"m").as_bytes()));
        assert_eq!(key.to_pem().parse(), Ok(key.clone()));
        assert_eq!(ours.public().to_hex().parse(), Ok(key.clone()));
        assert_eq!(key.key_id(), ours.public().key_id());

        let theirs = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let key = VerifyKey::P256(Box::new(*theirs.verifying_key()));
        let sig: p256::ecdsa::Signature = theirs.sign(b"m");
        assert!(key.verifies(b"m", sig.to_der().as_bytes()));
        assert!(!key.verifies(b"n", sig.to_der().as_bytes()));
        assert!(!key.verifies(b"m", &sig.to_bytes()), "not in DER");
        assert_eq!(key.to_pem().parse(), Ok(key.clone()));
    }

    #[test]
    fn other_spellings_are_refused() {
        let key = VerifyKey::P256(Box::new(
            *p256::ecdsa::SigningKey::from_slice(&[7; 32])
                .unwrap()
                .verifying_key(),
        ));
        let mut der = key.to_spki_der();
        der.push(0);
        assert_eq!(VerifyKey::from_spki_der(&der), None);
        for bad in [
            "",
            "zz",
            "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----",
        ] {
            assert!(bad.parse::<VerifyKey>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(5000).parse::<VerifyKey>().is_err());
    }
}
