//! Forks come back: what a motion proves and fixes.

use instar_attest::Digest;
use instar_ledger::fork::MAX_SLICE_BLOCKS;
use instar_ledger::{Oid, light};

use super::merges::{Forked, set_of, signed, world};
use super::world::{World, policy, secret};
use crate::govern::ops::ForkMerge;
use crate::govern::{Change, MAX_OPEN_FORKS, MAX_PARTS};
use crate::query;

#[test]
fn a_motion_proves_what_it_merges() {
    let mut w = world();
    let fork = Forked::of(&w, "fork", 4);
    let stranger = Forked::of(&w, "stranger", 4);
    let changed = |change: &dyn Fn(&mut ForkMerge)| {
        let mut op = fork.merge(&[2, 4]);
        change(&mut op);
        Change::ForkMerge(Box::new(op))
    };
    let cases = [
        (
            changed(&|op| op.genesis.chain_name = "other".into()),
            "fork-genesis",
        ),
        (changed(&|op| op.chain = stranger.chain), "fork-genesis"),
        (changed(&|op| op.genesis.fork = None), "fork-of-another"),
        (
            changed(&|op| op.header = stranger.blocks[3].clone()),
            "fork-not-certified",
        ),
        (
            changed(&|op| op.header.certificate.signatures.clear()),
            "fork-not-certified",
        ),
        (
            changed(&|op| op.header.header.time_ms += 1),
            "fork-not-certified",
        ),
        (changed(&|op| op.parts.clear()), "fork-parts"),
        (changed(&|op| op.parts.truncate(1)), "fork-parts"),
        (
            changed(&|op| op.parts[1].id = stranger.part(4).id),
            "fork-parts",
        ),
        (changed(&|op| op.parts[0].height = 4), "fork-parts"),
        (changed(&|op| op.parts.swap(0, 1)), "fork-parts"),
    ];
    for (change, rule) in cases {
        w.cant(change, rule);
    }
    let mut many = fork.merge(&[4]);
    many.parts = vec![fork.part(4); MAX_PARTS + 1];
    w.cant(Change::ForkMerge(Box::new(many)), "fork-parts");

    // Forks of other chains, and of heights that are not there yet.
    let mut elsewhere = World::with(policy(), |g| g.chain_name = "elsewhere".into());
    elsewhere.blocks(2);
    let foreign = Forked::of(&elsewhere, "fork", 1);
    w.cant(foreign.change(&[1]), "fork-of-another");
    let early = Forked::with(&w, "early", 1, |g| {
        let secret = secret("early consensus");
        let header = signed(
            w.chain,
            1_000,
            Oid::from_bytes([7; 32]),
            Digest::of(b""),
            &secret,
        );
        g.fork.as_mut().unwrap().header = header;
    });
    w.cant(early.change(&[1]), "fork-of-another");

    w.pass(fork.change(&[2, 4]));
    let record = &query::forks(&w.state).unwrap()[&fork.chain];
    assert_eq!((record.height, record.head), (0, fork.chain.into()));
    assert_eq!(record.parts, [fork.part(2), fork.part(4)]);
}

#[test]
fn slices_have_a_bounded_number_of_blocks() {
    let mut w = world();
    let fork = Forked::of(&w, "fork", MAX_SLICE_BLOCKS + 1);
    w.cant(fork.change(&[MAX_SLICE_BLOCKS + 1]), "fork-parts");
    let mut apart = fork.merge(&[1, MAX_SLICE_BLOCKS + 1]);
    apart.parts[0].height = 0;
    w.cant(Change::ForkMerge(Box::new(apart)), "fork-parts");
    w.pass(fork.change(&[1, MAX_SLICE_BLOCKS + 1]));
}

#[test]
fn a_fork_whose_validators_changed() {
    let mut w = world();
    let mut fork = Forked::of(&w, "fork", 1);
    let (old, new) = (fork.secret.clone(), secret("new consensus"));
    fork.grow(&old, set_of(&new).digest());
    fork.grow(&new, set_of(&new).digest());
    w.cant(fork.change(&[3]), "fork-not-certified");
    let mut op = fork.merge(&[3]);
    op.changes = vec![light::Change {
        at: fork.blocks[1].clone(),
        validators: set_of(&old),
    }];
    w.cant(
        Change::ForkMerge(Box::new(op.clone())),
        "fork-not-certified",
    );
    op.changes[0].validators = set_of(&new);
    w.pass(Change::ForkMerge(Box::new(op)));
}

/// Two motions about one fork pass; when the second takes effect, the first has gone further.
#[test]
fn a_motion_that_others_have_overtaken_is_void() {
    let mut w = world();
    let fork = Forked::of(&w, "fork", 4);
    let late = w.pass_later(fork.change(&[2]), 30);
    w.pass(fork.change(&[3]));
    w.merge(fork.slice(1, 3, vec![])).unwrap();
    w.blocks(30);
    let motion = query::motion(&w.state, &late).unwrap().unwrap();
    assert_eq!(motion.rule.as_deref(), Some("fork-merged-already"));
    assert!(w.event("motion-void").is_some());
}

#[test]
fn a_bounded_number_of_forks_at_once() {
    let mut w = world();
    let forks: Vec<Forked> = (0..=MAX_OPEN_FORKS)
        .map(|i| Forked::of(&w, &format!("fork-{i}"), 2))
        .collect();
    for fork in &forks[..MAX_OPEN_FORKS] {
        w.pass(fork.change(&[1]));
    }
    w.cant(forks[MAX_OPEN_FORKS].change(&[1]), "too-many-forks");
    // One that is under way may be changed, and the oldest motion is due first.
    w.pass(forks[1].change(&[2]));
    let due = query::forks_due(&w.state).unwrap();
    assert_eq!(due.len(), MAX_OPEN_FORKS);
    assert_eq!(due[0].range.chain, forks[0].chain);
    w.merge(forks[3].slice(1, 1, vec![])).unwrap();
    w.pass(forks[MAX_OPEN_FORKS].change(&[1]));
}
