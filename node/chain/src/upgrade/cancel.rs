//! `upgrade.cancel`: the proposer takes a proposal back while it is not live.

use serde_json::json;

use super::{Phase, load, save, shown};
use crate::machine::{Author, Machine, Op, ensure};
use crate::ops::Cancel;

pub(super) fn apply(m: &mut Machine<'_>, author: &Author, op: &Cancel) -> Op {
    let mut proposal = load(&m.state, &op.proposal)?;
    let before = m.key(&proposal.proposed_by)?.map(|k| k.operator);
    ensure(
        before.as_ref() == Some(&author.operator),
        "not-the-proposer",
        || "only the operator who made a proposal takes it back".into(),
    )?;
    ensure(
        matches!(
            proposal.phase,
            Phase::Voting | Phase::Rehearsing | Phase::Scheduled
        ),
        "not-cancellable",
        || "this proposal is live or decided".into(),
    )?;
    proposal.phase = Phase::Cancelled;
    proposal.deadline = None;
    save(m, &proposal)?;
    let body = json!({"release": proposal.release, "slot": proposal.slot});
    m.event("proposal-cancelled", proposal.id, body);
    Ok(shown(&proposal))
}
