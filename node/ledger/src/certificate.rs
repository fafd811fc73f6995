//! Certificates: the precommits that made a block final.

use instar_attest::json::{self, JsonError};
use instar_attest::key::SignatureError;
use instar_attest::{ChainId, PublicKey, Signature};
use serde::{Deserialize, Serialize};

use crate::oid::Oid;
use crate::validators::ValidatorSet;
use crate::vote::{self, VoteKind};

/// The largest `certificate.json`, in bytes; room for every validator of the largest set.
pub const MAX_CERTIFICATE_BYTES: usize = 96 * 1024;

/// One precommit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitSignature {
    /// Over the precommit's bytes: [`vote::signed_bytes`].
    pub sig: Signature,
    /// The consensus key.
    pub validator: PublicKey,
}

/// More than two thirds of the power signed this block at this height and round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The block's commit id.
    pub block: Oid,
    /// Its height.
    pub height: u64,
    /// The round that decided.
    pub round: u32,
    /// Sorted by validator, each once.
    pub signatures: Vec<CommitSignature>,
}

/// Why a certificate certifies nothing.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Too large, not canonical, or not of a certificate's shape.
    #[error("the certificate is refused: {0}")]
    Json(#[from] JsonError),
    /// Signatures must be sorted by validator, and each validator counts once.
    #[error("the signature of validator {0} is out of order or given twice")]
    Order(PublicKey),
    /// A signer who has no vote at this height.
    #[error("{0} is not in the validator set of this height")]
    NotAValidator(PublicKey),
    /// A signature that does not hold for this chain, height, round and block.
    #[error("the precommit of validator {validator}: {source}")]
    Signature {
        /// Whose.
        validator: PublicKey,
        /// What is wrong with it.
        source: SignatureError,
    },
    /// Not more than two thirds.
    #[error("a power of {signed} of {total} signed, more than two thirds are needed")]
    Power {
        /// The power of those who signed.
        signed: u64,
        /// The power of the set.
        total: u64,
    },
}

impl Certificate {
    /// Checks it against the validator set *of its height*: strict order, every signature, more than two thirds.
    pub fn verify(&self, chain: &ChainId, set: &ValidatorSet) -> Result<(), CertificateError> {
        // Membership and power come before any signature, so that a forged list costs no curve arithmetic.
        self.verify_power(set)?;
        self.verify_signatures(chain)
    }

    /// The half that needs the set: strict order, only members, more than two thirds. Says nothing of the signatures.
    pub fn verify_power(&self, set: &ValidatorSet) -> Result<(), CertificateError> {
        if let Some(pair) = self
            .signatures
            .windows(2)
            .find(|w| w[0].validator >= w[1].validator)
        {
            return Err(CertificateError::Order(pair[1].validator));
        }
        let mut signed = 0;
        for s in &self.signatures {
            signed += set
                .power_of(&s.validator)
                .ok_or(CertificateError::NotAValidator(s.validator))?;
        }
        if !set.is_quorum(signed) {
            return Err(CertificateError::Power {
                signed,
                total: set.total_power(),
            });
        }
        Ok(())
    }

    /// The half that needs no set: each signature under the key that it names.
    pub fn verify_signatures(&self, chain: &ChainId) -> Result<(), CertificateError> {
        let bytes = self.signed_bytes(chain);
        for s in &self.signatures {
            s.validator
                .verify(&bytes, &s.sig)
                .map_err(|source| CertificateError::Signature {
                    validator: s.validator,
                    source,
                })?;
        }
        Ok(())
    }

    /// The bytes that each signer signed.
    pub fn signed_bytes(&self, chain: &ChainId) -> Vec<u8> {
        vote::signed_bytes(
            chain,
            VoteKind::Precommit,
            self.height,
            self.round,
            Some(&self.block),
        )
    }

    /// The canonical bytes of `certificate.json`.
    pub fn to_bytes(&self) -> Result<Vec<u8>, JsonError> {
        json::to_vec(self)
    }

    /// Reads `certificate.json`: shape and canonical form only, see [`Certificate::verify`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CertificateError> {
        Ok(json::from_slice(bytes, MAX_CERTIFICATE_BYTES)?)
    }
}
