//! `upgrade.report`: a validator says how the new release runs.

use instar_attest::Digest;

use super::{Phase, ReportRecord, check_reason, load, member, rollout, shown};
use crate::machine::{Author, Machine, Op, ensure, refuse};
use crate::ops::{Health, Report};

pub(super) fn apply(m: &mut Machine<'_>, author: &Author, entry: Digest, op: Report) -> Op {
    let mut proposal = load(&m.state, &op.proposal)?;
    let member = member(&proposal, author)?;
    check_reason(op.reason.as_ref())?;
    let release = proposal.release.clone();
    let (Phase::Rolling, Some(rollout)) = (proposal.phase, proposal.rollout.as_mut()) else {
        return refuse("not-rolling", "no rollout of this proposal is going on");
    };
    let turn = rollout.waves[..=rollout.index].iter().flatten();
    ensure(
        turn.into_iter().any(|n| *n == member.name),
        "not-your-turn",
        || format!("the wave of {} has not begun", member.name),
    )?;
    // Healthy, then perhaps reverted while the others still swap; nobody comes back from a revert.
    let before = rollout.reports.get(&member.name).map(|r| r.result);
    let news = match before {
        None => true,
        Some(Health::Healthy) => op.result == Health::Reverted,
        Some(Health::Reverted) => false,
    };
    ensure(news, "already-reported", || {
        format!("{} has reported", member.name)
    })?;
    if op.result == Health::Healthy {
        ensure(
            op.running.as_ref() == Some(&release),
            "running-mismatch",
            || format!("healthy means that {release} runs"),
        )?;
    }
    let report = ReportRecord {
        entry,
        height: m.height,
        reason: op.reason,
        result: op.result,
        seen_at: None,
    };
    rollout.reports.insert(member.name.clone(), report);
    rollout.silent.retain(|name| *name != member.name);
    rollout::reported(m, &mut proposal, &member.name)?;
    Ok(shown(&proposal))
}
