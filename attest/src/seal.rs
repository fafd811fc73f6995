//! Secret keys at rest: sealed with a passphrase.
//!
//! scrypt (RFC 7914) makes a key of the passphrase, ChaCha20-Poly1305 (RFC 8439) encrypts the seed and authenticates what
//! stands beside it: purpose and public half. Salt and nonce are passed in, since this room draws no randomness.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::{PublicKey, Purpose, SecretKey};

/// What scrypt costs when we seal: 2^17 rounds over 128 MiB, about half a second.
pub const SEAL_LOG_N: u8 = 17;
/// The least and the most that is accepted when a key is opened; the most bounds the memory at 1 GiB.
pub const LOG_N_RANGE: std::ops::RangeInclusive<u8> = 14..=20;
/// The shortest passphrase. Length is what counts; a CI variable is usually random.
pub const MIN_PASSPHRASE: usize = 8;

const BLOCK: u32 = 8;
const PARALLEL: u32 = 1;
const DOMAIN: &str = "instar/sealed-key/v1";

/// The sealed half of a key file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// scrypt's cost: the logarithm of N.
    pub log_n: u8,
    /// 12 bytes, hex.
    pub nonce: String,
    /// 16 bytes, hex.
    pub salt: String,
    /// The encrypted seed with its tag: 48 bytes, hex.
    pub sealed: String,
}

/// Why a sealed key can't be made or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Too short a passphrase.
    #[error("a passphrase needs at least {MIN_PASSPHRASE} characters")]
    Short,
    /// Fields of the wrong length, or a cost out of bounds.
    #[error("the sealed key is malformed, or its cost is out of bounds")]
    Malformed,
    /// Another passphrase, or a changed file.
    #[error("the passphrase is not the key's, or the file was changed")]
    Passphrase,
}

fn derive(passphrase: &str, salt: &[u8], log_n: u8) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let params =
        scrypt::Params::new(log_n, BLOCK, PARALLEL, 32).map_err(|_| SealError::Malformed)?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(passphrase.as_bytes(), salt, &params, key.as_mut_slice())
        .map_err(|_| SealError::Malformed)?;
    Ok(key)
}

fn beside(purpose: Purpose, public: &PublicKey) -> Vec<u8> {
    format!("{DOMAIN}\0{purpose}\0{public}").into_bytes()
}

impl Sealed {
    /// Seals `key`. `salt` and `nonce` must be fresh random bytes.
    pub fn seal(
        key: &SecretKey,
        purpose: Purpose,
        passphrase: &str,
        salt: [u8; 16],
        nonce: [u8; 12],
    ) -> Result<Self, SealError> {
        if passphrase.chars().count() < MIN_PASSPHRASE {
            return Err(SealError::Short);
        }
        let cipher_key = derive(passphrase, &salt, SEAL_LOG_N)?;
        let seed = key.expose_seed();
        let payload = Payload {
            msg: seed.as_slice(),
            aad: &beside(purpose, &key.public()),
        };
        let sealed = ChaCha20Poly1305::new(cipher_key.as_slice().into())
            .encrypt(Nonce::from_slice(&nonce), payload)
            .map_err(|_| SealError::Malformed)?;
        Ok(Self {
            log_n: SEAL_LOG_N,
            nonce: hex::encode(nonce),
            salt: hex::encode(salt),
            sealed: hex::encode(sealed),
        })
    }

    /// Opens the key, whose purpose and public half must be those that it was sealed with.
    pub fn open(
        &self,
        purpose: Purpose,
        public: &PublicKey,
        passphrase: &str,
    ) -> Result<SecretKey, SealError> {
        let mut salt = [0; 16];
        let mut nonce = [0; 12];
        let mut sealed = [0; 48];
        hex::decode_to_slice(&self.salt, &mut salt)
            .and_then(|()| hex::decode_to_slice(&self.nonce, &mut nonce))
            .and_then(|()| hex::decode_to_slice(&self.sealed, &mut sealed))
            .map_err(|_| SealError::Malformed)?;
        if !LOG_N_RANGE.contains(&self.log_n) {
            return Err(SealError::Malformed);
        }
        let cipher_key = derive(passphrase, &salt, self.log_n)?;
        let payload = Payload {
            msg: &sealed,
            aad: &beside(purpose, public),
        };
        let seed = ChaCha20Poly1305::new(cipher_key.as_slice().into())
            .decrypt(Nonce::from_slice(&nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| SealError::Passphrase)?;
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(
            seed.as_slice()
                .try_into()
                .map_err(|_| SealError::Malformed)?,
        );
        Ok(SecretKey::from_seed(&seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_passphrase_opens_it_and_only_for_its_purpose() {
        let key = SecretKey::from_seed(&[7; 32]);
        let public = key.public();
        let sealed =
            Sealed::seal(&key, Purpose::Builder, "correct horse", [1; 16], [2; 12]).unwrap();
        let open = |s: &Sealed, purpose, word| s.open(purpose, &public, word).map(|k| k.public());
        assert_eq!(open(&sealed, Purpose::Builder, "correct horse"), Ok(public));
        assert_eq!(
            open(&sealed, Purpose::Builder, "correct house"),
            Err(SealError::Passphrase)
        );
        assert_eq!(
            open(&sealed, Purpose::Account, "correct horse"),
            Err(SealError::Passphrase)
        );
        assert!(!format!("{sealed:?}").contains(key.expose_hex().as_str()));
        let costly = Sealed {
            log_n: 30,
            ..sealed
        };
        assert_eq!(
            open(&costly, Purpose::Builder, "correct horse"),
            Err(SealError::Malformed)
        );
        assert_eq!(
            Sealed::seal(&key, Purpose::Builder, "short", [1; 16], [2; 12]),
            Err(SealError::Short)
        );
    }
}
