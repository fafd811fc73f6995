//! Gates that gate: each bad release is refused, and the very same one goes live with only that gate turned off.

use instar_attest::Digest;

use super::upgrades::{ready_all, vote, vote_all};
use super::world::*;
use crate::build::RoundPhase;
use crate::gates::Gate;
use crate::ops::{Ballot, BuildOp};

/// Runs a story with all gates and again without one; says which number the slot holds after each.
fn with_and_without(gate: Gate, story: impl Fn(&mut World)) -> (u64, u64) {
    let run = |mut w: World| {
        story(&mut w);
        w.slot("dapps/coin").number
    };
    (run(World::new()), run(World::without(gate)))
}

/// Takes a round as far as the rules allow.
fn as_far_as_it_goes(w: &mut World, round: &Digest, roots: [&[u8]; 4]) {
    let state = w.round(round);
    if state.release.is_none() && state.would_be.is_none() {
        return;
    }
    let proposal = w.propose(round);
    if crate::query::proposal(&w.state, &proposal)
        .unwrap()
        .is_none()
    {
        return;
    }
    vote_all(w, &proposal);
    if w.proposal(&proposal).rehearsal.is_some() {
        ready_all(w, &proposal, roots);
        w.blocks(3);
    }
}

const SAME: [&[u8]; 4] = [b"r", b"r", b"r", b"r"];

#[test]
fn too_few_builders() {
    let story = |w: &mut World| {
        let round = w.open("dapps/coin", 2);
        w.build_all(&round, &[(3, b"bad")]);
        as_far_as_it_goes(w, &round, SAME);
    };
    assert_eq!(with_and_without(Gate::BuilderThreshold, story), (1, 2));
}

#[test]
fn rehearsals_that_differ() {
    let story = |w: &mut World| {
        let round = w.agreed("dapps/coin", 2);
        as_far_as_it_goes(w, &round, [b"1", b"2", b"3", b"4"]);
    };
    assert_eq!(with_and_without(Gate::Rehearsal, story), (1, 2));
}

#[test]
fn too_few_votes() {
    let story = |w: &mut World| {
        let round = w.agreed("dapps/coin", 2);
        let proposal = w.propose(&round);
        for node in 0..2 {
            w.upgrade(node, &vote(&proposal, Ballot::Yes));
        }
        for node in 2..4 {
            w.upgrade(node, &vote(&proposal, Ballot::No));
        }
        w.block();
        if w.proposal(&proposal).rehearsal.is_some() {
            ready_all(w, &proposal, SAME);
            w.blocks(3);
        }
    };
    assert_eq!(with_and_without(Gate::Votes, story), (1, 2));
}

/// Everybody commits honestly, and then Ann, Bob and Cleo reveal as `reveal` says.
fn revealed(w: &mut World, reveal: impl Fn(&World, usize, &Digest) -> BuildOp) -> Digest {
    let round = w.open("dapps/coin", 2);
    for node in 0..4 {
        let op = w.commit_op(node, &round, b"good");
        w.build(node, &op);
    }
    w.block();
    for node in 0..3 {
        let op = reveal(w, node, &round);
        w.build(node, &op);
    }
    w.blocks(8);
    assert!(matches!(
        w.round(&round).phase,
        RoundPhase::Agreed | RoundPhase::Failed
    ));
    round
}

#[test]
fn reveals_that_open_no_commitment() {
    let story = |w: &mut World| {
        // They wait for what others show and say the same, without having built it.
        let round = revealed(w, |w, node, round| {
            BuildOp::Reveal(w.reveal_op(node, round, b"copied"))
        });
        as_far_as_it_goes(w, &round, SAME);
    };
    assert_eq!(with_and_without(Gate::Commitment, story), (1, 2));
}

#[test]
fn reveals_without_an_attestation_of_their_own() {
    let story = |w: &mut World| {
        let round = revealed(w, |w, node, round| {
            let mut reveal = w.reveal_op(node, round, b"good");
            reveal.bundle = w.bundle(&w.nodes[3].builder, round, &reveal.reveals[0].files);
            BuildOp::Reveal(reveal)
        });
        as_far_as_it_goes(w, &round, SAME);
    };
    assert_eq!(with_and_without(Gate::Attestation, story), (1, 2));
}
