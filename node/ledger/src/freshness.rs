//! Whether a follower is up to date: validators sign its nonce with the head that they know.
//!
//! Certificates prove that a block is final, never that it is the newest: whoever is shut in with liars sees an old chain
//! and nothing wrong with it. So a follower asks validators. As soon as those who know of nothing newer than it does have
//! more than a third of the power, an honest one is among them, and the follower is as fresh as its question.

use std::collections::BTreeMap;

use instar_attest::key::SignatureError;
use instar_attest::{ChainId, Digest, PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};

use crate::oid::Oid;
use crate::validators::ValidatorSet;

/// The domain of what a validator says about its head.
pub const HEAD_DOMAIN: &[u8] = b"instar/head/v1\0";
/// The largest [`SignedHead`] as JSON, in bytes.
pub const MAX_SIGNED_HEAD_BYTES: usize = 1024;

/// `domain ‖ chain ‖ nonce ‖ height u64 BE ‖ block id`.
pub fn head_bytes(chain: &ChainId, nonce: &Digest, height: u64, block: &Oid) -> Vec<u8> {
    let mut out = HEAD_DOMAIN.to_vec();
    out.extend(chain.as_bytes());
    out.extend(nonce.as_bytes());
    out.extend(height.to_be_bytes());
    out.extend(block.as_bytes());
    out
}

/// A validator's answer: the newest block that is final for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// The block's id.
    pub block: Oid,
    /// Its height.
    pub height: u64,
    /// By the validator's consensus key, over [`head_bytes`].
    pub sig: Signature,
    /// The validator's consensus key.
    pub validator: PublicKey,
}

impl SignedHead {
    /// Answers a question.
    pub fn sign(chain: &ChainId, key: &SecretKey, nonce: &Digest, height: u64, block: Oid) -> Self {
        Self {
            block,
            height,
            sig: key.sign(&head_bytes(chain, nonce, height, &block)),
            validator: key.public(),
        }
    }

    /// Checks that it answers this question.
    pub fn verify(&self, chain: &ChainId, nonce: &Digest) -> Result<(), SignatureError> {
        let bytes = head_bytes(chain, nonce, self.height, &self.block);
        self.validator.verify(&bytes, &self.sig)
    }
}

/// What the answers to one question come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing was final beyond the own head when the question was asked, by at least one honest validator's word.
    Fresh,
    /// Not enough validators say so.
    Unknown {
        /// The power of those who do.
        power: u64,
        /// The power of all.
        of: u64,
        /// The greatest height that anybody claims; a claim, and no more.
        claimed: u64,
    },
}

/// Weighs answers that were verified. A validator counts once, by the greatest height it said; one that names another block
/// at the own height counts for nothing, nor does a stranger.
pub fn weigh(set: &ValidatorSet, height: u64, head: &Oid, answers: &[SignedHead]) -> Freshness {
    let mut said: BTreeMap<PublicKey, &SignedHead> = BTreeMap::new();
    for answer in answers {
        let known = said.entry(answer.validator).or_insert(answer);
        if answer.height > known.height {
            *known = answer;
        }
    }
    let power: u64 = said
        .values()
        .filter(|a| a.height < height || (a.height == height && a.block == *head))
        .filter_map(|a| set.power_of(&a.validator))
        .sum();
    let of = set.total_power();
    if u128::from(power) * 3 > u128::from(of) {
        return Freshness::Fresh;
    }
    Freshness::Unknown {
        power,
        of,
        claimed: said.values().map(|a| a.height).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validators::Validator;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn set() -> ValidatorSet {
        let all = (1..=4).map(|n| Validator {
            key: key(n).public(),
            power: 1,
        });
        ValidatorSet::new(all.collect()).unwrap()
    }

    fn oid(n: u8) -> Oid {
        Oid::from_bytes([n; 32])
    }

    fn says(n: u8, height: u64, block: u8) -> SignedHead {
        let chain = ChainId::from_bytes([9; 32]);
        SignedHead::sign(&chain, &key(n), &Digest::of(b"nonce"), height, oid(block))
    }

    #[test]
    fn two_of_four_who_know_nothing_newer_are_enough() {
        let weigh = |answers: &[SignedHead]| weigh(&set(), 7, &oid(7), answers);
        assert_eq!(weigh(&[says(1, 7, 7), says(2, 6, 6)]), Freshness::Fresh);
        // A third who claims more may lie: it has no certificate.
        let liar = says(3, 1_000_000, 1);
        assert_eq!(
            weigh(&[says(1, 7, 7), says(2, 7, 7), liar.clone()]),
            Freshness::Fresh
        );
        let unknown = |power, claimed| Freshness::Unknown {
            power,
            of: 4,
            claimed,
        };
        assert_eq!(weigh(&[says(1, 7, 7), liar]), unknown(1, 1_000_000));
        assert_eq!(weigh(&[]), unknown(0, 0));
        // The same one twice, a stranger, and somebody who has another block there.
        assert_eq!(weigh(&[says(1, 7, 7), says(1, 6, 6)]), unknown(1, 7));
        assert_eq!(weigh(&[says(1, 7, 7), says(8, 7, 7)]), unknown(1, 7));
        assert_eq!(weigh(&[says(1, 7, 7), says(2, 7, 8)]), unknown(1, 7));
        // Who said two things counts by the newer one.
        assert_eq!(
            weigh(&[says(1, 7, 7), says(2, 6, 6), says(2, 8, 8)]),
            unknown(1, 8)
        );
    }

    #[test]
    fn an_answer_answers_one_question_on_one_chain() {
        let chain = ChainId::from_bytes([9; 32]);
        let nonce = Digest::of(b"nonce");
        let answer = says(1, 7, 7);
        answer.verify(&chain, &nonce).unwrap();
        assert!(answer.verify(&chain, &Digest::of(b"another")).is_err());
        let fork = ChainId::from_bytes([8; 32]);
        assert!(answer.verify(&fork, &nonce).is_err());
        let mut raised = answer.clone();
        raised.height += 1;
        assert!(raised.verify(&chain, &nonce).is_err());
        let mut other = answer;
        other.validator = key(2).public();
        assert!(other.verify(&chain, &nonce).is_err());
    }
}
