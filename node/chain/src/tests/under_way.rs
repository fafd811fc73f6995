//! What is under way keeps those whom it asked at its beginning, also when the set changes in the middle.

use instar_attest::{Digest, Purpose};

use super::govern::{ballot, propose, replace, validator_remove};
use super::upgrades::{ready_all, vote_all};
use super::world::*;
use crate::ops::{Ballot, Health, Report, UpgradeOp, Vote};
use crate::query;
use crate::upgrade::Phase;

fn yes(proposal: Digest) -> UpgradeOp {
    UpgradeOp::Vote(Vote {
        proposal,
        reason: None,
        rebuilt: None,
        vote: Ballot::Yes,
    })
}

#[test]
fn a_proposal_is_decided_by_those_who_were_there_when_it_was_made() {
    let mut w = World::new();
    w.join("fay");
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    let eve = w.join("eve");
    w.pass(validator_remove("dan"));
    let newcomer = w.upgrade(eve, &yes(proposal));
    let gone = w.upgrade(3, &yes(proposal));
    for node in 0..3 {
        w.upgrade(node, &yes(proposal));
    }
    w.block();
    w.refused(&newcomer, "not-a-validator");
    w.refused(&gone, "not-a-validator");
    // Three of the five that were asked: the one who left counts as silent.
    assert_eq!(w.proposal(&proposal).phase, Phase::Voting);
    w.upgrade(4, &yes(proposal));
    w.block();
    assert_eq!(w.proposal(&proposal).phase, Phase::Rehearsing);
}

#[test]
fn who_replaces_the_account_key_goes_on_where_the_old_one_stood() {
    let mut w = World::new();
    let round = w.agreed("dapps/coin", 2);
    let proposal = w.propose(&round);
    let motion = w.govern(1, &propose(validator_remove("dan"), 1));
    w.block();
    let new = secret("ann account 2");
    let change = replace(
        &w.chain,
        &w.nodes[0].account,
        &new,
        Purpose::Account,
        "ann-ltd",
    );
    w.pass(change);
    let old = std::mem::replace(&mut w.nodes[0].account, new);
    let by_old = w.say(0, &old, "upgrade", yes(proposal).to_value());
    vote_all(&mut w, &proposal);
    w.block();
    w.refused(&by_old, "key-retired");
    assert!(w.proposal(&proposal).votes.contains_key("ann"));
    let counted = w.govern(0, &ballot(motion, Ballot::Yes));
    w.block();
    w.applied(&counted);
}

#[test]
fn a_builder_whose_account_key_is_replaced_reveals_what_it_committed_to() {
    let mut w = World::new();
    let round = w.open("dapps/coin", 2);
    let new = secret("ann account 2");
    w.pass(replace(
        &w.chain,
        &w.nodes[0].account,
        &new,
        Purpose::Account,
        "ann-ltd",
    ));
    w.nodes[0].account = new;
    w.build_all(&round, &[(0, b"x"), (1, b"x"), (2, b"x"), (3, b"x")]);
    let closed = w.round(&round);
    assert!(
        closed.is_closed() && closed.matched.contains(&"ann".to_owned()),
        "{closed:?}"
    );
}

#[test]
fn health_is_seen_under_a_new_consensus_key() {
    let mut w = World::new();
    let round = w.agreed("node", 1);
    let proposal = w.propose(&round);
    vote_all(&mut w, &proposal);
    ready_all(&mut w, &proposal, [b"r", b"r", b"r", b"r"]);
    w.blocks(3);
    assert_eq!(w.proposal(&proposal).phase, Phase::Rolling);
    let first = w.proposal(&proposal).rollout.unwrap().waves[0][0].clone();
    let node = w.nodes.iter().position(|n| n.name == first).unwrap();
    let release = w.proposal(&proposal).release;
    w.upgrade(
        node,
        &UpgradeOp::Report(Report {
            proposal,
            reason: None,
            result: Health::Healthy,
            running: Some(release),
        }),
    );
    let new = secret("a new consensus key");
    let operator = format!("{first}-ltd");
    // Its old key signs nothing from here on.
    w.signing[node] = false;
    let change = replace(
        &w.chain,
        &w.nodes[node].consensus,
        &new,
        Purpose::Consensus,
        &operator,
    );
    w.pass(change);
    let seen = |w: &World| w.proposal(&proposal).rollout.unwrap().reports[&first].seen_at;
    assert_eq!(seen(&w), None);
    w.nodes[node].consensus = new;
    w.signing[node] = true;
    w.blocks(2);
    assert!(seen(&w).is_some());
    assert!(query::rollout(&w.state).unwrap().is_some());
}
