//! Rollouts of the node: waves, health that certificates show, pauses, halts.

use instar_attest::Digest;

use super::upgrades::{ready_all, vote_all};
use super::world::*;
use crate::gates::Gate;
use crate::ops::{Health, Report, UpgradeOp};
use crate::upgrade::Phase;

/// A world in which the rollout of node release 1 has just begun; the proposal's id.
fn rolling(mut w: World) -> (World, Digest) {
    let round = w.agreed("node", 1);
    let proposal = w.propose(&round);
    vote_all(&mut w, &proposal);
    ready_all(&mut w, &proposal, [b"r", b"r", b"r", b"r"]);
    w.blocks(2);
    assert_eq!(w.proposal(&proposal).phase, Phase::Rolling);
    (w, proposal)
}

fn report(w: &World, proposal: &Digest, result: Health) -> UpgradeOp {
    UpgradeOp::Report(Report {
        proposal: *proposal,
        reason: None,
        result,
        running: Some(w.proposal(proposal).release),
    })
}

/// The validator whose turn it is.
fn turn(w: &World, proposal: &Digest) -> usize {
    let rollout = w.proposal(proposal).rollout.unwrap();
    let wave = &rollout.waves[rollout.index];
    assert_eq!(wave.len(), 1, "one of four at a time: f is one");
    w.nodes.iter().position(|n| n.name == wave[0]).unwrap()
}

fn index(w: &World, proposal: &Digest) -> usize {
    w.proposal(proposal).rollout.unwrap().index
}

fn say(w: &mut World, proposal: &Digest, node: usize, result: Health) -> Digest {
    let op = report(w, proposal, result);
    let id = w.upgrade(node, &op);
    w.block();
    id
}

/// A rollout to its end, in which the second validator reverts.
pub fn whole_rollout(w: World) -> World {
    let (mut w, proposal) = rolling(w);
    for wave in 0..4 {
        let node = turn(&w, &proposal);
        let result = if wave == 1 {
            Health::Reverted
        } else {
            Health::Healthy
        };
        say(&mut w, &proposal, node, result);
        w.blocks(3);
    }
    assert_eq!(w.slot("node").number, 1);
    w
}

#[test]
fn waves_follow_health() {
    let (mut w, proposal) = rolling(World::new());
    assert_eq!(w.event("rollout-started").unwrap().id, proposal);
    let mut seen = Vec::new();
    for wave in 0..4 {
        assert_eq!(index(&w, &proposal), wave);
        let node = turn(&w, &proposal);
        seen.push(node);
        let id = say(&mut w, &proposal, node, Health::Healthy);
        w.applied(&id);
        assert_eq!(index(&w, &proposal), wave, "words alone are no health");
        w.blocks(2);
    }
    seen.sort();
    assert_eq!(seen, [0, 1, 2, 3]);
    assert_eq!(w.slot("node").number, 1);
    let state = w.proposal(&proposal);
    assert_eq!(state.phase, Phase::Activated);
    assert!(state.completed_at > state.activated_at);
    assert_eq!(w.event("activated").unwrap().id, proposal);
    assert!(!crate::due(&w.state, w.height() + 1, u64::MAX >> 12).unwrap());
}

#[test]
fn health_needs_a_precommit_in_a_later_certificate() {
    let (mut w, proposal) = rolling(World::new());
    let node = turn(&w, &proposal);
    w.signing[node] = false;
    say(&mut w, &proposal, node, Health::Healthy);
    w.blocks(4);
    assert_eq!(
        index(&w, &proposal),
        0,
        "its precommit is in no certificate"
    );
    w.signing[node] = true;
    w.block();
    assert_eq!(index(&w, &proposal), 1);
    let rollout = w.proposal(&proposal).rollout.unwrap();
    let record = &rollout.reports[&w.nodes[node].name];
    assert!(record.seen_at.unwrap() > record.height);
}

#[test]
fn who_may_report_what() {
    let (mut w, proposal) = rolling(World::new());
    let node = turn(&w, &proposal);
    let other = (node + 1) % 4;
    let id = say(&mut w, &proposal, other, Health::Healthy);
    w.refused(&id, "not-your-turn");
    let mut op = report(&w, &proposal, Health::Healthy);
    if let UpgradeOp::Report(report) = &mut op {
        report.running = None;
    }
    let id = w.upgrade(node, &op);
    w.block();
    w.refused(&id, "running-mismatch");
    say(&mut w, &proposal, node, Health::Healthy);
    let id = say(&mut w, &proposal, node, Health::Healthy);
    w.refused(&id, "already-reported");
}

#[test]
fn one_revert_pauses_and_one_more_halts() {
    let (mut w, proposal) = rolling(World::new());
    let node = turn(&w, &proposal);
    say(&mut w, &proposal, node, Health::Reverted);
    assert_eq!(w.event("rollout-paused").unwrap().id, proposal);
    assert_eq!(index(&w, &proposal), 0);
    w.blocks(2);
    assert_eq!(index(&w, &proposal), 0, "it rests");
    w.block();
    assert_eq!(index(&w, &proposal), 1, "one liar does not block a fix");
    let next = turn(&w, &proposal);
    say(&mut w, &proposal, next, Health::Reverted);
    let state = w.proposal(&proposal);
    assert_eq!(
        (state.phase, state.rule.as_deref()),
        (Phase::Halted, Some("reverted"))
    );
    assert_eq!(w.event("rollout-halted").unwrap().id, proposal);
    w.blocks(20);
    assert_eq!(w.slot("node").number, 0);
}

#[test]
fn without_the_gate_the_reverted_release_goes_live() {
    let (mut w, proposal) = rolling(World::without(Gate::Health));
    for _ in 0..2 {
        let node = turn(&w, &proposal);
        say(&mut w, &proposal, node, Health::Reverted);
        w.blocks(4);
    }
    w.blocks(4);
    assert_eq!(w.slot("node").number, 1);
}

#[test]
fn a_revert_after_health_still_counts() {
    let (mut w, proposal) = rolling(World::new());
    let first = turn(&w, &proposal);
    say(&mut w, &proposal, first, Health::Healthy);
    w.blocks(2);
    let second = turn(&w, &proposal);
    say(&mut w, &proposal, second, Health::Reverted);
    let id = say(&mut w, &proposal, first, Health::Reverted);
    w.applied(&id);
    assert_eq!(w.proposal(&proposal).phase, Phase::Halted);
}

#[test]
fn a_silent_wave_is_given_up_and_two_halt() {
    let (mut w, proposal) = rolling(World::new());
    w.blocks(8);
    assert_eq!(index(&w, &proposal), 1);
    assert_eq!(w.event("wave-given-up").unwrap().id, proposal);
    w.blocks(8);
    let state = w.proposal(&proposal);
    assert_eq!(
        (state.phase, state.rule.as_deref()),
        (Phase::Halted, Some("wave-silent"))
    );
}

#[test]
fn a_silent_validator_that_comes_back_is_heard() {
    let (mut w, proposal) = rolling(World::new());
    let late = turn(&w, &proposal);
    w.blocks(8);
    say(&mut w, &proposal, late, Health::Healthy);
    assert!(w.proposal(&proposal).rollout.unwrap().silent.is_empty());
}

#[test]
fn blocks_are_asked_for_while_health_is_awaited_and_not_for_ever() {
    let (mut w, proposal) = rolling(World::new());
    let due = |w: &World| crate::due(&w.state, w.height() + 1, w.time_ms + 1).unwrap();
    assert!(!due(&w), "the swap is waited for, not blocks");
    let later = w.time_ms + crate::WAVE_PULSE_MS;
    assert!(
        crate::due(&w.state, w.height() + 1, later).unwrap(),
        "but a node has to see blocks to follow them"
    );
    let node = turn(&w, &proposal);
    w.signing[node] = false;
    say(&mut w, &proposal, node, Health::Healthy);
    let mut asked = 0;
    while due(&w) {
        // As on an idle chain, where hardly any time passes.
        w.time_ms -= STEP_MS - 1;
        w.block();
        asked += 1;
    }
    assert!((10..30).contains(&asked), "{asked}");
}

#[test]
fn a_second_rollout_waits_for_the_first() {
    let (mut w, first) = rolling(World::new());
    let round = w.agreed("node", 2);
    let second = w.propose(&round);
    vote_all(&mut w, &second);
    ready_all(&mut w, &second, [b"r", b"r", b"r", b"r"]);
    w.blocks(3);
    if w.proposal(&first).phase == Phase::Rolling {
        assert_eq!(w.proposal(&second).phase, Phase::Scheduled);
        w.blocks(20);
    }
    assert_eq!(w.proposal(&first).phase, Phase::Halted, "nobody swapped");
    assert_eq!(w.proposal(&second).phase, Phase::Rolling);
}
