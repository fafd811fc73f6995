//! The cryptography that the Sigstore client computes with: ring, and p256 for what ring does not offer.
//!
//! The client's own choice is a C library with a build of its own; it takes another through a trait, and ring is in the
//! program anyway, for TLS.

use std::sync::Once;

use p256::ecdsa::signature::hazmat::{PrehashSigner as _, PrehashVerifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use ring::{digest, signature};
use sigstore_verify::crypto::{
    CryptoProvider, HashContext, KeyAlgorithm, SigningKeyPair, SigningScheme,
    error::Error as CryptoError, install_default_provider,
};
use sigstore_verify::types::HashAlgorithm;

use crate::keyfile::os_seed;

/// Tells the client to compute with ring; once in a process, and it stays so.
pub(super) fn use_ring() {
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
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| invalid())?;
        let sig = Signature::from_der(sig).map_err(|_| invalid())?;
        key.verify_prehash(digest, &sig).map_err(|_| invalid())
    }

    fn generate_key_pair(
        &self,
        algorithm: KeyAlgorithm,
    ) -> Result<Box<dyn SigningKeyPair>, CryptoError> {
        if algorithm != KeyAlgorithm::EcdsaP256 {
            return Err(CryptoError::UnsupportedAlgorithm(format!(
                "a key of {algorithm:?}"
            )));
        }
        loop {
            let seed = os_seed().map_err(|e| CryptoError::KeyGeneration(e.to_string()))?;
            // All but about one in 2^32 strings of 32 bytes are a key of this curve.
            if let Ok(secret) = SigningKey::from_slice(seed.as_slice()) {
                let public = secret.verifying_key().to_encoded_point(false);
                return Ok(Box::new(Ephemeral {
                    public: public.as_bytes().to_vec(),
                    secret,
                }));
            }
        }
    }
}

/// A key that signs once and is forgotten: a certificate says whose it was. Nonces are those of RFC 6979.
struct Ephemeral {
    secret: SigningKey,
    public: Vec<u8>,
}

impl SigningKeyPair for Ephemeral {
    fn algorithm(&self) -> KeyAlgorithm {
        KeyAlgorithm::EcdsaP256
    }

    fn public_key_bytes(&self) -> &[u8] {
        &self.public
    }

    fn sign_raw(&self, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.sign_prehashed(digest::digest(&digest::SHA256, data).as_ref())
    }

    fn sign_prehashed(&self, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let sig: Signature = self
            .secret
            .sign_prehash(digest)
            .map_err(|e| CryptoError::Signing(e.to_string()))?;
        Ok(sig.to_der().as_bytes().to_vec())
    }
}

fn invalid() -> CryptoError {
    CryptoError::Verification("the signature does not match".into())
}
