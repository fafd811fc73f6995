//! `upgrade.propose`: puts what a round agreed on to the vote.

use std::collections::BTreeMap;

use instar_attest::Digest;

use super::{MAX_OPEN_PROPOSALS, Phase, Proposal, open_ids, shown};
use crate::build::{Round, RoundPhase};
use crate::keys;
use crate::machine::{Author, Machine, Op, ensure, refuse};
use crate::ops::Propose;
use crate::record::{self, Deadline, SlotRecord};

pub(super) fn apply(m: &mut Machine<'_>, author: &Author, id: Digest, op: &Propose) -> Op {
    let round = agreed_round(m, op)?;
    let slot: SlotRecord = record::expect(&m.state, &keys::slot(round.slot.as_str()))?;
    ensure(round.number > slot.number, "number-not-higher", || {
        format!("slot {} holds release {}", round.slot, slot.number)
    })?;
    let mut open = open_ids(&m.state)?;
    for other in &open {
        let other: Proposal = record::expect(&m.state, &keys::proposal(other))?;
        ensure(other.round != op.round, "already-proposed", || {
            format!("proposal {} is about the same round", other.id)
        })?;
    }
    ensure(
        open.len() < MAX_OPEN_PROPOSALS,
        "too-many-proposals",
        || format!("{MAX_OPEN_PROPOSALS} proposals are undecided"),
    )?;
    let validators = m.members()?;
    let proposal = Proposal {
        accepted_at: None,
        activated_at: None,
        activation: round.activation,
        activation_height: None,
        completed_at: None,
        deadline: Some(Deadline {
            height: m.height + round.policy.vote_blocks,
            time_ms: m.time_ms + round.policy.vote_ms,
        }),
        detail: None,
        from: None,
        id,
        number: round.number,
        phase: Phase::Voting,
        policy: round.policy,
        proposed_at: m.height,
        proposed_by: author.account,
        ready: BTreeMap::new(),
        rehearsal: None,
        release: op.release.clone(),
        rollout: None,
        round: op.round,
        rule: None,
        slot: round.slot,
        validators,
        votes: BTreeMap::new(),
    };
    open.push(id);
    record::write(&mut m.state, keys::OPEN_PROPOSALS, &open)?;
    record::write(&mut m.state, &keys::proposal(&id), &proposal)?;
    Ok(shown(&proposal))
}

fn agreed_round(m: &Machine<'_>, op: &Propose) -> Op<Round> {
    let round: Option<Round> = record::read(&m.state, &keys::round(&op.round))?;
    let Some(round) = round else {
        return refuse(
            "unknown-round",
            format!("there is no build round {}", op.round),
        );
    };
    if round.phase == RoundPhase::Failed {
        // The round's own rule is the reason: too few builders, most often.
        return Err(round.into());
    }
    ensure(round.phase == RoundPhase::Agreed, "round-open", || {
        format!("round {} is not closed yet", op.round)
    })?;
    ensure(
        round.release.as_ref() == Some(&op.release),
        "release-mismatch",
        || format!("round {} agreed on another release", op.round),
    )?;
    Ok(round)
}
