//! What consensus tells about itself.

use instar_attest::PublicKey;
use instar_ledger::Oid;

/// Something that happened; for logs, metrics and tests. Nothing depends on anybody listening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A round began here.
    Round {
        /// The height.
        height: u64,
        /// The round, from 0.
        round: u32,
        /// Whose turn it is to propose.
        proposer: PublicKey,
    },
    /// This node prevoted or precommitted nil, or saw somebody do so.
    Nil {
        /// The height.
        height: u64,
        /// The round.
        round: u32,
        /// Whose vote.
        validator: PublicKey,
    },
    /// A candidate failed the merge test here.
    Refused {
        /// The height.
        height: u64,
        /// The round.
        round: u32,
        /// The candidate.
        block: Oid,
        /// Why.
        reason: String,
    },
    /// A validator signed two different proposals or votes for one round.
    Equivocation {
        /// The height.
        height: u64,
        /// Whose key.
        validator: PublicKey,
    },
    /// A block is final here.
    Decided {
        /// The height.
        height: u64,
        /// The round that decided.
        round: u32,
        /// The block.
        block: Oid,
        /// How many precommits its certificate holds so far.
        signatures: usize,
    },
    /// This validator does not sign for now: its high-water mark is lost, or further than what its disk holds.
    Following {
        /// The height at which it signs again, once it is known.
        until: Option<u64>,
    },
    /// Nothing to do: no round is running.
    Idle {
        /// The newest final height.
        height: u64,
    },
    /// The engine answered, as it is asked every few seconds. Whoever hears of it no more has an engine that hangs.
    Alive {
        /// Whether validators with more than two thirds of the power, this one among them, are connected.
        quorum: bool,
    },
}
