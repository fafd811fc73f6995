//! Build rounds: what counts, and what is refused by which rule.

use instar_attest::Digest;

use super::world::*;
use crate::build::RoundPhase;
use crate::ops::{self, BuildOp};

#[test]
fn four_builders_agree_and_the_ledger_computes_the_release() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let state = w.round(&round);
    assert_eq!(state.matched, ["ann", "bob", "cleo", "dan"]);
    let cid = state.release.unwrap();
    let text = crate::query::release_json(&w.state, cid.as_str()).unwrap();
    let release = instar_attest::release::Release::parse(text.unwrap().as_bytes()).unwrap();
    assert_eq!(crate::build::release_root(&release).unwrap().1, cid);
    assert_eq!((release.number, release.chain), (2, w.chain));
    assert_eq!(w.event("round-closed").unwrap().id, round);
    let left = crate::StateView::range(&w.state, "n/reveal/", 10).unwrap();
    assert!(
        left.is_empty(),
        "what was revealed stays in entries, not in the state"
    );
}

#[test]
fn the_reveal_phase_never_begins_at_k() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    for node in 0..3 {
        let op = w.commit_op(node, &round, b"x");
        w.build(node, &op);
        w.block();
    }
    assert_eq!(
        w.round(&round).phase,
        RoundPhase::Commit,
        "k have committed, n have not"
    );
    let early = BuildOp::Reveal(w.reveal_op(0, &round, b"x"));
    let early = w.build(0, &early);
    w.block();
    w.refused(&early, "early-reveal");
    let op = w.commit_op(3, &round, b"x");
    w.build(3, &op);
    w.block();
    assert_eq!(w.round(&round).phase, RoundPhase::Reveal);
}

#[test]
fn deadlines_need_blocks_and_block_time() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    // Much time in one block, as on an idle chain: the blocks are still to come, and are asked for.
    w.time_ms += 60 * STEP_MS;
    w.block();
    assert_eq!(w.round(&round).phase, RoundPhase::Commit);
    assert!(crate::due(&w.state, w.height() + 1, w.time_ms).unwrap());
    w.blocks(5);
    assert_eq!(w.round(&round).phase, RoundPhase::Failed);
    assert!(!crate::due(&w.state, w.height() + 1, w.time_ms).unwrap());

    let round = w.open("dapps/coin", 2);
    let now = w.time_ms;
    for _ in 0..20 {
        // Many blocks in little time, as on a flooded chain.
        w.time_ms -= STEP_MS - 10;
        w.block();
    }
    assert!(w.time_ms < now + 6 * STEP_MS);
    assert_eq!(w.round(&round).phase, RoundPhase::Commit);
}

#[test]
fn too_few_builders_fail_and_the_release_that_would_be_is_named() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    w.build_all(&round, &[(3, b"bad")]);
    let state = w.round(&round);
    assert_eq!(state.phase, RoundPhase::Failed);
    assert_eq!(state.rule.as_deref(), Some("builders-below-threshold"));
    assert_eq!(state.detail.as_deref(), Some("1 of 3 builders"));
    assert!(state.release.is_none() && state.would_be.is_some());
    let proposal = w.propose(&round);
    w.refused(&proposal, "builders-below-threshold");
}

#[test]
fn one_flipped_byte_is_no_match() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    w.build_all(
        &round,
        &[(0, b"good"), (1, b"good"), (2, b"good"), (3, b"gooe")],
    );
    let state = w.round(&round);
    assert_eq!(state.phase, RoundPhase::Agreed, "three of four are enough");
    assert_eq!(state.matched, ["ann", "bob", "cleo"]);
    assert!(state.contradicted_by(&w.nodes[3].name));
}

#[test]
fn two_builders_of_one_operator_count_once() {
    let mut w = World::with(policy(), |genesis| {
        genesis.validators[1].operator = "ann-ltd".into();
    });
    let round = w.open("dapps/coin", 2);
    w.build_all(&round, &[(0, b"x"), (1, b"x"), (2, b"x")]);
    let state = w.round(&round);
    assert_eq!(state.detail.as_deref(), Some("2 of 3 builders"));
}

#[test]
fn a_late_reveal_does_not_count() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    for node in 0..3 {
        let op = w.commit_op(node, &round, b"x");
        w.build(node, &op);
    }
    w.blocks(7);
    for node in 0..2 {
        let op = BuildOp::Reveal(w.reveal_op(node, &round, b"x"));
        w.build(node, &op);
    }
    w.blocks(5);
    assert_eq!(w.round(&round).detail.as_deref(), Some("2 of 3 builders"));
    let before = w.round(&round);
    let late = BuildOp::Reveal(w.reveal_op(2, &round, b"x"));
    let late = w.build(2, &late);
    w.block();
    w.refused(&late, "late-reveal");
    assert_eq!(w.round(&round), before);
}

#[test]
fn a_reveal_opens_its_own_commitment_and_no_other() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    let copied = w.commit_op(0, &round, b"x");
    // Dan copies Ann's commitment, hoping to copy her reveal later.
    for node in [0, 3] {
        w.build(node, &copied);
    }
    let op = w.commit_op(1, &round, b"x");
    w.build(1, &op);
    w.blocks(7);
    let op = BuildOp::Reveal(w.reveal_op(1, &round, b"other bytes"));
    let changed = w.build(1, &op);
    let stolen = BuildOp::Reveal(w.reveal_op(0, &round, b"x"));
    let stolen = w.build(3, &stolen);
    w.block();
    w.refused(&changed, "commitment-mismatch");
    w.refused(&stolen, "commitment-mismatch");
}

#[test]
fn an_attestation_by_a_key_of_another_purpose_is_named() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    let op = w.commit_op(0, &round, b"x");
    w.build(0, &op);
    w.blocks(7);
    let mut reveal = w.reveal_op(0, &round, b"x");
    let files = reveal.reveals[0].files.clone();
    reveal.bundle = w.bundle(&w.nodes[0].lane, &round, &files);
    let lane = w.build(0, &BuildOp::Reveal(reveal.clone()));
    w.block();
    w.refused(&lane, "wrong-key-purpose");
    reveal.bundle = w.bundle(&w.nodes[1].builder, &round, &files);
    let other = w.build(0, &BuildOp::Reveal(reveal.clone()));
    w.block();
    w.refused(&other, "attestation-other-key");
    reveal.bundle = w.bundle(
        &w.nodes[0].builder,
        &round,
        &[file("rootfs/bin/coin", b"y")],
    );
    let other = w.build(0, &BuildOp::Reveal(reveal));
    w.block();
    w.refused(&other, "attestation-subjects");
}

#[test]
fn what_can_be_opened() {
    let mut w = World::new();
    let key = w.developer.clone();
    let say = |w: &mut World, change: &dyn Fn(&mut ops::Open), number: u64| {
        let mut op = World::open_op("dapps/coin", number);
        change(&mut op);
        let id = w.say(0, &key, ops::BUILD, BuildOp::Open(op).to_value());
        w.block();
        id
    };
    type Change = Box<dyn Fn(&mut ops::Open)>;
    let cases: Vec<(&str, Change)> = vec![
        (
            "unknown-slot",
            Box::new(|o| o.slot = "dapps/other".parse().unwrap()),
        ),
        (
            "activation-mismatch",
            Box::new(|o| o.activation = instar_attest::release::Activation::Rolling),
        ),
        (
            "name-mismatch",
            Box::new(|o| o.name = "other".parse().unwrap()),
        ),
        ("protocol-mismatch", Box::new(|o| o.protocol = 2)),
        ("bad-source", Box::new(|o| o.source.commit = "abc".into())),
        ("targets-missing", Box::new(|o| o.targets.clear())),
        (
            "bad-targets",
            Box::new(|o| o.targets = vec![target(), target()]),
        ),
        ("number-not-higher", Box::new(|o| o.number = 1)),
        ("number-too-high", Box::new(|o| o.number = 1002)),
    ];
    for (rule, change) in cases {
        let id = say(&mut w, &*change, 2);
        w.refused(&id, rule);
    }
    let first = say(&mut w, &|_| {}, 2);
    w.applied(&first);
    let same = say(&mut w, &|_| {}, 2);
    w.refused(&same, "number-not-higher");
    let next = say(&mut w, &|_| {}, 3);
    w.applied(&next);
}

#[test]
fn a_commit_whose_bytes_are_public_gets_no_second_round() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    w.build_all(&round, &[(3, b"bad")]);
    let op = World::open_op("dapps/coin", 2);
    let key = w.developer.clone();
    let again = w.say(0, &key, ops::BUILD, BuildOp::Open(op).to_value());
    w.block();
    w.refused(&again, "source-already-revealed");
}

#[test]
fn strangers_and_unknown_rounds() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    let op = w.commit_op(0, &round, b"x");
    let (developer, stranger) = (w.developer.clone(), secret("stranger"));
    let by_developer = w.say(0, &developer, ops::BUILD, op.to_value());
    let by_stranger = w.say(0, &stranger, ops::BUILD, op.to_value());
    let nonsense = w.say(
        0,
        &developer,
        ops::BUILD,
        serde_json::json!({"op": "close"}),
    );
    let mut unknown = op.clone();
    if let BuildOp::Commit(commit) = &mut unknown {
        commit.round = Digest::of(b"nothing");
    }
    let unknown = w.build(0, &unknown);
    let first = w.build(0, &op);
    let second = w.build(0, &op);
    w.block();
    w.refused(&by_developer, "not-a-builder");
    w.refused(&by_stranger, "unknown-author");
    w.refused(&nonsense, "malformed-body");
    w.refused(&unknown, "unknown-round");
    w.applied(&first);
    w.refused(&second, "already-committed");
}
