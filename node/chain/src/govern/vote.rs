//! `govern.vote`: a validator says yes or no, once; `govern.withdraw`: whoever moved it takes it back.

use instar_attest::Digest;
use serde_json::json;

use super::motion::{Motion, MotionBallot, MotionPhase};
use super::ops::{MotionVote, Withdraw};
use super::{decide, load, save, shown};
use crate::machine::{Author, Machine, Op, ensure, refuse};

pub(super) fn apply(m: &mut Machine<'_>, author: &Author, entry: Digest, op: MotionVote) -> Op {
    let mut motion = load(&m.state, &op.motion)?;
    let name = voter(&motion, author)?;
    crate::upgrade::check_reason(op.reason.as_ref())?;
    check_open(&motion)?;
    ensure(!motion.votes.contains_key(&name), "already-voted", || {
        format!("{name} has voted")
    })?;
    let ballot = MotionBallot {
        entry,
        height: m.height,
        reason: op.reason,
        vote: op.vote,
    };
    motion.votes.insert(name, ballot);
    decide::tally(m, &mut motion)?;
    Ok(shown(&motion))
}

pub(super) fn withdraw(m: &mut Machine<'_>, author: &Author, op: &Withdraw) -> Op {
    let mut motion = load(&m.state, &op.motion)?;
    ensure(
        motion.operator == author.operator,
        "not-the-proposer",
        || "only the operator who made a motion takes it back".into(),
    )?;
    check_open(&motion)?;
    motion.phase = MotionPhase::Withdrawn;
    save(m, &motion)?;
    let body = json!({"kind": motion.change.kind()});
    m.event("motion-withdrawn", motion.id, body);
    Ok(shown(&motion))
}

fn check_open(motion: &Motion) -> Op<()> {
    ensure(motion.phase == MotionPhase::Voting, "not-voting", || {
        "this motion is decided".into()
    })
}

/// The validator that an account speaks for, if the motion asks it. A validator whose account key was replaced in
/// between is still the same; one that was removed is asked no more, and its silence counts.
fn voter(motion: &Motion, author: &Author) -> Op<String> {
    let asked = |name: &&String| motion.validators.iter().any(|v| v.name == **name);
    match author.validator.as_ref().filter(asked) {
        Some(name) => Ok(name.clone()),
        None => refuse(
            "not-a-validator",
            format!(
                "{} is no validator's account in this motion",
                author.account
            ),
        ),
    }
}
