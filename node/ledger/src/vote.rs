//! What consensus keys sign, byte by byte. These bytes belong to the frozen kernel.

use instar_attest::{ChainId, Digest, PublicKey};

use crate::oid::Oid;

/// The domain of votes.
pub const VOTE_DOMAIN: &[u8] = b"instar/vote/v1\0";
/// The domain of proposals.
pub const PROPOSAL_DOMAIN: &[u8] = b"instar/proposal/v1\0";
/// The domain of the end of a proposal's parts.
pub const PARTS_DOMAIN: &[u8] = b"instar/parts/v1\0";
/// The domain of a validator's proof that it owns a peer id.
pub const VALIDATOR_PROOF_DOMAIN: &[u8] = b"instar/validator-proof/v1\0";

/// The two kinds of BFT votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum VoteKind {
    /// The merge test passed here.
    Prevote = 1,
    /// Over two thirds prevoted it.
    Precommit = 2,
}

/// `domain ‖ chain ‖ kind ‖ height u64 BE ‖ round u32 BE ‖ 0 or 1 ‖ block id, or 32 zero bytes`.
pub fn signed_bytes(
    chain: &ChainId,
    kind: VoteKind,
    height: u64,
    round: u32,
    value: Option<&Oid>,
) -> Vec<u8> {
    let mut out = VOTE_DOMAIN.to_vec();
    out.extend(chain.as_bytes());
    out.push(kind as u8);
    out.extend(height.to_be_bytes());
    out.extend(round.to_be_bytes());
    out.push(u8::from(value.is_some()));
    out.extend(value.map_or(&[0; 32], Oid::as_bytes));
    out
}

/// `domain ‖ chain ‖ height u64 BE ‖ round u32 BE ‖ pol_round i64 BE (-1: none) ‖ block id`.
pub fn proposal_bytes(
    chain: &ChainId,
    height: u64,
    round: u32,
    pol_round: i64,
    block: &Oid,
) -> Vec<u8> {
    let mut out = PROPOSAL_DOMAIN.to_vec();
    out.extend(chain.as_bytes());
    out.extend(height.to_be_bytes());
    out.extend(round.to_be_bytes());
    out.extend(pol_round.to_be_bytes());
    out.extend(block.as_bytes());
    out
}

/// `domain ‖ chain ‖ height u64 BE ‖ round u32 BE ‖ block id ‖ SHA-256 of the payload`.
pub fn parts_bytes(
    chain: &ChainId,
    height: u64,
    round: u32,
    block: &Oid,
    payload: &Digest,
) -> Vec<u8> {
    let mut out = PARTS_DOMAIN.to_vec();
    out.extend(chain.as_bytes());
    out.extend(height.to_be_bytes());
    out.extend(round.to_be_bytes());
    out.extend(block.as_bytes());
    out.extend(payload.as_bytes());
    out
}

/// `domain ‖ chain ‖ consensus key ‖ peer id`.
pub fn validator_proof_bytes(chain: &ChainId, key: &PublicKey, peer_id: &[u8]) -> Vec<u8> {
    let mut out = VALIDATOR_PROOF_DOMAIN.to_vec();
    out.extend(chain.as_bytes());
    out.extend(key.as_bytes());
    out.extend(peer_id);
    out
}
