//! Evidence that a device said two things at one place of its lane, which anybody can check.
//!
//! What is compared are *signed payloads*, never commit ids: git lets anybody wrap one signed payload into several
//! commits with different ids, and that must not frame an honest device. The evidence fits an entry.

use instar_attest::key::SignatureError;
use instar_attest::{ChainId, PublicKey, Signature};
use serde::{Deserialize, Serialize};

use crate::grammar::{GrammarError, LanePayload, SignedLaneCommit};
use crate::lane::Lane;
use crate::sshsig::SshSig;

/// One signed payload of a lane commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// The key that signed.
    pub key: PublicKey,
    /// The commit's text without its signature header.
    pub payload: String,
    /// Over the payload, as SSHSIG signs it: see [`crate::sshsig::message`].
    pub sig: Signature,
}

/// Two payloads for the same chain, lane and sequence number. The lesser payload stands first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The lesser payload.
    pub a: Signed,
    /// The greater payload.
    pub b: Signed,
}

/// What valid evidence proves. Whether `keys` were the device's lane keys is for the state machine to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Equivocation {
    /// The lane.
    pub lane: Lane,
    /// Where.
    pub seq: u64,
    /// The keys of the two signatures: the same, unless the device's key was rotated in between.
    pub keys: [PublicKey; 2],
}

/// Why something is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A payload that is no lane commit of this chain.
    #[error("a payload is no lane commit of this chain: {0}")]
    Payload(#[from] GrammarError),
    /// A signature that does not hold.
    #[error("a payload's signature: {0}")]
    Signature(#[from] SignatureError),
    /// The two say different places.
    #[error("the payloads are of lane {} at {} and of lane {} at {}", .0.0, .0.1, .1.0, .1.1)]
    OtherPlace((Lane, u64), (Lane, u64)),
    /// The same thing twice, perhaps wrapped into two commits: that is nobody's fault.
    #[error("both payloads are the same: a commit wrapped in two ways is no equivocation")]
    SamePayload,
    /// Evidence has one spelling: the lesser payload first.
    #[error("the greater payload stands first")]
    Order,
}

impl Evidence {
    /// Takes the evidence out of two lane commits' bytes.
    pub fn of(chain: &ChainId, one: &[u8], other: &[u8]) -> Result<Self, EvidenceError> {
        let a = Signed::of(SignedLaneCommit::from_bytes(one, chain)?);
        let b = Signed::of(SignedLaneCommit::from_bytes(other, chain)?);
        let evidence = if a.payload <= b.payload {
            Self { a, b }
        } else {
            Self { a: b, b: a }
        };
        evidence.check(chain)?;
        Ok(evidence)
    }

    /// Checks it, from nothing but itself and the chain's id.
    pub fn check(&self, chain: &ChainId) -> Result<Equivocation, EvidenceError> {
        if self.a.payload == self.b.payload {
            return Err(EvidenceError::SamePayload);
        }
        if self.a.payload > self.b.payload {
            return Err(EvidenceError::Order);
        }
        let [a, b] = [self.a.read(chain)?, self.b.read(chain)?];
        if (a.lane, a.seq) != (b.lane, b.seq) {
            return Err(EvidenceError::OtherPlace((a.lane, a.seq), (b.lane, b.seq)));
        }
        Ok(Equivocation {
            lane: a.lane,
            seq: a.seq,
            keys: [self.a.key, self.b.key],
        })
    }
}

impl Signed {
    fn of(commit: SignedLaneCommit) -> Self {
        let payload = commit.payload.to_bytes();
        Self {
            key: commit.sig.key,
            payload: String::from_utf8(payload).expect("payloads are written as text"),
            sig: commit.sig.sig,
        }
    }

    fn read(&self, chain: &ChainId) -> Result<LanePayload, EvidenceError> {
        let bytes = self.payload.as_bytes();
        let payload = LanePayload::from_bytes(bytes, chain)?;
        let sig = SshSig {
            key: self.key,
            sig: self.sig,
        };
        sig.verify(bytes)?;
        Ok(payload)
    }
}
