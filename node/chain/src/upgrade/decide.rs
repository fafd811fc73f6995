//! What votes and rehearsals come to.

use std::collections::BTreeMap;

use instar_attest::Digest;
use serde_json::json;

use super::{Phase, Proposal, Rehearsal, save};
use crate::gates::Gate;
use crate::machine::Machine;
use crate::ops::Ballot;
use crate::record::Deadline;
use crate::view::StateError;

/// Moves a proposal on as far as its votes, its rehearsals and its deadline allow, and writes it.
pub(super) fn advance(m: &mut Machine<'_>, proposal: &mut Proposal) -> Result<(), StateError> {
    match proposal.phase {
        Phase::Voting => tally(m, proposal),
        Phase::Rehearsing => readiness(m, proposal),
        _ => {}
    }
    save(m, proposal)
}

fn is_over(m: &Machine<'_>, proposal: &Proposal) -> bool {
    let deadline = proposal.deadline;
    deadline.is_some_and(|d| d.has_passed(m.height, m.time_ms))
}

fn tally(m: &mut Machine<'_>, proposal: &mut Proposal) {
    let power = |ballot| {
        proposal.power_where(|v| {
            proposal
                .votes
                .get(&v.name)
                .is_some_and(|r| r.vote == ballot)
        })
    };
    let (yes, no, total) = (
        power(Ballot::Yes),
        power(Ballot::No),
        proposal.total_power(),
    );
    if proposal.is_quorum(yes) || !m.gates.hold(Gate::Votes) {
        accept(m, proposal, yes, no);
    } else if u128::from(no) * 3 >= u128::from(total) {
        let detail = format!("a power of {no} of {total} voted no");
        refuse(m, proposal, "voted-down", &detail);
    } else if is_over(m, proposal) {
        let detail = format!("a power of {yes} of {total} had voted yes when the time was over");
        refuse(m, proposal, "vote-deadline", &detail);
    }
}

fn accept(m: &mut Machine<'_>, proposal: &mut Proposal, yes: u64, no: u64) {
    proposal.accepted_at = Some(m.height);
    begin_rehearsal(m, proposal);
    let rehearsal = proposal.rehearsal;
    let body = json!({
        "no": no, "rehearsal": rehearsal, "release": proposal.release, "slot": proposal.slot, "yes": yes,
    });
    m.event("proposal-accepted", proposal.id, body);
}

/// Forks the state after this block, for the blocks that come next.
pub(super) fn begin_rehearsal(m: &Machine<'_>, proposal: &mut Proposal) {
    let blocks = proposal.policy.rehearsal_blocks;
    proposal.phase = Phase::Rehearsing;
    proposal.rehearsal = Some(Rehearsal {
        blocks,
        from: m.height,
    });
    proposal.ready = BTreeMap::new();
    proposal.activation_height = None;
    proposal.deadline = Some(Deadline {
        height: m.height + blocks + proposal.policy.rehearse_blocks,
        time_ms: m.time_ms + proposal.policy.rehearse_ms,
    });
}

fn readiness(m: &mut Machine<'_>, proposal: &mut Proposal) {
    let mut roots: BTreeMap<Digest, u64> = BTreeMap::new();
    for member in &proposal.validators {
        let root = proposal.ready.get(&member.name).and_then(|r| r.root);
        if let Some(root) = root {
            *roots.entry(root).or_default() += member.power;
        }
    }
    let answered = proposal.power_where(|v| proposal.ready.contains_key(&v.name));
    let open = proposal.total_power() - answered;
    let most = roots.iter().max_by_key(|(_, power)| **power);
    let (root, power) = most.map_or((None, 0), |(r, p)| (Some(*r), *p));
    let gate = m.gates.hold(Gate::Rehearsal);
    if proposal.is_quorum(power) || (!gate && proposal.is_quorum(answered)) {
        return schedule(m, proposal, root, power);
    }
    let hopeless = !proposal.is_quorum(power + open);
    if gate && (hopeless || is_over(m, proposal)) {
        let total = proposal.total_power();
        let (rule, detail) = if roots.len() > 1 {
            let detail = format!(
                "{} different roots; the largest group has a power of {power} of {total}",
                roots.len()
            );
            ("rehearsal-roots-differ", detail)
        } else if hopeless {
            let detail = format!("a power of {} could not rehearse it", answered - power);
            ("rehearsal-failed", detail)
        } else {
            let detail = format!("a power of {power} of {total} was ready when the time was over");
            ("readiness-deadline", detail)
        };
        refuse(m, proposal, rule, &detail);
    }
}

fn schedule(m: &mut Machine<'_>, proposal: &mut Proposal, root: Option<Digest>, power: u64) {
    // A later block, so that everybody has the release before it runs.
    let height = m.height + proposal.policy.activation_blocks.max(1);
    proposal.phase = Phase::Scheduled;
    proposal.activation_height = Some(height);
    proposal.deadline = None;
    let body = json!({
        "height": height, "ready": power, "release": proposal.release, "root": root, "slot": proposal.slot,
    });
    m.event("activation-set", proposal.id, body);
}

/// Ends a proposal by a rule. The event is what people quote.
pub(super) fn refuse(m: &mut Machine<'_>, proposal: &mut Proposal, rule: &str, detail: &str) {
    proposal.phase = Phase::Refused;
    proposal.deadline = None;
    proposal.rule = Some(rule.to_owned());
    proposal.detail = Some(detail.to_owned());
    let roots: BTreeMap<&String, Option<Digest>> =
        proposal.ready.iter().map(|(n, r)| (n, r.root)).collect();
    let body = json!({
        "detail": detail, "release": proposal.release, "roots": roots, "rule": rule, "slot": proposal.slot,
    });
    m.event("proposal-refused", proposal.id, body);
}
