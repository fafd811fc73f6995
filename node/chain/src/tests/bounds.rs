//! The largest records that the rules allow fit what the state takes.

use std::collections::BTreeMap;

use instar_attest::release::Target;
use instar_attest::{Digest, PublicKey};
use instar_ledger::validators::MAX_VALIDATORS;

use super::upgrades::vote_all;
use super::world::*;
use crate::build::{BuilderRecord, Revealed};
use crate::ops::{Ballot, Health, MAX_REASON_BYTES, clip_reason, is_reason};
use crate::policy::{MAX_RECIPES, MAX_TARGETS};
use crate::record::encode;
use crate::upgrade::{Member, ReadyRecord, ReportRecord, Rollout, VoteRecord};

fn name(i: usize) -> String {
    format!("{i:0>64}")
}

fn key(i: usize) -> PublicKey {
    PublicKey::from_bytes(*Digest::of(&i.to_be_bytes()).as_bytes())
}

#[test]
fn a_round_of_the_largest_set_fits_a_value() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    let mut round = w.round(&round);
    let targets: BTreeMap<Target, Digest> = (0..MAX_TARGETS)
        .map(|i| {
            (
                format!("{i}{}", "x".repeat(63)).parse().unwrap(),
                Digest::of(b""),
            )
        })
        .collect();
    let builder = |i: usize| BuilderRecord {
        account: key(i),
        commitments: targets.clone(),
        committed: Some(Digest::of(b"")),
        key: key(i),
        name: name(i),
        operator: name(i),
        revealed: Some(Revealed {
            bundle: Digest::of(b""),
            entry: Digest::of(b""),
            sbom: Digest::of(b""),
            targets: targets.clone(),
        }),
    };
    round.builders = (0..MAX_VALIDATORS).map(builder).collect();
    round.matched = (0..MAX_VALIDATORS).map(name).collect();
    round.policy.builder_names = Some(round.matched.clone());
    round.policy.recipes = (0..MAX_RECIPES).map(name).collect();
    round.agreed = targets;
    round.detail = Some("x".repeat(1024));
    encode("round", &round).unwrap();
}

#[test]
fn a_proposal_of_the_largest_set_fits_a_value() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    vote_all(&mut w, &proposal);
    let mut p = w.proposal(&proposal);
    let reason = Some(clip_reason(&"\u{1}".repeat(1000)));
    let all = 0..MAX_VALIDATORS;
    p.validators = all
        .clone()
        .map(|i| Member {
            account: key(i),
            key: key(i),
            name: name(i),
            operator: name(i),
            power: 1 << 44,
        })
        .collect();
    let (entry, height) = (Digest::of(b""), 1 << 52);
    let vote = VoteRecord {
        entry,
        height,
        reason: reason.clone(),
        rebuilt: Some(entry),
        vote: Ballot::Yes,
    };
    let ready = ReadyRecord {
        entry,
        height,
        reason: reason.clone(),
        root: Some(entry),
    };
    let report = ReportRecord {
        entry,
        height,
        reason,
        result: Health::Reverted,
        seen_at: Some(height),
    };
    p.votes = all.clone().map(|i| (name(i), vote.clone())).collect();
    p.ready = all.clone().map(|i| (name(i), ready.clone())).collect();
    p.policy.builder_names = Some(all.clone().map(name).collect());
    p.rollout = Some(Rollout {
        deadline: p.deadline.unwrap(),
        index: 0,
        paused_until: p.deadline,
        reports: all.clone().map(|i| (name(i), report.clone())).collect(),
        silent: Vec::new(),
        since: height,
        waves: all.map(|i| vec![name(i)]).collect(),
    });
    encode("proposal", &p).unwrap();
}

#[test]
fn reasons_are_cut_by_what_they_weigh() {
    assert!(is_reason(&"x".repeat(MAX_REASON_BYTES - 2)));
    assert!(!is_reason(&"x".repeat(MAX_REASON_BYTES - 1)));
    assert!(!is_reason(&"\u{1}".repeat(100)));
    for text in [
        "",
        "short",
        &"x".repeat(1000),
        &"\u{1}".repeat(1000),
        &"ä€".repeat(300),
    ] {
        let cut = clip_reason(text);
        assert!(is_reason(&cut) && text.starts_with(&cut));
    }
}

#[test]
fn a_motion_of_the_largest_set_fits_a_value() {
    use super::govern::{propose, validator_add};
    use crate::govern::MotionBallot;
    let mut w = World::new();
    let mut node = Node::of("eve");
    node.name = name(1);
    let change = validator_add(&w.chain, &node, &name(2), 1);
    let motion = w.govern(0, &propose(change, 1));
    w.block();
    w.applied(&motion);
    let mut motion = crate::query::motion(&w.state, &motion).unwrap().unwrap();
    let reason = Some(clip_reason(&"\u{1}".repeat(1000)));
    let member = |i: usize| Member {
        account: key(i),
        key: key(i),
        name: name(i),
        operator: name(i),
        power: 1 << 44,
    };
    let ballot = |i: usize| MotionBallot {
        entry: Digest::of(&i.to_be_bytes()),
        height: 1 << 52,
        reason: reason.clone(),
        vote: Ballot::Yes,
    };
    motion.reason = reason.clone();
    motion.detail = Some("x".repeat(1024));
    motion.validators = (0..MAX_VALIDATORS).map(member).collect();
    motion.votes = (0..MAX_VALIDATORS).map(|i| (name(i), ballot(i))).collect();
    encode("motion", &motion).unwrap();
}
