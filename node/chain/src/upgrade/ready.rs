//! `upgrade.ready`: a validator names the root that its rehearsal came to, once.

use instar_attest::Digest;

use super::{Phase, ReadyRecord, check_reason, decide, load, member, shown};
use crate::machine::{Author, Machine, Op, ensure, refuse};
use crate::ops::Ready;

pub(super) fn apply(m: &mut Machine<'_>, author: &Author, entry: Digest, op: Ready) -> Op {
    let mut proposal = load(&m.state, &op.proposal)?;
    let member = member(&proposal, author)?;
    check_reason(op.reason.as_ref())?;
    // As with votes: readiness that comes after the quorum is noted.
    let (Phase::Rehearsing | Phase::Scheduled, Some(rehearsal)) =
        (proposal.phase, proposal.rehearsal)
    else {
        return refuse("not-rehearsing", "this proposal is not rehearsed now");
    };
    // Another activation in between began the rehearsal anew: what was rehearsed before says nothing.
    ensure(op.height == rehearsal.from, "ready-height-mismatch", || {
        format!("the rehearsal is from height {}", rehearsal.from)
    })?;
    ensure(m.height > rehearsal.last(), "ready-too-early", || {
        format!("the rehearsal is up to height {}", rehearsal.last())
    })?;
    ensure(
        !proposal.ready.contains_key(&member.name),
        "already-ready",
        || format!("{} has rehearsed", member.name),
    )?;
    let ready = ReadyRecord {
        entry,
        height: m.height,
        reason: op.reason,
        root: op.root,
    };
    proposal.ready.insert(member.name, ready);
    decide::advance(m, &mut proposal)?;
    Ok(shown(&proposal))
}
