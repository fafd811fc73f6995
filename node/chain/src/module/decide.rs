//! The decision itself.

use instar_attest::Digest;
use instar_attest::release::Slot;

use super::{Action, AutoVote, LocalFacts, Me, Rehearsed, Staging, UpgradeView};
use crate::build::Round;
use crate::ops::{Health, Ready, Report, clip_reason};
use crate::upgrade::{Phase, Proposal};

/// What this node does next. Every action still has to be done, as far as anybody can tell from `view` and `facts`.
pub fn decide(view: &UpgradeView, me: &Me, facts: &LocalFacts) -> Vec<Action> {
    let mut actions = Vec::new();
    for proposal in &view.proposals {
        match proposal.phase {
            Phase::Voting => vote(view, me, facts, proposal, &mut actions),
            // Who is late still says what it has to say: it is noted until the activation.
            Phase::Rehearsing | Phase::Scheduled => {
                vote(view, me, facts, proposal, &mut actions);
                rehearse(view, me, facts, proposal, &mut actions);
            }
            Phase::Rolling => roll(view, me, facts, proposal, &mut actions),
            _ => {}
        }
    }
    settle(view, facts, &mut actions);
    actions
}

fn is_member(view: &UpgradeView, proposal: &Proposal, me: &Me) -> bool {
    view.validators.contains(&me.name) && proposal.validators.iter().any(|v| v.name == me.name)
}

fn stage(facts: &LocalFacts, proposal: &Proposal, actions: &mut Vec<Action>) {
    if !facts.staged.contains_key(proposal.release.as_str()) {
        actions.push(Action::Stage {
            release: proposal.release.to_string(),
            round: Some(proposal.round),
            slot: proposal.slot.to_string(),
        });
    }
}

fn vote(
    view: &UpgradeView,
    me: &Me,
    facts: &LocalFacts,
    proposal: &Proposal,
    actions: &mut Vec<Action>,
) {
    stage(facts, proposal, actions);
    let voted = proposal.votes.contains_key(&me.name) || facts.said_vote(&proposal.id);
    let Some(round) = view.rounds.get(&proposal.round) else {
        return;
    };
    // Verification comes before the vote, and again before the swap.
    if voted || !is_member(view, proposal, me) || !facts.is_verified(proposal.release.as_str()) {
        return;
    }
    let asked = round.builder_of(&me.name).is_some();
    let yes = match (facts.auto_vote, own_build(round, me)) {
        (AutoVote::Off, _) => None,
        (_, Some(rebuilt)) => Some((Some(rebuilt), "own rebuild matched")),
        (AutoVote::Attested, None) if !asked => Some((
            None,
            "attested by the builders that the policy asks; not rebuilt here",
        )),
        _ => None,
    };
    if let Some((rebuilt, reason)) = yes {
        actions.push(Action::yes(proposal.id, rebuilt, reason));
    }
}

/// What this validator's own builder came to, where it is all that was agreed on for the required targets.
fn own_build(round: &Round, me: &Me) -> Option<Digest> {
    let revealed = round.builder_of(&me.name)?.revealed.as_ref()?;
    let required = round.policy.target_list();
    let same = required
        .iter()
        .all(|t| round.agreed.contains_key(t) && revealed.targets.get(t) == round.agreed.get(t));
    // Targets beyond the required ones that it built must not differ either.
    if !same || round.contradicted_by(&me.name) {
        return None;
    }
    revealed.targets.get(required.first()?).copied()
}

fn rehearse(
    view: &UpgradeView,
    me: &Me,
    facts: &LocalFacts,
    proposal: &Proposal,
    actions: &mut Vec<Action>,
) {
    let Some(rehearsal) = proposal.rehearsal else {
        return;
    };
    let from = rehearsal.from;
    let said = proposal.ready.contains_key(&me.name) || facts.said_ready(&proposal.id, from);
    if said || !is_member(view, proposal, me) || view.height < rehearsal.last() {
        return;
    }
    let release = proposal.release.as_str();
    let failed = |reason: &str| (None, Some(clip_reason(reason)));
    let outcome = match facts.staged.get(release) {
        Some(Staging::Failed(reason)) => Some(failed(reason)),
        Some(Staging::Verified) => match facts.rehearsals.get(&(proposal.id, from)) {
            None => {
                actions.push(Action::Rehearse {
                    blocks: rehearsal.blocks,
                    from,
                    proposal: proposal.id,
                    release: release.to_owned(),
                    slot: proposal.slot.to_string(),
                });
                None
            }
            Some(Rehearsed::Running) => None,
            Some(Rehearsed::Root(root)) => Some((Some(*root), None)),
            Some(Rehearsed::Failed(reason)) => Some(failed(reason)),
        },
        Some(Staging::Running) | None => None,
    };
    if let Some((root, reason)) = outcome {
        actions.push(Action::Ready(Ready {
            height: from,
            proposal: proposal.id,
            reason,
            root,
        }));
    }
}

fn roll(
    view: &UpgradeView,
    me: &Me,
    facts: &LocalFacts,
    proposal: &Proposal,
    actions: &mut Vec<Action>,
) {
    stage(facts, proposal, actions);
    // Who was let go swaps with those who follow, once the slot holds the release.
    if !is_member(view, proposal, me) {
        return;
    }
    let (Some(rollout), Some(generation)) = (&proposal.rollout, proposal.activated_at) else {
        return;
    };
    let mut begun = rollout.waves.iter().take(rollout.index + 1).flatten();
    if !begun.any(|name| *name == me.name) {
        return;
    }
    let release = proposal.release.as_str();
    let before = rollout.reports.get(&me.name).map(|r| r.result);
    if let Some(reason) = facts.reverted.get(release) {
        let known = before == Some(Health::Reverted);
        if !known && !facts.said_report(&proposal.id, Health::Reverted) {
            let running = facts.running.as_ref().and_then(|r| r.parse().ok());
            actions.push(Action::Report(Report {
                proposal: proposal.id,
                reason: Some(clip_reason(reason)),
                result: Health::Reverted,
                running,
            }));
        }
    } else if facts.running.as_deref() == Some(release) {
        let known = before.is_some() || facts.said_report(&proposal.id, Health::Healthy);
        if !known && facts.healthy {
            actions.push(Action::Report(Report {
                proposal: proposal.id,
                reason: None,
                result: Health::Healthy,
                running: Some(proposal.release.clone()),
            }));
        }
    } else if before.is_none() {
        swap(facts, generation, Some(proposal.id), release, actions);
    }
}

fn swap(
    facts: &LocalFacts,
    generation: u64,
    proposal: Option<Digest>,
    release: &str,
    actions: &mut Vec<Action>,
) {
    let under_way = facts.swapping.is_some_and(|g| g >= generation);
    if facts.supervised && !facts.hold && !under_way && facts.is_verified(release) {
        actions.push(Action::Swap {
            generation,
            proposal,
            release: release.to_owned(),
        });
    }
}

/// What slots hold has to be here, whether this node took part or was away; and a node that was away catches up.
fn settle(view: &UpgradeView, facts: &LocalFacts, actions: &mut Vec<Action>) {
    let node = Slot::node();
    for (name, held) in &view.slots {
        let Some(release) = &held.slot.release else {
            continue;
        };
        let runs = *name == node.as_str() && facts.running.as_ref() == Some(release);
        if !facts.staged.contains_key(release) && !runs {
            actions.push(Action::Stage {
                release: release.clone(),
                round: held.round,
                slot: name.clone(),
            });
        }
    }
    let Some(done) = view
        .rollout
        .as_ref()
        .filter(|p| p.phase == Phase::Activated)
    else {
        return;
    };
    let held = view
        .slots
        .get(node.as_str())
        .and_then(|s| s.slot.release.as_deref());
    let (release, Some(generation)) = (done.release.as_str(), done.activated_at) else {
        return;
    };
    if held != Some(release) || facts.reverted.contains_key(release) {
        return;
    }
    if facts.running.as_deref() == Some(release) {
        if facts.supervised && facts.kept.is_none_or(|g| g < generation) {
            actions.push(Action::Keep {
                generation,
                release: release.to_owned(),
            });
        }
    } else {
        swap(facts, generation, None, release, actions);
    }
}
