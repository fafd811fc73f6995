//! Entries: one signed statement each, whoever's lane carries it.

use instar_attest::json::{self, JsonError};
use instar_attest::key::SignatureError;
use instar_attest::{ChainId, Digest, PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The largest entry, in bytes of its line without the newline. It fits an attestation bundle of 40 KiB as a string.
pub const MAX_ENTRY_BYTES: usize = 64 * 1024;
/// The longest topic, in bytes.
pub const MAX_TOPIC_BYTES: usize = 64;
/// What an account key's signature over an entry begins with.
pub const ENTRY_DOMAIN: &[u8] = b"instar/entry/v1\0";
/// The tag of an entry's id.
pub const ENTRY_ID_DOMAIN: &str = "instar/entry-id/v1";

/// One signed statement: a coin transfer, a door log line, a vote. In a lane it is one line of canonical JSON.
///
/// A value of this type that came from [`Entry::parse`] or [`Entry::sign`] is valid; the fields are public for readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The account key that signs.
    pub author: PublicKey,
    /// What is said: an object whose shape belongs to the topic.
    pub body: Value,
    /// The chain it is said on. A fork has another id.
    pub chain: ChainId,
    /// The author's counter, below 2^53. The state machine takes each value once.
    pub nonce: u64,
    /// By the author's key, over [`Entry::signed_bytes`].
    pub sig: Signature,
    /// Who is to read it: a native topic or a dapp's name.
    pub topic: String,
}

/// Everything in an entry but the signature, in the order of its canonical form.
#[derive(Serialize)]
struct Unsigned<'a> {
    author: &'a PublicKey,
    body: &'a Value,
    chain: &'a ChainId,
    nonce: u64,
    topic: &'a str,
}

/// Why bytes are no entry of this chain.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Too large, not canonical, or not of an entry's shape.
    #[error("the entry is refused: {0}")]
    Json(#[from] JsonError),
    /// It was signed for another chain: a fork or the mother.
    #[error("the entry belongs to chain {got}, this is {expected}")]
    OtherChain {
        /// The chain that is read.
        expected: ChainId,
        /// The chain in the entry.
        got: ChainId,
    },
    /// A topic is `[a-z][a-z0-9.-]{0,63}`.
    #[error("{0:?} is not a topic: [a-z][a-z0-9.-]{{0,63}}")]
    Topic(String),
    /// The body is no JSON object.
    #[error("the body of an entry must be a JSON object")]
    BodyNotObject,
    /// The author's signature does not hold.
    #[error("the author's signature: {0}")]
    Signature(#[from] SignatureError),
}

/// Whether `topic` is `[a-z][a-z0-9.-]{0,63}`.
pub fn is_topic(topic: &str) -> bool {
    let bytes = topic.as_bytes();
    bytes.len() <= MAX_TOPIC_BYTES
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
}

impl Entry {
    /// Makes and signs an entry.
    pub fn sign(
        chain: &ChainId,
        key: &SecretKey,
        nonce: u64,
        topic: &str,
        body: Value,
    ) -> Result<Self, EntryError> {
        let mut entry = Self {
            author: key.public(),
            body,
            chain: *chain,
            nonce,
            sig: Signature::from_bytes([0; 64]),
            topic: topic.to_owned(),
        };
        entry.check_shape(chain)?;
        entry.sig = key.sign(&with_domain(&entry.unsigned()?));
        let got = json::to_vec(&entry)?.len();
        if got > MAX_ENTRY_BYTES {
            return Err(EntryError::Json(JsonError::TooLarge {
                got,
                max: MAX_ENTRY_BYTES,
            }));
        }
        Ok(entry)
    }

    /// Reads one line (without its newline), checking size, canonical form, chain, topic and signature.
    pub fn parse(line: &[u8], chain: &ChainId) -> Result<Self, EntryError> {
        let entry = Self::parse_unverified(line, chain)?;
        entry.author.verify(&entry.signed_bytes(), &entry.sig)?;
        Ok(entry)
    }

    /// As [`Entry::parse`] without the signature, for bytes whose signature was checked before.
    pub(crate) fn parse_unverified(line: &[u8], chain: &ChainId) -> Result<Self, EntryError> {
        let entry: Self = json::from_slice(line, MAX_ENTRY_BYTES)?;
        entry.check_shape(chain)?;
        Ok(entry)
    }

    fn check_shape(&self, chain: &ChainId) -> Result<(), EntryError> {
        if self.chain != *chain {
            return Err(EntryError::OtherChain {
                expected: *chain,
                got: self.chain,
            });
        }
        if !is_topic(&self.topic) {
            return Err(EntryError::Topic(self.topic.chars().take(80).collect()));
        }
        if !self.body.is_object() {
            return Err(EntryError::BodyNotObject);
        }
        Ok(())
    }

    fn unsigned(&self) -> Result<Vec<u8>, JsonError> {
        json::to_vec(&Unsigned {
            author: &self.author,
            body: &self.body,
            chain: &self.chain,
            nonce: self.nonce,
            topic: &self.topic,
        })
    }

    /// The bytes that the author signs: `instar/entry/v1`, a zero byte, and the canonical JSON without `sig`.
    ///
    /// # Panics
    /// If a body that is no canonical JSON was put in by hand.
    pub fn signed_bytes(&self) -> Vec<u8> {
        with_domain(
            &self
                .unsigned()
                .expect("entries are made by parse or sign, which check the body"),
        )
    }

    /// The entry's id: it names what was said, not the signature under it.
    ///
    /// # Panics
    /// As [`Entry::signed_bytes`].
    pub fn id(&self) -> Digest {
        let bytes = self.signed_bytes();
        Digest::tagged(ENTRY_ID_DOMAIN, &bytes[ENTRY_DOMAIN.len()..])
    }

    /// The canonical line, without a newline.
    ///
    /// # Panics
    /// As [`Entry::signed_bytes`].
    pub fn to_line(&self) -> String {
        json::to_string(self).expect("entries are made by parse or sign, which check the body")
    }
}

fn with_domain(unsigned: &[u8]) -> Vec<u8> {
    [ENTRY_DOMAIN, unsigned].concat()
}
