//! What the codec overhears: how far the peers say they are, certificates of prevotes, and whose keys the peers hold.
//!
//! The engine keeps the first two to itself, and loses the third while it starts, so they are noted where they are
//! decoded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use instar_ledger::Oid;
use malachite_app::types::PeerId;
use malachite_types::{PolkaCertificate, Validator as _, ValidatorProof, ValidatorSet as _};
use tokio::sync::Notify;

use crate::context::{Ctx, Members};
use crate::signing::Strict;

/// Peers whose height is remembered. A validator has far fewer.
const MAX_PEERS: usize = 1024;

/// The newest height that each peer named. A claim, not a proof: it is a reason to look, and nothing more.
#[derive(Debug, Default)]
pub(crate) struct Tips {
    heights: Mutex<BTreeMap<PeerId, u64>>,
    changed: Notify,
}

impl Tips {
    pub(crate) fn note(&self, peer: PeerId, height: u64) {
        let mut heights = self.heights.lock().unwrap_or_else(PoisonError::into_inner);
        if heights.len() >= MAX_PEERS && !heights.contains_key(&peer) {
            return;
        }
        // Never back: what is decoded is not yet known to come from the peer it names.
        let height = height.max(heights.get(&peer).copied().unwrap_or(0));
        if heights.insert(peer, height) != Some(height) {
            self.changed.notify_one();
        }
    }

    /// The highest claim.
    pub(crate) fn highest(&self) -> u64 {
        let heights = self.heights.lock().unwrap_or_else(PoisonError::into_inner);
        heights.values().copied().max().unwrap_or(0)
    }

    /// The claim of one peer, by the bytes of its id.
    pub(crate) fn of(&self, peer: &[u8]) -> Option<u64> {
        let peer = PeerId::from_bytes(peer).ok()?;
        let heights = self.heights.lock().unwrap_or_else(PoisonError::into_inner);
        heights.get(&peer).copied()
    }

    /// Waits for a claim that is new.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Keeps what is new, and the newest `most` of it.
fn keep<T: Clone + PartialEq>(kept: &Mutex<VecDeque<T>>, new: &T, most: usize) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.contains(new) {
        return;
    }
    if kept.len() >= most {
        kept.pop_front();
    }
    kept.push_back(new.clone());
}

/// Certificates that are remembered: a few rounds of one height.
const MAX_POLKAS: usize = 16;

/// Certificates of prevotes, as they came; nothing about them is checked until somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Polkas(Mutex<VecDeque<PolkaCertificate<Ctx>>>);

impl Polkas {
    pub(crate) fn note(&self, certificate: &PolkaCertificate<Ctx>) {
        keep(&self.0, certificate, MAX_POLKAS);
    }

    /// Whether more than two thirds of the power are known to have prevoted this block in this round.
    pub(crate) fn hold(
        &self,
        (height, round, block): (u64, u32, Oid),
        members: &Members,
        verifier: &Strict,
    ) -> bool {
        let polkas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |c: &&PolkaCertificate<Ctx>| {
            c.height.0 == height && c.round.as_u32() == Some(round) && c.value_id.0 == block
        };
        polkas.iter().filter(fits).any(|certificate| {
            let mut signers = BTreeSet::new();
            let mut power = 0;
            for vote in certificate.votes(&Ctx) {
                let Some(member) = members.get_by_address(&vote.message.validator) else {
                    return false;
                };
                if signers.insert(vote.message.validator) && verifier.vote_holds(&vote) {
                    power += member.voting_power();
                }
            }
            u128::from(power) * 3 > u128::from(members.total_voting_power()) * 2
        })
    }
}

/// Proofs that are remembered. A validator has far fewer peers; one that comes back has another name, so that its old
/// proof is of no more use, and the oldest goes first.
const MAX_PROOFS: usize = 1024;

/// The peers' proofs of their consensus keys, as they came; nothing about them is checked until somebody asks.
///
/// The engine's network listens before its consensus does. A proof that arrives in between is heard by nobody there, and
/// a peer that stays connected does not send it again.
#[derive(Debug, Default)]
pub(crate) struct Proofs(Mutex<VecDeque<ValidatorProof<Ctx>>>);

impl Proofs {
    pub(crate) fn note(&self, proof: &ValidatorProof<Ctx>) {
        keep(&self.0, proof, MAX_PROOFS);
    }

    /// The consensus key that this peer, named by the bytes of its id, proved to hold.
    pub(crate) fn of(&self, peer: &[u8], verifier: &Strict) -> Option<Vec<u8>> {
        let proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proofs
            .iter()
            .find(|proof| proof.peer_id == peer && verifier.proof_holds(proof))
            .map(|proof| proof.public_key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Address, BlockId, Height, Vote};
    use crate::signing::vote_bytes;
    use instar_attest::{ChainId, SecretKey};
    use instar_ledger::{Validator, ValidatorSet};
    use malachite_types::{NilOrVal, Round, SignedMessage, VoteType};

    const HEIGHT: u64 = 7;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn members() -> Members {
        let validator = |n| Validator {
            key: key(n).public(),
            power: 1,
        };
        Members::from(&ValidatorSet::new((1..=4).map(validator).collect()).unwrap())
    }

    fn block() -> Oid {
        Oid::from_bytes([0xb1; 32])
    }

    fn verifier() -> Strict {
        Strict {
            chain: ChainId::from_bytes([1; 32]),
        }
    }

    fn polka(signers: &[u8]) -> PolkaCertificate<Ctx> {
        let votes = signers.iter().map(|n| {
            let vote = Vote {
                kind: VoteType::Prevote,
                height: Height(HEIGHT),
                round: Round::new(0),
                value: NilOrVal::Val(BlockId(block())),
                validator: Address(key(*n).public()),
            };
            let sig = key(*n).sign(&vote_bytes(&verifier().chain, &vote).unwrap());
            SignedMessage::new(vote, sig.into())
        });
        PolkaCertificate::new(
            Height(HEIGHT),
            Round::new(0),
            BlockId(block()),
            votes.collect(),
        )
    }

    fn holds(certificate: &PolkaCertificate<Ctx>) -> bool {
        let polkas = Polkas::default();
        polkas.note(certificate);
        let other = (HEIGHT, 0, Oid::from_bytes([0; 32]));
        assert!(!polkas.hold(other, &members(), &verifier()));
        polkas.hold((HEIGHT, 0, block()), &members(), &verifier())
    }

    #[test]
    fn a_quorum_of_prevotes_justifies_a_block_and_less_does_not() {
        assert!(holds(&polka(&[1, 2, 3])));
        assert!(!holds(&polka(&[1, 2])));
        assert!(!holds(&polka(&[1, 2, 2])), "a signer counts once");
        assert!(!holds(&polka(&[1, 2, 9])), "a stranger does not count");
        let mut forged = polka(&[1, 2, 3]);
        forged.polka_signatures[2].signature = forged.polka_signatures[1].signature;
        assert!(!holds(&forged));
    }

    #[test]
    fn a_forged_certificate_does_not_hide_the_real_one() {
        let polkas = Polkas::default();
        let mut forged = polka(&[1, 2, 3]);
        forged.polka_signatures[0].signature = forged.polka_signatures[1].signature;
        polkas.note(&forged);
        polkas.note(&polka(&[1, 2, 3]));
        polkas.note(&forged);
        assert!(polkas.hold((HEIGHT, 0, block()), &members(), &verifier()));
    }

    #[test]
    fn only_the_holder_of_a_key_proves_it_for_a_peer() {
        let proof = |n: u8, peer: &[u8]| {
            let bytes = instar_ledger::vote::validator_proof_bytes(
                &verifier().chain,
                &key(n).public(),
                peer,
            );
            let public = key(n).public().as_bytes().to_vec();
            ValidatorProof::<Ctx>::new(public, peer.to_vec(), key(n).sign(&bytes).into())
        };
        let proofs = Proofs::default();
        let mut forged = proof(2, b"peer");
        forged.public_key = key(3).public().as_bytes().to_vec();
        let mut stolen = proof(2, b"peer");
        stolen.peer_id = b"thief".to_vec();
        // What does not hold hides nothing that does.
        for proof in [&forged, &stolen, &proof(1, b"peer")] {
            proofs.note(proof);
        }
        let proven = |peer: &[u8]| proofs.of(peer, &verifier());
        assert_eq!(proven(b"peer"), Some(key(1).public().as_bytes().to_vec()));
        assert_eq!(proven(b"thief"), None);
        let fork = Strict {
            chain: ChainId::from_bytes([2; 32]),
        };
        assert_eq!(proofs.of(b"peer", &fork), None);
        for n in 0..MAX_PROOFS {
            proofs.note(&proof(1, &n.to_be_bytes()));
        }
        assert_eq!(proven(b"peer"), None, "the oldest goes");
    }

    #[test]
    fn a_peers_height_never_goes_back() {
        let tips = Tips::default();
        let peer = PeerId::from_bytes(&[0, 2, 1, 2]).unwrap();
        tips.note(peer, 9);
        tips.note(peer, 3);
        assert_eq!((tips.highest(), tips.of(&[0, 2, 1, 2])), (9, Some(9)));
    }
}
