//! The nouns that Malachite decides with: height, address, value, validator, proposal, vote.

use std::fmt;

use instar_attest::PublicKey;
use instar_ledger::{Oid, ValidatorSet as LedgerSet};
use malachite_types::{NilOrVal, Round, SignedExtension, VoteType, VotingPower};

use crate::parts::Part;
use crate::signing::{Ed25519, Sig};

/// Malachite's view of an Instar chain. The chain id is not here: it is in every signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ctx;

/// A block's height; the genesis commit is 0, the first block is 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Height(pub u64);

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl malachite_types::Height for Height {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(1);

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

/// A validator's address is its consensus key itself: nothing to look up, nothing to collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address(pub PublicKey);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl malachite_types::Address for Address {}

/// What is decided: a block's commit id. It is its own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockId(pub Oid);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl malachite_types::Value for BlockId {
    type Id = Self;

    fn id(&self) -> Self {
        *self
    }
}

/// One validator of a height.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    address: Address,
    power: VotingPower,
}

impl malachite_types::Validator<Ctx> for Member {
    fn address(&self) -> &Address {
        &self.address
    }

    fn public_key(&self) -> &PublicKey {
        &self.address.0
    }

    fn voting_power(&self) -> VotingPower {
        self.power
    }
}

/// The validators of a height, sorted by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members(Vec<Member>);

impl From<&LedgerSet> for Members {
    fn from(set: &LedgerSet) -> Self {
        let member = |v: &instar_ledger::Validator| Member {
            address: Address(v.key),
            power: v.power,
        };
        Self(set.iter().map(member).collect())
    }
}

impl Members {
    /// Round robin over the keys in order; each height begins one further, each round goes one further. Power does not
    /// count here: a large validator that is down must not hold several rounds in a row.
    pub(crate) fn proposer(&self, height: Height, round: Round) -> &Member {
        let round = u64::from(round.as_u32().unwrap_or(0));
        let turn = (height.0 % self.0.len() as u64 + round) % self.0.len() as u64;
        &self.0[turn as usize]
    }
}

impl malachite_types::ValidatorSet<Ctx> for Members {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn total_voting_power(&self) -> VotingPower {
        self.0.iter().map(|v| v.power).sum()
    }

    fn get_by_address(&self, address: &Address) -> Option<&Member> {
        let found = self.0.binary_search_by_key(address, |v| v.address);
        found.ok().map(|i| &self.0[i])
    }

    fn get_by_index(&self, index: usize) -> Option<&Member> {
        self.0.get(index)
    }
}

/// A proposal message; its payload travels in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub height: Height,
    pub round: Round,
    pub value: BlockId,
    pub pol_round: Round,
    pub proposer: Address,
}

impl malachite_types::Proposal<Ctx> for Proposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &BlockId {
        &self.value
    }

    fn take_value(self) -> BlockId {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.pol_round
    }

    fn validator_address(&self) -> &Address {
        &self.proposer
    }
}

/// A prevote or a precommit, for a block or for nil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vote {
    pub kind: VoteType,
    pub height: Height,
    pub round: Round,
    pub value: NilOrVal<BlockId>,
    pub validator: Address,
}

impl malachite_types::Vote<Ctx> for Vote {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<BlockId> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<BlockId> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Address {
        &self.validator
    }

    // The kernel has no vote extensions: a vote is exactly its signed bytes.
    fn extension(&self) -> Option<&SignedExtension<Ctx>> {
        None
    }

    fn take_extension(&mut self) -> Option<SignedExtension<Ctx>> {
        None
    }

    fn extend(self, _extension: SignedExtension<Ctx>) -> Self {
        self
    }
}

impl malachite_types::SigningScheme for Ed25519 {
    type DecodingError = &'static str;
    type Signature = Sig;
    type PublicKey = PublicKey;
    type PrivateKey = ();

    fn decode_signature(bytes: &[u8]) -> Result<Sig, Self::DecodingError> {
        let bytes = bytes.try_into().map_err(|_| "a signature has 64 bytes")?;
        Ok(Sig(bytes))
    }

    fn encode_signature(signature: &Sig) -> Vec<u8> {
        signature.0.to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, Self::DecodingError> {
        let bytes = bytes.try_into().map_err(|_| "a public key has 32 bytes")?;
        Ok(PublicKey::from_bytes(bytes))
    }

    fn encode_public_key(key: &PublicKey) -> Vec<u8> {
        key.as_bytes().to_vec()
    }
}

impl malachite_types::Context for Ctx {
    type Address = Address;
    type Height = Height;
    type ProposalPart = Part;
    type Proposal = Proposal;
    type Validator = Member;
    type ValidatorSet = Members;
    type Timeouts = malachite_types::LinearTimeouts;
    type Value = BlockId;
    type Vote = Vote;
    type Extension = ();
    type SigningScheme = Ed25519;

    fn select_proposer<'a>(&self, set: &'a Members, height: Height, round: Round) -> &'a Member {
        set.proposer(height, round)
    }

    fn new_proposal(
        &self,
        height: Height,
        round: Round,
        value: BlockId,
        pol_round: Round,
        proposer: Address,
    ) -> Proposal {
        Proposal {
            height,
            round,
            value,
            pol_round,
            proposer,
        }
    }

    fn new_prevote(
        &self,
        height: Height,
        round: Round,
        value: NilOrVal<BlockId>,
        validator: Address,
    ) -> Vote {
        Vote {
            kind: VoteType::Prevote,
            height,
            round,
            value,
            validator,
        }
    }

    fn new_precommit(
        &self,
        height: Height,
        round: Round,
        value: NilOrVal<BlockId>,
        validator: Address,
    ) -> Vote {
        Vote {
            kind: VoteType::Precommit,
            height,
            round,
            value,
            validator,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use instar_ledger::Validator;
    use malachite_types::Validator as _;

    #[test]
    fn every_validator_gets_its_turn_whatever_its_power() {
        let validators = (1..=4u8).map(|i| Validator {
            key: PublicKey::from_bytes([i; 32]),
            power: u64::from(i) * 1_000_000,
        });
        let set = LedgerSet::new(validators.collect()).unwrap();
        let members = Members::from(&set);
        let turn = |h, r| {
            members
                .proposer(Height(h), Round::new(r))
                .address()
                .0
                .as_bytes()[0]
        };
        let by_height: Vec<u8> = (4..8).map(|h| turn(h, 0)).collect();
        assert_eq!(by_height, [1, 2, 3, 4]);
        let by_round: Vec<u8> = (0..4).map(|r| turn(4, r)).collect();
        assert_eq!(by_round, [1, 2, 3, 4]);
        // The largest height and round still have a proposer.
        turn(u64::MAX, u32::MAX);
    }
}
