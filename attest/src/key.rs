//! Ed25519 keys, one purpose each, and the one strict verifier that all of Instar uses.
//!
//! Verification follows RFC 8032 without its laxer options: `S` must be canonical, neither the key nor `R` may be of
//! small order, and the equation is the cofactorless one. What passes here passes in OpenSSH and OpenSSL.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, HexError, hex_bytes, hex_newtype};

hex_newtype!(
    /// An Ed25519 public key, 32 bytes. Whether it is a usable point is checked when it verifies.
    PublicKey,
    32
);

hex_newtype!(
    /// An Ed25519 signature, 64 bytes.
    Signature,
    64
);

/// What a key may sign. A key has exactly one purpose; the ledger registers keys by purpose, and every signed byte
/// string begins with a domain that belongs to one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// BFT votes and proposals (`instar/vote/v1`, `instar/proposal/v1`).
    Consensus,
    /// Lane commits: SSHSIG in git's namespace, and nothing else, since every ordinary commit shares that namespace.
    Lane,
    /// Attestations: DSSE pre-authentication encoding.
    Builder,
    /// Entries (`instar/entry/v1`).
    Account,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consensus => "consensus",
            Self::Lane => "lane",
            Self::Builder => "builder",
            Self::Account => "account",
        })
    }
}

/// Why a signature was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The key is not a point of the curve, or is of small order.
    #[error("the public key is not a valid Ed25519 key")]
    BadKey,
    /// The signature is malformed, not canonical, or not by this key over these bytes.
    #[error("the signature is not valid for this key and these bytes (strict Ed25519)")]
    BadSignature,
}

impl PublicKey {
    /// Checks `signature` over `message`, strictly.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        let key = VerifyingKey::from_bytes(self.as_bytes()).map_err(|_| SignatureError::BadKey)?;
        if key.is_weak() {
            return Err(SignatureError::BadKey);
        }
        let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
        key.verify_strict(message, &signature)
            .map_err(|_| SignatureError::BadSignature)
    }

    /// The `SubjectPublicKeyInfo` form of RFC 8410, DER.
    pub fn to_spki_der(&self) -> Vec<u8> {
        const PREFIX: [u8; 12] = [
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        [PREFIX.as_slice(), self.as_bytes()].concat()
    }

    /// The key id used in DSSE envelopes: SHA-256 of the DER `SubjectPublicKeyInfo`, hex.
    pub fn key_id(&self) -> String {
        Digest::of(&self.to_spki_der()).to_hex()
    }

    /// The first eight hex digits, for people.
    pub fn short(&self) -> String {
        self.to_hex()[..8].to_owned()
    }
}

/// An Ed25519 secret key. It is wiped from memory when dropped and never printed.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

impl SecretKey {
    /// A key from its 32-byte seed. Where the seed comes from is the caller's business: pure rooms draw no randomness.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// A key from 64 hex digits.
    pub fn from_hex(text: &str) -> Result<Self, HexError> {
        // The error must not repeat a secret.
        hex_bytes(text.trim())
            .map(|seed| Self::from_seed(&seed))
            .map_err(|_| HexError("a secret key".into()))
    }

    /// The seed as hex, for the key file and nothing else.
    pub fn expose_hex(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(hex::encode(self.0.as_bytes()))
    }

    /// The raw 32-byte seed, for libraries that need to hold the key themselves.
    pub fn expose_seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(*self.0.as_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`. The caller prefixes the domain of the key's purpose.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_bytes(self.0.sign(message).to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_verifies() {
        let key = SecretKey::from_seed(&[7; 32]);
        let sig = key.sign(b"hello");
        assert_eq!(key.public().verify(b"hello", &sig), Ok(()));
        assert_eq!(
            key.public().verify(b"hullo", &sig),
            Err(SignatureError::BadSignature)
        );
    }

    #[test]
    fn small_order_keys_are_refused() {
        // The identity point: under a lax verifier an all-zero S with R = identity passes for any message.
        let mut identity = [0u8; 32];
        identity[0] = 1;
        let mut sig = [0u8; 64];
        sig[0] = 1;
        let verdict =
            PublicKey::from_bytes(identity).verify(b"anything", &Signature::from_bytes(sig));
        assert_eq!(verdict, Err(SignatureError::BadKey));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let key = SecretKey::from_seed(&[7; 32]);
        assert!(!format!("{key:?}").contains(&hex::encode([7u8; 32])));
        assert!(
            !SecretKey::from_hex("0707")
                .unwrap_err()
                .to_string()
                .contains("0707")
        );
    }
}
