//! `upgrade.vote`: a validator says yes or no, once.

use instar_attest::Digest;

use super::{Phase, VoteRecord, check_reason, decide, load, member, shown};
use crate::build::Round;
use crate::keys;
use crate::machine::{Author, Machine, Op, ensure};
use crate::ops::{Ballot, Vote};
use crate::record;

pub(super) fn apply(m: &mut Machine<'_>, author: &Author, entry: Digest, op: Vote) -> Op {
    let mut proposal = load(&m.state, &op.proposal)?;
    let member = member(&proposal, author)?;
    check_reason(op.reason.as_ref())?;
    // A vote that comes after the quorum changes nothing, but it is noted: people want to see who said what.
    ensure(
        matches!(
            proposal.phase,
            Phase::Voting | Phase::Rehearsing | Phase::Scheduled
        ),
        "not-voting",
        || "this proposal is live or decided".into(),
    )?;
    ensure(
        !proposal.votes.contains_key(&member.name),
        "already-voted",
        || format!("{} has voted", member.name),
    )?;
    if op.vote == Ballot::Yes {
        let round: Round = record::expect(&m.state, &keys::round(&proposal.round))?;
        let rebuilt = op.rebuilt.as_ref();
        let contradicts = round.contradicted_by(&member.name)
            || rebuilt.is_some_and(|r| !round.agreed.values().any(|d| d == r));
        ensure(!contradicts, "vote-without-matching-build", || {
            format!("{} itself built something else", member.name)
        })?;
    }
    let vote = VoteRecord {
        entry,
        height: m.height,
        reason: op.reason,
        rebuilt: op.rebuilt,
        vote: op.vote,
    };
    proposal.votes.insert(member.name, vote);
    decide::advance(m, &mut proposal)?;
    Ok(shown(&proposal))
}
