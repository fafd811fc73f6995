//! How motions are decided.

use instar_attest::Digest;
use serde_json::json;

use super::govern::{ballot, operator_add, power, propose, validator_add, validator_remove};
use super::world::*;
use crate::govern::ops::*;
use crate::govern::{
    GovernOp, MAX_DELAY_BLOCKS, MAX_OPEN_MOTIONS_AN_OPERATOR, MotionPhase, VOTE_MS,
};
use crate::ops::Ballot;
use crate::{due, query};

#[test]
fn motions_are_decided_once() {
    let mut w = World::new();
    w.cant(power("ann", 2), "too-much-power");
    let stranger = secret("stranger");
    let change = validator_add(&w.chain, &Node::of("eve"), "eve-ltd", 1);
    let said = w.say(
        0,
        &stranger,
        "govern",
        propose(change.clone(), 1).to_value(),
    );
    let mut slow = propose(change.clone(), MAX_DELAY_BLOCKS + 1);
    let too_late = w.govern(0, &slow);
    if let GovernOp::Propose(p) = &mut slow {
        p.delay = 0;
    }
    let at_once = w.govern(0, &slow);
    let nonsense = w.say(
        0,
        &w.nodes[0].account.clone(),
        "govern",
        json!({"op": "rule"}),
    );
    let unknown = w.govern(0, &ballot(Digest::of(b""), Ballot::Yes));
    w.block();
    w.refused(&said, "unknown-author");
    w.refused(&too_late, "bad-delay");
    w.refused(&at_once, "bad-delay");
    w.refused(&nonsense, "malformed-body");
    w.refused(&unknown, "unknown-motion");

    let motion = w.govern(0, &propose(change.clone(), 2));
    w.block();
    w.applied(&motion);
    let again = w.govern(1, &propose(change.clone(), 2));
    w.block();
    w.refused(&again, "already-proposed");
    let no = w.govern(1, &ballot(motion, Ballot::No));
    let twice = w.govern(1, &ballot(motion, Ballot::Yes));
    let by_developer = w.say(
        2,
        &w.developer.clone(),
        "govern",
        ballot(motion, Ballot::No).to_value(),
    );
    let withdraw = GovernOp::Withdraw(Withdraw { motion });
    let not_own = w.govern(2, &withdraw);
    w.block();
    w.applied(&no);
    w.refused(&twice, "already-voted");
    w.refused(&by_developer, "not-a-validator");
    w.refused(&not_own, "not-the-proposer");
    assert_eq!(
        query::motion(&w.state, &motion).unwrap().unwrap().phase,
        MotionPhase::Voting
    );
    w.govern(2, &ballot(motion, Ballot::No));
    w.block();
    let refused = query::motion(&w.state, &motion).unwrap().unwrap();
    assert_eq!(
        (refused.phase, refused.rule.as_deref()),
        (MotionPhase::Refused, Some("voted-down"))
    );
    assert_eq!(
        w.event("motion-refused").unwrap().body["rule"],
        "voted-down"
    );
    let late = w.govern(3, &ballot(motion, Ballot::Yes));
    w.block();
    w.refused(&late, "not-voting");

    let motion = w.govern(0, &propose(change, 2));
    w.govern(0, &GovernOp::Withdraw(Withdraw { motion }));
    w.block();
    assert_eq!(
        query::motion(&w.state, &motion).unwrap().unwrap().phase,
        MotionPhase::Withdrawn
    );
    assert!(w.event("motion-withdrawn").is_some());
}

#[test]
fn a_motion_that_nobody_decides_ends_at_its_deadline() {
    let mut w = World::new();
    let motion = w.govern(0, &propose(validator_remove("dan"), 1));
    w.block();
    w.blocks(20);
    assert!(!due(&w.state, w.height() + 1, w.time_ms + STEP_MS).unwrap());
    w.time_ms += VOTE_MS;
    assert!(due(&w.state, w.height() + 1, w.time_ms + STEP_MS).unwrap());
    w.block();
    let ended = query::motion(&w.state, &motion).unwrap().unwrap();
    assert_eq!(ended.rule.as_deref(), Some("vote-deadline"));
    assert!(!due(&w.state, w.height() + 1, w.time_ms + STEP_MS).unwrap());
}

#[test]
fn a_motion_that_passed_is_waited_for_and_tried_again() {
    let mut w = World::new();
    w.join("eve");
    w.join("fay");
    let first = w.pass_later(validator_remove("dan"), 6);
    assert!(due(&w.state, w.height() + 1, w.time_ms + 1).unwrap());
    // The same thing decided a second time, which takes effect first.
    let motion = w.govern(1, &propose(power("dan", 2), 1));
    w.block();
    w.applied(&motion);
    for node in 0..6 {
        w.govern(node, &ballot(motion, Ballot::Yes));
    }
    w.blocks(6);
    assert!(w.powers().iter().all(|(name, _)| name != "dan"));
    assert_eq!(
        query::motion(&w.state, &first).unwrap().unwrap().phase,
        MotionPhase::Done
    );

    // Two removals that each could be, and together not.
    let a = w.pass_later(validator_remove("eve"), 5);
    let b = w.govern(1, &propose(validator_remove("fay"), 1));
    let c = w.govern(2, &propose(validator_remove("cleo"), 1));
    w.block();
    for motion in [b, c] {
        w.applied(&motion);
        for node in [0, 1, 2, 4, 5] {
            w.govern(node, &ballot(motion, Ballot::Yes));
        }
    }
    w.blocks(6);
    let phase = |id| query::motion(&w.state, &id).unwrap().unwrap();
    assert_eq!(phase(b).phase, MotionPhase::Done);
    assert_eq!(phase(c).phase, MotionPhase::Done);
    let void = phase(a);
    assert_eq!(
        (void.phase, void.rule.as_deref()),
        (MotionPhase::Void, Some("policy-unmet"))
    );
    assert_eq!(w.event("motion-void").unwrap().body["rule"], "policy-unmet");
    assert_eq!(w.powers().len(), 3);
}

#[test]
fn one_operator_does_not_fill_the_list() {
    let mut w = World::new();
    for i in 0..=MAX_OPEN_MOTIONS_AN_OPERATOR {
        let change = operator_add(&w.chain, &format!("op-{i}"), &secret(&format!("op {i}")));
        let motion = w.govern(0, &propose(change, 1));
        w.block();
        if i < MAX_OPEN_MOTIONS_AN_OPERATOR {
            w.applied(&motion);
        } else {
            w.refused(&motion, "too-many-motions");
        }
    }
    let change = operator_add(&w.chain, "op", &secret("op"));
    let other = w.govern(1, &propose(change, 1));
    w.block();
    w.applied(&other);
}

#[test]
fn govern_is_no_dapp() {
    let mut w = World::new();
    w.genesis.dapps[0].name = "govern".into();
    w.genesis.accounts.clear();
    w.genesis.releases.clear();
    let refused = crate::genesis_writes(&w.genesis, &w.chain).unwrap_err();
    assert!(refused.to_string().contains("govern"), "{refused}");
}
