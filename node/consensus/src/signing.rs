//! Signing and strict verification of the frozen bytes.
//!
//! Malachite's own Ed25519 follows ZIP-215 and accepts signatures that OpenSSH and OpenSSL refuse. Here every vote,
//! proposal and proof passes through the one strict verifier of [`instar_attest::key`].

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use instar_attest::{ChainId, Digest, PublicKey, SecretKey, Signature};
use instar_ledger::Oid;
use instar_ledger::vote::{self, VoteKind};
use malachite_signing::{Error, Signer, VerificationResult, Verifier};
use malachite_types::{NilOrVal, SignedMessage, ValidatorProof, VoteExtensionScope, VoteType};

use crate::context::{BlockId, Ctx, Proposal, Vote};
use crate::marks::{Marks, Step, What};

/// Ed25519 as in RFC 8032, strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ed25519;

/// A signature as it came: whether it holds is decided when it is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sig(pub [u8; 64]);

impl From<Signature> for Sig {
    fn from(signature: Signature) -> Self {
        Self(*signature.as_bytes())
    }
}

impl From<Sig> for Signature {
    fn from(sig: Sig) -> Self {
        Self::from_bytes(sig.0)
    }
}

/// The bytes of a vote, or nothing if its round can't be one that is voted in.
pub(crate) fn vote_bytes(chain: &ChainId, vote: &Vote) -> Option<Vec<u8>> {
    let kind = match vote.kind {
        VoteType::Prevote => VoteKind::Prevote,
        VoteType::Precommit => VoteKind::Precommit,
    };
    let value = match &vote.value {
        NilOrVal::Nil => None,
        NilOrVal::Val(BlockId(oid)) => Some(oid),
    };
    Some(vote::signed_bytes(
        chain,
        kind,
        vote.height.0,
        vote.round.as_u32()?,
        value,
    ))
}

/// The bytes of a proposal, or nothing if its round can't be one that is proposed in.
pub(crate) fn proposal_bytes(chain: &ChainId, p: &Proposal) -> Option<Vec<u8>> {
    let round = p.round.as_u32()?;
    Some(vote::proposal_bytes(
        chain,
        p.height.0,
        round,
        p.pol_round.as_i64(),
        &p.value.0,
    ))
}

/// The strict verifier.
#[derive(Debug, Clone)]
pub(crate) struct Strict {
    pub chain: ChainId,
}

impl Strict {
    fn check(key: &PublicKey, bytes: Option<Vec<u8>>, sig: &Sig) -> VerificationResult {
        let valid = bytes.is_some_and(|b| key.verify(&b, &Signature::from(*sig)).is_ok());
        VerificationResult::from_bool(valid)
    }

    /// Whether `proposal` is signed by the validator it names.
    pub(crate) fn proposal_holds(&self, proposal: &SignedMessage<Ctx, Proposal>) -> bool {
        let key = &proposal.message.proposer.0;
        let bytes = proposal_bytes(&self.chain, &proposal.message);
        Self::check(key, bytes, &proposal.signature).is_valid()
    }

    /// Whether `vote` is signed by the validator it names.
    pub(crate) fn vote_holds(&self, vote: &SignedMessage<Ctx, Vote>) -> bool {
        let key = &vote.message.validator.0;
        Self::check(key, vote_bytes(&self.chain, &vote.message), &vote.signature).is_valid()
    }

    /// Whether `proof` is signed by the key it names.
    pub(crate) fn proof_holds(&self, proof: &ValidatorProof<Ctx>) -> bool {
        let Ok(key) = proof.decoded_public_key() else {
            return false;
        };
        let bytes = vote::validator_proof_bytes(&self.chain, &key, &proof.peer_id);
        Self::check(&key, Some(bytes), &proof.signature).is_valid()
    }
}

#[async_trait]
impl Verifier<Ctx> for Strict {
    async fn verify_signed_vote(
        &self,
        vote: &Vote,
        signature: &Sig,
        key: &PublicKey,
    ) -> Result<VerificationResult, Error> {
        Ok(Self::check(key, vote_bytes(&self.chain, vote), signature))
    }

    async fn verify_signed_proposal(
        &self,
        proposal: &Proposal,
        signature: &Sig,
        key: &PublicKey,
    ) -> Result<VerificationResult, Error> {
        Ok(Self::check(
            key,
            proposal_bytes(&self.chain, proposal),
            signature,
        ))
    }

    async fn verify_signed_vote_extension(
        &self,
        _scope: &VoteExtensionScope<Ctx>,
        _extension: &(),
        _signature: &Sig,
        _key: &PublicKey,
    ) -> Result<VerificationResult, Error> {
        // The kernel has none, so none can be valid.
        Ok(VerificationResult::Invalid)
    }

    async fn verify_validator_proof(
        &self,
        proof: &ValidatorProof<Ctx>,
    ) -> Result<VerificationResult, Error> {
        Ok(VerificationResult::from_bool(self.proof_holds(proof)))
    }
}

/// The consensus key behind its high-water mark. Nothing is signed before the mark is durable.
#[derive(Clone)]
pub(crate) struct Guarded {
    chain: ChainId,
    key: SecretKey,
    marks: Arc<Mutex<Marks>>,
}

impl Guarded {
    pub(crate) fn new(chain: ChainId, key: SecretKey, marks: Arc<Mutex<Marks>>) -> Self {
        Self { chain, key, marks }
    }

    fn mark(&self, height: u64, round: u32, step: Step, what: What) -> Result<What, Error> {
        let mut marks = self
            .marks
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let signed = marks
            .advance(height, round, step, what)
            .map_err(Error::from_source)?;
        if signed != what {
            tracing::warn!(height, round, ?step, ?what, before = ?signed, "signing again what was signed before");
        }
        Ok(signed)
    }

    /// The signature that ends the parts of a proposal. It needs no mark of its own: it says which bytes belong to a
    /// block id that somebody may have proposed, and no vote follows from it.
    pub(crate) fn sign_parts(&self, height: u64, round: u32, block: &Oid, payload: &Digest) -> Sig {
        let bytes = vote::parts_bytes(&self.chain, height, round, block, payload);
        self.key.sign(&bytes).into()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a message without a round is never signed")]
struct NoRound;

#[derive(Debug, thiserror::Error)]
#[error("the consensus kernel has no vote extensions")]
struct NoExtensions;

#[async_trait]
impl Signer<Ctx> for Guarded {
    async fn sign_vote(&self, mut vote: Vote) -> Result<SignedMessage<Ctx, Vote>, Error> {
        let step = match vote.kind {
            VoteType::Prevote => Step::Prevote,
            VoteType::Precommit => Step::Precommit,
        };
        let no_round = || Error::from_source(NoRound);
        let round = vote.round.as_u32().ok_or_else(no_round)?;
        let block = match vote.value {
            NilOrVal::Nil => None,
            NilOrVal::Val(BlockId(block)) => Some(block),
        };
        let signed = self.mark(
            vote.height.0,
            round,
            step,
            What {
                block,
                pol_round: -1,
            },
        )?;
        vote.value = signed
            .block
            .map_or(NilOrVal::Nil, |block| NilOrVal::Val(BlockId(block)));
        let bytes = vote_bytes(&self.chain, &vote).ok_or_else(no_round)?;
        Ok(SignedMessage::new(vote, self.key.sign(&bytes).into()))
    }

    async fn sign_proposal(&self, mut p: Proposal) -> Result<SignedMessage<Ctx, Proposal>, Error> {
        let no_round = || Error::from_source(NoRound);
        let round = p.round.as_u32().ok_or_else(no_round)?;
        let what = What {
            block: Some(p.value.0),
            pol_round: p.pol_round.as_i64(),
        };
        let signed = self.mark(p.height.0, round, Step::Propose, what)?;
        p.value = signed.block.map_or(p.value, BlockId);
        p.pol_round = signed.pol_round.into();
        let bytes = proposal_bytes(&self.chain, &p).ok_or_else(no_round)?;
        Ok(SignedMessage::new(p, self.key.sign(&bytes).into()))
    }

    async fn sign_vote_extension(
        &self,
        _scope: VoteExtensionScope<Ctx>,
        _extension: (),
    ) -> Result<SignedMessage<Ctx, ()>, Error> {
        Err(Error::from_source(NoExtensions))
    }

    async fn sign_validator_proof(
        &self,
        public_key: Vec<u8>,
        peer_id: Vec<u8>,
    ) -> Result<ValidatorProof<Ctx>, Error> {
        let bytes = vote::validator_proof_bytes(&self.chain, &self.key.public(), &peer_id);
        Ok(ValidatorProof::new(
            public_key,
            peer_id,
            self.key.sign(&bytes).into(),
        ))
    }
}

#[cfg(test)]
#[path = "signing_tests.rs"]
mod tests;
