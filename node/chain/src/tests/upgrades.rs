//! Proposals of dapp releases: votes, readiness, activation.

use instar_attest::Digest;
use serde_json::json;

use super::world::*;
use crate::fake::Behaviour;
use crate::ops::{Ballot, Cancel, Propose, Ready, UpgradeOp, Vote};
use crate::upgrade::Phase;
use crate::{StateView, ops};

pub fn vote(proposal: &Digest, vote: Ballot) -> UpgradeOp {
    UpgradeOp::Vote(Vote {
        proposal: *proposal,
        reason: None,
        rebuilt: None,
        vote,
    })
}

pub fn ready(w: &World, proposal: &Digest, root: Option<&[u8]>) -> UpgradeOp {
    UpgradeOp::Ready(Ready {
        height: w.proposal(proposal).rehearsal.unwrap().from,
        proposal: *proposal,
        reason: None,
        root: root.map(Digest::of),
    })
}

pub fn vote_all(w: &mut World, proposal: &Digest) {
    for node in 0..4 {
        if w.proposal(proposal).phase == Phase::Voting {
            w.upgrade(node, &vote(proposal, Ballot::Yes));
            w.block();
        }
    }
}

/// All four are ready with these roots, after the blocks that are rehearsed.
pub fn ready_all(w: &mut World, proposal: &Digest, roots: [&[u8]; 4]) {
    let rehearsal = w.proposal(proposal).rehearsal.unwrap();
    while w.height() < rehearsal.last() {
        w.block();
    }
    for (node, root) in roots.into_iter().enumerate() {
        if w.proposal(proposal).phase == Phase::Rehearsing {
            let op = ready(w, proposal, Some(root));
            let id = w.upgrade(node, &op);
            w.block();
            w.applied(&id);
        }
    }
}

#[test]
fn a_dapp_release_goes_live_inside_the_state_machine() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    w.applied(&proposal);
    vote_all(&mut w, &proposal);
    let state = w.proposal(&proposal);
    assert_eq!(state.phase, Phase::Rehearsing);
    assert_eq!(
        state.votes.len(),
        3,
        "more than two thirds are three of four"
    );
    assert_eq!(state.rehearsal.unwrap().from, w.height());
    ready_all(&mut w, &proposal, [b"r", b"r", b"r", b"r"]);
    let state = w.proposal(&proposal);
    assert_eq!(state.phase, Phase::Scheduled);
    assert_eq!(state.activation_height, Some(w.height() + 2));
    w.block();
    assert_eq!(w.slot("dapps/coin").number, 1);
    let by = secret("a");
    let id = w.say(0, &by, "coin", json!({"put": {"k": "1"}}));
    w.block();
    assert_eq!(w.slot("dapps/coin").number, 2);
    assert_eq!(w.slot("dapps/coin").since, w.height());
    let output = w.receipts[&id].output.clone().unwrap();
    assert_eq!(
        output,
        json!({"release": "2"}),
        "the entries of that block met the new release"
    );
    let state = w.proposal(&proposal);
    assert_eq!(state.phase, Phase::Activated);
    assert_eq!(state.activated_at, Some(w.height()));
    assert_eq!(w.event("activated").unwrap().id, proposal);
    let slots = crate::query::slots(&w.state).unwrap();
    let history: Vec<_> = slots["dapps/coin"]
        .history
        .iter()
        .map(|h| (h.number, h.by.clone()))
        .collect();
    assert_eq!(
        history,
        [(1, "genesis-admitted".into()), (2, proposal.to_string())]
    );
    assert!(!crate::due(&w.state, w.height() + 1, u64::MAX >> 12).unwrap());
}

#[test]
fn an_idle_chain_makes_the_blocks_that_are_waited_for_and_no_more() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    let due = |w: &World| crate::due(&w.state, w.height() + 1, w.time_ms + 1).unwrap();
    assert!(!due(&w), "votes are waited for, not blocks");
    vote_all(&mut w, &proposal);
    for _ in 0..3 {
        assert!(due(&w), "the blocks that are rehearsed");
        w.block();
    }
    assert!(!due(&w), "readiness is waited for");
    ready_all(&mut w, &proposal, [b"r", b"r", b"r", b"r"]);
    for _ in 0..2 {
        assert!(due(&w), "the activation");
        w.block();
    }
    assert!(!due(&w));
}

#[test]
fn votes() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    let again = w.propose(&round);
    w.refused(&again, "already-proposed");
    let key = w.developer.clone();
    let op = vote(&proposal, Ballot::Yes);
    let stranger = w.say(0, &key, ops::UPGRADE, op.to_value());
    let first = w.upgrade(0, &op);
    let second = w.upgrade(0, &op);
    w.block();
    w.refused(&stranger, "not-a-validator");
    w.applied(&first);
    w.refused(&second, "already-voted");
    w.upgrade(1, &vote(&proposal, Ballot::No));
    w.block();
    assert_eq!(w.proposal(&proposal).phase, Phase::Voting);
    w.upgrade(2, &vote(&proposal, Ballot::No));
    w.block();
    let state = w.proposal(&proposal);
    assert_eq!(
        (state.phase, state.rule.as_deref()),
        (Phase::Refused, Some("voted-down"))
    );
    let late = w.upgrade(3, &vote(&proposal, Ballot::Yes));
    w.block();
    w.refused(&late, "not-voting");
}

#[test]
fn silence_is_no_yes() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    for node in 0..2 {
        w.upgrade(node, &vote(&proposal, Ballot::Yes));
    }
    w.blocks(21);
    assert_eq!(w.proposal(&proposal).rule.as_deref(), Some("vote-deadline"));
}

#[test]
fn who_built_something_else_can_not_say_yes() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    w.build_all(&round, &[(0, b"x"), (1, b"x"), (2, b"x"), (3, b"y")]);
    let proposal = w.propose(&round);
    let id = w.upgrade(3, &vote(&proposal, Ballot::Yes));
    let mut lie = vote(&proposal, Ballot::Yes);
    if let UpgradeOp::Vote(vote) = &mut lie {
        vote.rebuilt = Some(Digest::of(b"another build"));
    }
    let lie = w.upgrade(2, &lie);
    w.block();
    w.refused(&id, "vote-without-matching-build");
    w.refused(&lie, "vote-without-matching-build");
}

#[test]
fn different_roots_refuse_a_release() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    vote_all(&mut w, &proposal);
    ready_all(&mut w, &proposal, [b"1", b"2", b"3", b"4"]);
    let state = w.proposal(&proposal);
    assert_eq!(state.phase, Phase::Refused);
    assert_eq!(state.rule.as_deref(), Some("rehearsal-roots-differ"));
    let event = w.event("proposal-refused").unwrap();
    assert_eq!(
        (event.id, &event.body["rule"]),
        (proposal, &json!("rehearsal-roots-differ"))
    );
    assert_eq!(
        state.ready.len(),
        3,
        "three roots of three nodes can't become one of three"
    );
}

#[test]
fn one_odd_root_is_outvoted() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    vote_all(&mut w, &proposal);
    ready_all(&mut w, &proposal, [b"1", b"r", b"r", b"r"]);
    assert_eq!(w.proposal(&proposal).phase, Phase::Scheduled);
}

#[test]
fn readiness_is_for_this_rehearsal_only() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    vote_all(&mut w, &proposal);
    let op = ready(&w, &proposal, Some(b"r"));
    let early = w.upgrade(0, &op);
    w.block();
    w.refused(&early, "ready-too-early");
    w.blocks(3);
    let mut other = op.clone();
    if let UpgradeOp::Ready(ready) = &mut other {
        ready.height -= 1;
    }
    let other = w.upgrade(0, &other);
    let no = ready(&w, &proposal, None);
    let first = w.upgrade(1, &no);
    let again = w.upgrade(1, &op);
    w.block();
    w.refused(&other, "ready-height-mismatch");
    w.applied(&first);
    w.refused(&again, "already-ready");
    w.upgrade(2, &no);
    w.block();
    assert_eq!(
        w.proposal(&proposal).rule.as_deref(),
        Some("rehearsal-failed")
    );
}

#[test]
fn readiness_has_a_deadline() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    vote_all(&mut w, &proposal);
    w.blocks(10);
    assert_eq!(
        w.proposal(&proposal).rule.as_deref(),
        Some("readiness-deadline")
    );
}

#[test]
fn a_failed_migration_voids_the_activation_in_that_block() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    vote_all(&mut w, &proposal);
    ready_all(&mut w, &proposal, [b"r", b"r", b"r", b"r"]);
    let release = w.proposal(&proposal).release.to_string();
    w.host.behave(release, Behaviour::MigrationCrashes);
    w.block();
    let id = w.say(0, &secret("a"), "coin", json!({"put": {"k": "1"}}));
    w.block();
    assert_eq!(
        w.receipts[&id].output,
        Some(json!({"release": null})),
        "the old one went on"
    );
    let state = w.proposal(&proposal);
    assert_eq!(
        (state.phase, state.rule.as_deref()),
        (Phase::Void, Some("migration-failed"))
    );
    assert_eq!(w.event("activation-voided").unwrap().id, proposal);
    assert_eq!(w.slot("dapps/coin").number, 1);
    assert_eq!(w.state.get("d/coin/release"), Ok(None));
}

#[test]
fn another_activation_in_between_begins_rehearsals_anew() {
    let mut w = World::new();
    let (two, three) = (w.agreed("dapps/coin", 2), w.agreed("dapps/coin", 3));
    let (two, three) = (w.propose(&two), w.propose(&three));
    for proposal in [&two, &three] {
        for node in 0..3 {
            w.upgrade(node, &vote(proposal, Ballot::Yes));
        }
    }
    w.blocks(4);
    for node in 0..3 {
        let op = ready(&w, &two, Some(b"r"));
        w.upgrade(node, &op);
    }
    w.block();
    let first = w.proposal(&three).rehearsal.unwrap().from;
    w.blocks(2);
    assert_eq!(w.slot("dapps/coin").number, 2);
    let state = w.proposal(&three);
    assert_eq!(state.phase, Phase::Rehearsing);
    assert_eq!(state.rehearsal.unwrap().from, w.height());
    assert_ne!(first, w.height());
    assert_eq!(w.event("rehearsal-restarted").unwrap().id, three);
    ready_all(&mut w, &three, [b"s", b"s", b"s", b"s"]);
    w.blocks(2);
    assert_eq!(w.slot("dapps/coin").number, 3);
}

#[test]
fn numbers_only_go_up() {
    let mut w = World::new();
    let (two, three) = (w.agreed("dapps/coin", 2), w.agreed("dapps/coin", 3));
    let (old, new) = (w.propose(&two), w.propose(&three));
    w.upgrade(0, &vote(&old, Ballot::Yes));
    vote_all(&mut w, &new);
    ready_all(&mut w, &new, [b"r", b"r", b"r", b"r"]);
    w.blocks(2);
    assert_eq!(w.slot("dapps/coin").number, 3);
    let dropped = w.proposal(&old);
    assert_eq!(dropped.rule.as_deref(), Some("number-not-higher"));
    let again = w.propose(&two);
    w.refused(&again, "number-not-higher");
}

#[test]
fn a_proposal_can_be_taken_back_by_its_operator() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    let cancel = UpgradeOp::Cancel(Cancel { proposal });
    let other = w.upgrade(0, &cancel);
    let key = w.developer.clone();
    let own = w.say(0, &key, ops::UPGRADE, cancel.to_value());
    w.block();
    w.refused(&other, "not-the-proposer");
    w.applied(&own);
    assert_eq!(w.proposal(&proposal).phase, Phase::Cancelled);
}

#[test]
fn only_what_a_round_agreed_on_is_proposed() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    let release: instar_attest::release::Cid =
        w.slot("dapps/coin").release.unwrap().parse().unwrap();
    let op = |round| {
        UpgradeOp::Propose(Propose {
            release: release.clone(),
            round,
        })
    };
    let open = w.upgrade(0, &op(round));
    let unknown = w.upgrade(0, &op(Digest::of(b"nothing")));
    w.block();
    w.refused(&open, "round-open");
    w.refused(&unknown, "unknown-round");
    w.build_all(&round, &[(0, b"x"), (1, b"x"), (2, b"x")]);
    let other = w.upgrade(0, &op(round));
    w.block();
    w.refused(&other, "release-mismatch");
}
