//! Reviews: a maintainer's SSH signature over a source commit, made and checked by stock `ssh-keygen`.
//!
//! A commit carries one signature, its committer's. That two more people have read it is said beside it: each signs the
//! line [`review_message`] in the namespace [`REVIEW_NAMESPACE`], with
//! `ssh-keygen -Y sign -n instar-review -f KEY`. The format is OpenSSH's `PROTOCOL.sshsig`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256, Sha512};

use crate::key::{PublicKey, Signature};

/// The SSHSIG namespace of reviews: a signature for a file or a commit is none for a review.
pub const REVIEW_NAMESPACE: &str = "instar-review";
/// The largest armoured signature that is looked at; one of Ed25519 has 300 bytes.
pub const MAX_REVIEW_BYTES: usize = 4096;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
const MAGIC: &[u8] = b"SSHSIG";
const KEY_TYPE: &[u8] = b"ssh-ed25519";

/// Why a review is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// Not an armoured SSHSIG.
    #[error("it is not an armoured SSH signature")]
    Malformed,
    /// For something else.
    #[error("it is for the namespace {0:?}, not {REVIEW_NAMESPACE:?}")]
    Namespace(String),
    /// Another kind of key.
    #[error("the key is no ssh-ed25519 key")]
    KeyType,
    /// Not over this commit.
    #[error("the signature is not valid for this commit (strict Ed25519)")]
    Signature,
}

/// The line that a reviewer signs: `instar/review/v1`, the commit's id, and a line end.
pub fn review_message(commit: &str) -> Vec<u8> {
    format!("instar/review/v1 {commit}\n").into_bytes()
}

/// An armoured SSHSIG, taken apart; whether it is valid depends on the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Review {
    /// Whose signature it claims to be.
    pub key: PublicKey,
    hash: Hash,
    signature: Signature,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

impl Review {
    /// Reads what `ssh-keygen -Y sign -n instar-review` wrote.
    pub fn parse(text: &[u8]) -> Result<Self, ReviewError> {
        if text.len() > MAX_REVIEW_BYTES {
            return Err(ReviewError::Malformed);
        }
        let body: String = std::str::from_utf8(text)
            .ok()
            .and_then(|t| t.trim().strip_prefix(BEGIN)?.strip_suffix(END))
            .ok_or(ReviewError::Malformed)?
            .split_ascii_whitespace()
            .collect();
        let blob = STANDARD.decode(body).map_err(|_| ReviewError::Malformed)?;
        let mut rest = blob.strip_prefix(MAGIC).ok_or(ReviewError::Malformed)?;
        if take(&mut rest, 4)? != 1u32.to_be_bytes() {
            return Err(ReviewError::Malformed);
        }
        let key = string(&mut rest)?;
        let namespace = string(&mut rest)?;
        string(&mut rest)?; // reserved
        let hash = match string(&mut rest)? {
            b"sha512" => Hash::Sha512,
            b"sha256" => Hash::Sha256,
            _ => return Err(ReviewError::Malformed),
        };
        let signature = string(&mut rest)?;
        if !rest.is_empty() {
            return Err(ReviewError::Malformed);
        }
        if namespace != REVIEW_NAMESPACE.as_bytes() {
            let shown = String::from_utf8_lossy(namespace)
                .chars()
                .take(40)
                .collect();
            return Err(ReviewError::Namespace(shown));
        }
        Ok(Self {
            key: PublicKey::from_bytes(of_type(key)?),
            hash,
            signature: Signature::from_bytes(of_type(signature)?),
        })
    }

    /// Checks the signature over a commit's id.
    pub fn verify(&self, commit: &str) -> Result<(), ReviewError> {
        let message = review_message(commit);
        let (name, digest): (&[u8], Vec<u8>) = match self.hash {
            Hash::Sha512 => (b"sha512", Sha512::digest(message).to_vec()),
            Hash::Sha256 => (b"sha256", Sha256::digest(message).to_vec()),
        };
        let mut signed = MAGIC.to_vec();
        for field in [REVIEW_NAMESPACE.as_bytes(), b"", name, &digest] {
            let length = u32::try_from(field.len()).expect("every field here is short");
            signed.extend(length.to_be_bytes());
            signed.extend(field);
        }
        self.key
            .verify(&signed, &self.signature)
            .map_err(|_| ReviewError::Signature)
    }
}

/// The key of a line as `authorized_keys` has it: `ssh-ed25519 BASE64`, with or without a comment.
pub fn ssh_public_key(line: &str) -> Option<PublicKey> {
    let mut parts = line.split_ascii_whitespace();
    if parts.next()?.as_bytes() != KEY_TYPE {
        return None;
    }
    let blob = STANDARD.decode(parts.next()?).ok()?;
    of_type(&blob).ok().map(PublicKey::from_bytes)
}

/// The one string of `N` bytes that follows the key type, and nothing after it.
fn of_type<const N: usize>(blob: &[u8]) -> Result<[u8; N], ReviewError> {
    let mut rest = blob;
    if string(&mut rest)? != KEY_TYPE {
        return Err(ReviewError::KeyType);
    }
    let value = string(&mut rest)?;
    if !rest.is_empty() {
        return Err(ReviewError::Malformed);
    }
    value.try_into().map_err(|_| ReviewError::Malformed)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], ReviewError> {
    let (taken, left) = rest
        .split_at_checked(length)
        .ok_or(ReviewError::Malformed)?;
    *rest = left;
    Ok(taken)
}

fn string<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], ReviewError> {
    let length = take(rest, 4)?;
    let length = u32::from_be_bytes(length.try_into().expect("four bytes were taken"));
    take(rest, length as usize)
}
