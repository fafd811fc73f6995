//! Attacks on the signed bytes, each named after what is tried.

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use curve25519_dalek::traits::IsIdentity;
use malachite_types::Round;
use sha2::{Digest as _, Sha512};

use super::*;
use crate::context::{Address, Height};

fn chain(n: u8) -> ChainId {
    ChainId::from_bytes([n; 32])
}

fn vote(key: PublicKey) -> Vote {
    Vote {
        kind: VoteType::Precommit,
        height: Height(7),
        round: Round::new(0),
        value: NilOrVal::Val(BlockId(Oid::from_bytes([0xb1; 32]))),
        validator: Address(key),
    }
}

fn holds(chain_id: ChainId, vote: &Vote, sig: [u8; 64]) -> bool {
    let verifier = Strict { chain: chain_id };
    verifier.vote_holds(&SignedMessage::new(vote.clone(), Sig(sig)))
}

fn challenge(r: &[u8; 32], key: &PublicKey, message: &[u8]) -> Scalar {
    let hash = Sha512::new()
        .chain_update(r)
        .chain_update(key.as_bytes())
        .chain_update(message);
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

/// The cofactored equation of ZIP-215: eight times the difference must vanish.
fn lax_accepts(key: &PublicKey, message: &[u8], sig: &[u8; 64]) -> bool {
    let (r, s): ([u8; 32], [u8; 32]) =
        (sig[..32].try_into().unwrap(), sig[32..].try_into().unwrap());
    let point = |bytes| CompressedEdwardsY(bytes).decompress().unwrap();
    let s = Option::<Scalar>::from(Scalar::from_canonical_bytes(s)).unwrap();
    let k = challenge(&r, key, message);
    let difference = ED25519_BASEPOINT_POINT * s - point(r) - point(*key.as_bytes()) * k;
    difference.mul_by_cofactor().is_identity()
}

#[test]
fn a_signature_that_only_a_lax_verifier_accepts() {
    let key = SecretKey::from_seed(&[1; 32]);
    let public = key.public();
    let vote = vote(public);
    let message = vote_bytes(&chain(1), &vote).unwrap();
    let expanded = Sha512::digest([1u8; 32]);
    let secret = Scalar::from_bytes_mod_order(clamp_integer(expanded[..32].try_into().unwrap()));
    // R gets a component of order eight, which the cofactored equation does not see.
    let nonce = Scalar::from(123_456_789u64);
    let r = (ED25519_BASEPOINT_POINT * nonce + EIGHT_TORSION[1])
        .compress()
        .to_bytes();
    let s = nonce + challenge(&r, &public, &message) * secret;
    let sig: [u8; 64] = [r, s.to_bytes()].concat().try_into().unwrap();
    assert!(
        lax_accepts(&public, &message, &sig),
        "the attack itself is broken"
    );
    assert!(!holds(chain(1), &vote, sig));
}

#[test]
fn a_key_of_small_order_signs_anything_for_a_lax_verifier() {
    let public = PublicKey::from_bytes(EIGHT_TORSION[1].compress().to_bytes());
    let vote = vote(public);
    let message = vote_bytes(&chain(1), &vote).unwrap();
    let mut sig = [0; 64];
    sig[0] = 1; // R is the identity, S is zero.
    assert!(
        lax_accepts(&public, &message, &sig),
        "the attack itself is broken"
    );
    assert!(!holds(chain(1), &vote, sig));
}

#[test]
fn a_signature_with_s_not_reduced() {
    let key = SecretKey::from_seed(&[1; 32]);
    let vote = vote(key.public());
    let honest = *key.sign(&vote_bytes(&chain(1), &vote).unwrap()).as_bytes();
    assert!(holds(chain(1), &vote, honest));
    // S + L is the same number modulo the group's order.
    let order: [u8; 32] =
        hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
            .unwrap()
            .try_into()
            .unwrap();
    let mut malleable = honest;
    let mut carry = 0u16;
    for (byte, add) in malleable[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert!(!holds(chain(1), &vote, malleable));
}

#[test]
fn a_vote_from_a_fork() {
    let key = SecretKey::from_seed(&[1; 32]);
    let vote = vote(key.public());
    let sig = *key.sign(&vote_bytes(&chain(2), &vote).unwrap()).as_bytes();
    assert!(holds(chain(2), &vote, sig));
    assert!(!holds(chain(1), &vote, sig));
}

#[test]
fn a_vote_changed_in_one_field() {
    let key = SecretKey::from_seed(&[1; 32]);
    let vote = vote(key.public());
    let sig = *key.sign(&vote_bytes(&chain(1), &vote).unwrap()).as_bytes();
    let zero = NilOrVal::Val(BlockId(Oid::from_bytes([0; 32])));
    for changed in [
        Vote {
            kind: VoteType::Prevote,
            ..vote.clone()
        },
        Vote {
            height: Height(8),
            ..vote.clone()
        },
        Vote {
            round: Round::new(1),
            ..vote.clone()
        },
        Vote {
            round: Round::Nil,
            ..vote.clone()
        },
        Vote {
            value: NilOrVal::Nil,
            ..vote.clone()
        },
        Vote {
            value: zero,
            ..vote.clone()
        },
        Vote {
            validator: Address(SecretKey::from_seed(&[2; 32]).public()),
            ..vote.clone()
        },
    ] {
        assert!(!holds(chain(1), &changed, sig), "{changed:?}");
    }
    // Nil and the id of zeros are different statements, though both have zeros in the signed bytes.
    let nil = vote_bytes(
        &chain(1),
        &Vote {
            value: NilOrVal::Nil,
            ..vote.clone()
        },
    );
    assert_ne!(
        nil,
        vote_bytes(
            &chain(1),
            &Vote {
                value: zero,
                ..vote
            }
        )
    );
}

#[test]
fn a_key_used_for_another_purpose() {
    // Bytes of every domain, signed by the consensus key: none of them is a vote.
    let key = SecretKey::from_seed(&[1; 32]);
    let vote = vote(key.public());
    let block = Oid::from_bytes([0xb1; 32]);
    let own = chain(1);
    for other in [
        vote::proposal_bytes(&own, 7, 0, -1, &block),
        vote::parts_bytes(&own, 7, 0, &block, &Digest::of(b"")),
        vote::validator_proof_bytes(&own, &key.public(), b"peer"),
        [b"instar/entry/v1\0".as_slice(), b"{}"].concat(),
    ] {
        assert!(!holds(own, &vote, *key.sign(&other).as_bytes()));
    }
}

#[tokio::test]
async fn a_validator_proof_of_another_peer() {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::from_seed(&[1; 32]);
    let marks = Marks::create(dir.path(), key.public(), 0).unwrap();
    let signer = Guarded::new(chain(1), key.clone(), Arc::new(Mutex::new(marks)));
    let public = key.public().as_bytes().to_vec();
    let mut proof = signer
        .sign_validator_proof(public, b"peer".to_vec())
        .await
        .unwrap();
    let verifier = Strict { chain: chain(1) };
    assert!(
        verifier
            .verify_validator_proof(&proof)
            .await
            .unwrap()
            .is_valid()
    );
    let fork = Strict { chain: chain(2) };
    assert!(
        fork.verify_validator_proof(&proof)
            .await
            .unwrap()
            .is_invalid()
    );
    proof.peer_id = b"thief".to_vec();
    assert!(
        verifier
            .verify_validator_proof(&proof)
            .await
            .unwrap()
            .is_invalid()
    );
}

#[tokio::test]
async fn two_different_votes_for_one_round_never_leave() {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::from_seed(&[1; 32]);
    let marks = Marks::create(dir.path(), key.public(), 0).unwrap();
    let signer = Guarded::new(chain(1), key.clone(), Arc::new(Mutex::new(marks)));
    let first = signer.sign_vote(vote(key.public())).await.unwrap();
    let other = Vote {
        value: NilOrVal::Nil,
        ..vote(key.public())
    };
    let second = signer.sign_vote(other).await.unwrap();
    assert_eq!(first, second);
    assert!(Strict { chain: chain(1) }.vote_holds(&second));
    let before = Vote {
        height: Height(6),
        ..vote(key.public())
    };
    assert!(signer.sign_vote(before).await.is_err());
}
