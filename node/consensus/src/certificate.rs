//! Commit certificates, from Malachite's form to the ledger's and back.

use instar_attest::PublicKey;
use instar_ledger::{Certificate, CommitSignature};
use malachite_types::{
    CommitCertificate, ExtendedCommitCertificate, ExtendedCommitSignature, NilOrVal, Round,
    SignedVote, ValidatorSet as _, VoteType,
};

use crate::context::{Address, BlockId, Ctx, Height, Members};
use crate::signing::Strict;

/// The ledger's form: sorted by validator, each once.
pub(crate) fn to_ledger(certificate: &CommitCertificate<Ctx>) -> Certificate {
    let signatures = certificate.commit_signatures.iter();
    let mut signatures: Vec<CommitSignature> = signatures
        .map(|s| CommitSignature {
            sig: s.signature.into(),
            validator: s.address.0,
        })
        .collect();
    signatures.sort_by_key(|s| s.validator);
    signatures.dedup_by_key(|s| s.validator);
    Certificate {
        block: certificate.value_id.0,
        height: certificate.height.0,
        round: certificate.round.as_u32().unwrap_or(0),
        signatures,
    }
}

/// Malachite's form, for value sync.
pub(crate) fn to_engine(certificate: &Certificate) -> ExtendedCommitCertificate<Ctx> {
    let signature = |s: &CommitSignature| {
        ExtendedCommitSignature::new(Address(s.validator), s.sig.into(), None)
    };
    ExtendedCommitCertificate {
        height: Height(certificate.height),
        round: Round::new(certificate.round),
        value_id: BlockId(certificate.block),
        commit_signatures: certificate.signatures.iter().map(signature).collect(),
    }
}

/// The newest certificate, while precommits that came too late for it are still added. A quorum alone would leave the
/// slowest validator out of every certificate, and nobody could see from the ledger that it is alive.
#[derive(Debug)]
pub(crate) struct Growing {
    certificate: Certificate,
    members: Members,
    grown: bool,
}

impl Growing {
    pub(crate) fn new(certificate: Certificate, members: Members) -> Self {
        Self {
            certificate,
            members,
            grown: false,
        }
    }

    /// Adds a precommit if it is one for this decision, by a validator who is still missing, and its signature holds.
    pub(crate) fn add(&mut self, vote: &SignedVote<Ctx>, verifier: &Strict) {
        let Certificate {
            block,
            height,
            round,
            signatures,
        } = &mut self.certificate;
        let key: PublicKey = vote.message.validator.0;
        let fits = vote.message.kind == VoteType::Precommit
            && vote.message.height.0 == *height
            && vote.message.round.as_u32() == Some(*round)
            && vote.message.value == NilOrVal::Val(BlockId(*block));
        if !fits
            || self
                .members
                .get_by_address(&vote.message.validator)
                .is_none()
        {
            return;
        }
        let Err(place) = signatures.binary_search_by_key(&key, |s| s.validator) else {
            return;
        };
        if verifier.vote_holds(vote) {
            let signature = CommitSignature {
                sig: vote.signature.into(),
                validator: key,
            };
            signatures.insert(place, signature);
            self.grown = true;
        }
    }

    /// The certificate, if it grew since it was last taken.
    pub(crate) fn take_grown(&mut self) -> Option<Certificate> {
        std::mem::take(&mut self.grown).then(|| self.certificate.clone())
    }
}
