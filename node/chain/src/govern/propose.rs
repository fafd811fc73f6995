//! `govern.propose`: puts a change to the vote, if it could be made now.

use std::collections::BTreeMap;

use instar_attest::Digest;

use super::motion::{Motion, MotionPhase};
use super::ops::Propose;
use super::registry::Registry;
use super::{
    MAX_DELAY_BLOCKS, MAX_OPEN_MOTIONS, MAX_OPEN_MOTIONS_AN_OPERATOR, VOTE_BLOCKS, VOTE_MS,
    open_ids, shown,
};
use crate::keys;
use crate::machine::{Author, Machine, Op, ensure};
use crate::record::{self, Deadline};

pub(super) fn apply(m: &mut Machine<'_>, author: &Author, id: Digest, op: Propose) -> Op {
    ensure(
        (1..=MAX_DELAY_BLOCKS).contains(&op.delay),
        "bad-delay",
        || format!("a motion takes effect 1 to {MAX_DELAY_BLOCKS} blocks after it has passed"),
    )?;
    crate::upgrade::check_reason(op.reason.as_ref())?;
    // The cheap bounds first: trying a change reads the registry.
    let mut open = open_ids(&m.state)?;
    ensure(open.len() < MAX_OPEN_MOTIONS, "too-many-motions", || {
        format!("{MAX_OPEN_MOTIONS} motions are open")
    })?;
    let mut own = 0;
    for other in &open {
        let other: Motion = record::expect(&m.state, &keys::motion(other))?;
        own += usize::from(other.operator == author.operator);
        ensure(other.change != op.change, "already-proposed", || {
            format!("motion {} is about the same change", other.id)
        })?;
    }
    ensure(
        own < MAX_OPEN_MOTIONS_AN_OPERATOR,
        "too-many-motions",
        || {
            format!(
                "{} has made {own} of the open motions, as many as one may",
                author.operator
            )
        },
    )?;
    // What can't be made now is not worth a vote; the same rules are asked again when it takes effect.
    Registry::over(m).change(&op.change, &id)?;
    let validators = m.members()?;
    let motion = Motion {
        change: op.change,
        deadline: Deadline {
            height: m.height + VOTE_BLOCKS,
            time_ms: m.time_ms + VOTE_MS,
        },
        delay: op.delay,
        detail: None,
        effective_at: None,
        id,
        operator: author.operator.clone(),
        passed_at: None,
        phase: MotionPhase::Voting,
        proposed_at: m.height,
        proposed_by: author.account,
        reason: op.reason,
        rule: None,
        validators,
        votes: BTreeMap::new(),
    };
    open.push(id);
    record::write(&mut m.state, keys::OPEN_MOTIONS, &open)?;
    record::write(&mut m.state, &keys::motion(&id), &motion)?;
    Ok(shown(&motion))
}
