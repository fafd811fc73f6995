//! A rollout: nodes swap wave after wave, each wave waits for the health of the one before, and too many reverts halt
//! it.

use std::collections::BTreeMap;

use instar_ledger::Certificate;
use serde_json::json;

use super::{Phase, Proposal, Rollout, save, slot};
use crate::block::BlockError;
use crate::gates::Gate;
use crate::keys;
use crate::machine::Machine;
use crate::ops::Health;
use crate::record::{self, Deadline};
use crate::view::StateError;

/// For how many blocks after a report the chain makes blocks only to see the reporter's precommit.
pub(crate) const HEALTH_BLOCKS: u64 = 16;

/// Begins a rollout, unless another one still goes on: then it waits.
pub(super) fn begin(m: &mut Machine<'_>, proposal: &mut Proposal) -> Result<(), BlockError> {
    if is_rolling(m)? {
        return Ok(());
    }
    proposal.phase = Phase::Rolling;
    proposal.activated_at = Some(m.height);
    let waves = waves(proposal);
    let body = json!({"release": proposal.release, "slot": proposal.slot, "waves": waves});
    proposal.rollout = Some(Rollout {
        deadline: wave_deadline(m),
        index: 0,
        paused_until: None,
        reports: BTreeMap::new(),
        silent: Vec::new(),
        since: m.height,
        waves,
    });
    record::write(&mut m.state, keys::ROLLOUT, &proposal.id)?;
    save(m, proposal)?;
    m.event("rollout-started", proposal.id, body);
    announce(m, proposal);
    Ok(())
}

/// Whether a rollout goes on.
pub(crate) fn is_rolling(m: &Machine<'_>) -> Result<bool, StateError> {
    crate::query::rollout(&m.state).map(|r| r.is_some_and(|p| p.phase == Phase::Rolling))
}

/// Validators in the order of their keys, in waves whose power could all be lost: at most f, or one validator.
fn waves(proposal: &Proposal) -> Vec<Vec<String>> {
    let bound = proposal.faulty_power();
    let mut waves: Vec<Vec<String>> = Vec::new();
    let mut power = 0;
    for member in &proposal.validators {
        let fits = power + member.power <= bound;
        match waves.last_mut() {
            Some(wave) if fits => wave.push(member.name.clone()),
            _ => {
                waves.push(vec![member.name.clone()]);
                power = 0;
            }
        }
        power += member.power;
    }
    waves
}

fn wave_deadline(m: &Machine<'_>) -> Deadline {
    Deadline {
        height: m.height + m.policy.wave_blocks,
        time_ms: m.time_ms + m.policy.wave_ms,
    }
}

fn announce(m: &mut Machine<'_>, proposal: &Proposal) {
    if let Some(rollout) = &proposal.rollout {
        let body = json!({"index": rollout.index, "members": rollout.waves[rollout.index]});
        m.event("wave", proposal.id, body);
    }
}

/// At the start of a block: notes whose precommits were seen, and goes on where it may.
pub(super) fn at_start(
    m: &mut Machine<'_>,
    proposal: &mut Proposal,
    previous: Option<&Certificate>,
) -> Result<(), BlockError> {
    // Who replaced its consensus key since the proposal was made signs with the new one.
    let now = m.members()?;
    if let (Some(rollout), Some(certificate)) = (proposal.rollout.as_mut(), previous) {
        for member in &proposal.validators {
            let replaced = now.iter().find(|v| v.name == member.name).map(|v| v.key);
            let signed = certificate
                .signatures
                .iter()
                .any(|s| s.validator == member.key || Some(s.validator) == replaced);
            if let Some(report) = rollout.reports.get_mut(&member.name)
                && signed
                && report.seen_at.is_none()
                // The block that merged the report may have been signed before the swap.
                && certificate.height > report.height
            {
                report.seen_at = Some(certificate.height);
            }
        }
    }
    go_on(m, proposal)
}

/// After a report: a revert may halt the rollout, or makes it rest.
pub(super) fn reported(
    m: &mut Machine<'_>,
    proposal: &mut Proposal,
    name: &str,
) -> Result<(), StateError> {
    let reverted = has_reverted(proposal, name);
    if reverted && !halt_if_too_many(m, proposal)? {
        let until = Deadline {
            height: m.height + m.policy.pause_blocks,
            time_ms: m.time_ms + m.policy.pause_ms,
        };
        if let Some(rollout) = proposal.rollout.as_mut() {
            rollout.paused_until = Some(until);
        }
        m.event(
            "rollout-paused",
            proposal.id,
            json!({"by": name, "until": until}),
        );
    }
    save(m, proposal)
}

fn has_reverted(proposal: &Proposal, name: &str) -> bool {
    let rollout = proposal.rollout.as_ref();
    let report = rollout.and_then(|r| r.reports.get(name));
    report.is_some_and(|r| r.result == Health::Reverted)
}

/// Halts when more power than f went back or was not heard of. True if it did.
fn halt_if_too_many(m: &mut Machine<'_>, proposal: &mut Proposal) -> Result<bool, StateError> {
    let silent = proposal
        .rollout
        .as_ref()
        .map(|r| r.silent.clone())
        .unwrap_or_default();
    let reverted = proposal.power_where(|v| has_reverted(proposal, &v.name));
    let lost =
        proposal.power_where(|v| has_reverted(proposal, &v.name) || silent.contains(&v.name));
    let bound = proposal.faulty_power();
    if lost <= bound || !m.gates.hold(Gate::Health) {
        return Ok(false);
    }
    let rule = if reverted > bound {
        "reverted"
    } else {
        "wave-silent"
    };
    let total = proposal.total_power();
    let detail = format!(
        "a power of {reverted} of {total} went back and {} was not heard of, {bound} may be lost",
        lost - reverted
    );
    proposal.phase = Phase::Halted;
    proposal.rule = Some(rule.to_owned());
    proposal.detail = Some(detail.clone());
    save(m, proposal)?;
    let body = json!({
        "detail": detail, "release": proposal.release, "rule": rule, "slot": proposal.slot,
    });
    m.event("rollout-halted", proposal.id, body);
    Ok(true)
}

fn go_on(m: &mut Machine<'_>, proposal: &mut Proposal) -> Result<(), BlockError> {
    let Some(rollout) = proposal.rollout.as_mut() else {
        return Ok(());
    };
    if let Some(until) = rollout.paused_until {
        if !until.has_passed(m.height, m.time_ms) {
            return Ok(save(m, proposal)?);
        }
        rollout.paused_until = None;
    }
    let probation = proposal.policy.probation_blocks;
    let waiting: Vec<String> = rollout.waves[rollout.index]
        .iter()
        .filter(|name| match rollout.reports.get(*name) {
            None => true,
            Some(report) => {
                report.result == Health::Healthy
                    && (report.seen_at.is_none() || m.height < report.height + probation)
            }
        })
        .cloned()
        .collect();
    let over = rollout.deadline.has_passed(m.height, m.time_ms);
    if !waiting.is_empty() && m.gates.hold(Gate::Health) {
        if !over {
            return Ok(save(m, proposal)?);
        }
        let body = json!({"index": rollout.index, "silent": waiting});
        rollout.silent.extend(waiting);
        m.event("wave-given-up", proposal.id, body);
        if halt_if_too_many(m, proposal)? {
            return Ok(());
        }
    }
    next_wave(m, proposal)
}

fn next_wave(m: &mut Machine<'_>, proposal: &mut Proposal) -> Result<(), BlockError> {
    let deadline = wave_deadline(m);
    let Some(rollout) = proposal.rollout.as_mut() else {
        return Ok(());
    };
    if rollout.index + 1 == rollout.waves.len() {
        return slot::take_over(m, proposal);
    }
    rollout.index += 1;
    rollout.since = m.height;
    rollout.deadline = deadline;
    save(m, proposal)?;
    announce(m, proposal);
    Ok(())
}
