//! SSHSIG signatures over git commits, in exactly one spelling.
//!
//! The format is OpenSSH's `PROTOCOL.sshsig`, with everything that could vary fixed: Ed25519, namespace `git`, hash
//! `sha512`, armour wrapped at 70 columns as `ssh-keygen -Y sign` writes it. So every armour has the same length, and
//! reading is: take out the key and the signature, write the armour again, compare.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use instar_attest::key::SignatureError;
use instar_attest::{PublicKey, SecretKey, Signature};
use sha2::{Digest as _, Sha512};

const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
const NAMESPACE: &[u8] = b"git";
const HASH: &[u8] = b"sha512";
const KEY_TYPE: &[u8] = b"ssh-ed25519";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// `ssh-keygen` wraps its armour here.
const COLUMNS: usize = 70;
/// Where the 32 bytes of the key stand in the binary form.
const KEY_AT: usize = MAGIC.len() + 4 + 4 + 4 + KEY_TYPE.len() + 4;
/// The length of the binary form.
const BLOB_BYTES: usize = KEY_AT + 32 + (4 + 3) + 4 + (4 + 6) + 4 + (4 + KEY_TYPE.len() + 4 + 64);

/// An Ed25519 SSHSIG in git's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SshSig {
    /// Whose signature it claims to be.
    pub key: PublicKey,
    /// Over [`message`] of the payload.
    pub sig: Signature,
}

/// The text is not the one spelling of an SSHSIG that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an SSHSIG of Ed25519, namespace git, hash sha512, in the one accepted armour")]
pub struct ArmourError;

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("every field here is shorter than 100 bytes");
    out.extend(length.to_be_bytes());
    out.extend(bytes);
}

/// The bytes that Ed25519 signs for `payload`.
pub fn message(payload: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    string(&mut out, NAMESPACE);
    string(&mut out, b"");
    string(&mut out, HASH);
    string(&mut out, &Sha512::digest(payload));
    out
}

/// The public key as `allowed_signers` and `authorized_keys` files have it, without a comment.
pub fn public_key_line(key: &PublicKey) -> String {
    let mut blob = Vec::new();
    string(&mut blob, KEY_TYPE);
    string(&mut blob, key.as_bytes());
    format!("ssh-ed25519 {}", STANDARD.encode(blob))
}

/// An allowed-signers file for `git verify-commit`: a line for each device, its name as the principal.
///
/// Names come from the ledger and could hold anything, so only those that can't be mistaken for a pattern, an option
/// or two principals are written as they are; all others become `device-<eight digits of the key>`.
pub fn allowed_signers(devices: &[(String, PublicKey)]) -> String {
    let mut out = String::new();
    for (name, key) in devices {
        let plain = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'@'));
        let principal = if plain {
            name.clone()
        } else {
            format!("device-{}", key.short())
        };
        let line = public_key_line(key);
        out.push_str(&format!("{principal} namespaces=\"git\" {line}\n"));
    }
    out
}

impl SshSig {
    /// Signs `payload` with a lane key.
    pub fn sign(key: &SecretKey, payload: &[u8]) -> Self {
        Self {
            key: key.public(),
            sig: key.sign(&message(payload)),
        }
    }

    /// Checks the signature over `payload`, strictly, under the key that it names. Whether that key may sign is
    /// another question.
    pub fn verify(&self, payload: &[u8]) -> Result<(), SignatureError> {
        self.key.verify(&message(payload), &self.sig)
    }

    /// The armoured form: lines without a newline after the last.
    pub fn to_armour(&self) -> String {
        let mut key = Vec::new();
        string(&mut key, KEY_TYPE);
        string(&mut key, self.key.as_bytes());
        let mut sig = Vec::new();
        string(&mut sig, KEY_TYPE);
        string(&mut sig, self.sig.as_bytes());

        let mut blob = MAGIC.to_vec();
        blob.extend(VERSION.to_be_bytes());
        string(&mut blob, &key);
        string(&mut blob, NAMESPACE);
        string(&mut blob, b"");
        string(&mut blob, HASH);
        string(&mut blob, &sig);

        let mut text = format!("{BEGIN}\n");
        let encoded = STANDARD.encode(blob);
        for (i, c) in encoded.chars().enumerate() {
            if i > 0 && i % COLUMNS == 0 {
                text.push('\n');
            }
            text.push(c);
        }
        text.push('\n');
        text.push_str(END);
        text
    }

    /// Reads the armoured form; only the one spelling is accepted.
    pub fn from_armour(text: &str) -> Result<Self, ArmourError> {
        let body: String = text
            .strip_prefix(BEGIN)
            .and_then(|t| t.strip_suffix(END))
            .ok_or(ArmourError)?
            .split('\n')
            .collect();
        // The length is checked before decoding, so that a long text costs nothing.
        if body.len() != BLOB_BYTES.div_ceil(3) * 4 {
            return Err(ArmourError);
        }
        let blob = STANDARD.decode(body).map_err(|_| ArmourError)?;
        let key = blob
            .get(KEY_AT..KEY_AT + 32)
            .and_then(|b| b.try_into().ok())
            .ok_or(ArmourError)?;
        let sig = blob.last_chunk::<64>().ok_or(ArmourError)?;
        let read = Self {
            key: PublicKey::from_bytes(key),
            sig: Signature::from_bytes(*sig),
        };
        if read.to_armour() != text {
            return Err(ArmourError);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_round_trips() {
        let key = SecretKey::from_seed(&[3; 32]);
        let sig = SshSig::sign(&key, b"payload");
        let text = sig.to_armour();
        assert_eq!(SshSig::from_armour(&text), Ok(sig));
        assert_eq!(sig.verify(b"payload"), Ok(()));
        assert!(sig.verify(b"other").is_err());

        let unwrapped = text.replacen('\n', "", 2);
        assert!(SshSig::from_armour(&unwrapped).is_err());
        let other_namespace = text.replace("Z2l0", "Z2lu");
        assert_ne!(other_namespace, text);
        assert!(SshSig::from_armour(&other_namespace).is_err());
        assert!(SshSig::from_armour(&format!("{text}\n")).is_err());
    }
}
