//! A fork checked from its clone alone: the mother's history up to where it left her, then its own.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use instar_audit::{Settings, Verdict, verify, verify_chain};
use instar_chain::{DappHost, MemoryState};
use instar_ledger::Genesis;
use serde_json::json;
use support::forge::Forge;
use support::{Chain, Coin};

fn transfer(chain: &mut Chain) {
    let entry = chain.entry(0, "coin", json!({"amount": "5", "to": "bob"}));
    chain.block(&[entry]);
}

/// A mother of five blocks whose coin writes, and her state after the third.
fn mother() -> (Chain, MemoryState) {
    let mut mother = Chain::new();
    mother.coin.writes = true;
    for _ in 0..3 {
        transfer(&mut mother);
    }
    let state = mother.state.clone();
    transfer(&mut mother);
    transfer(&mut mother);
    (mother, state)
}

/// A fork of her at the third, with two blocks, and its clone.
fn forked(change: impl FnOnce(&mut Genesis)) -> (Chain, Chain, PathBuf) {
    let (mut mother, state) = mother();
    let mut fork = mother.fork(3, &state, change);
    transfer(&mut fork);
    transfer(&mut fork);
    let clone = fork.clone();
    (mother, fork, clone)
}

fn with_dapps(clone: &Path) -> Verdict {
    let mut coin = Coin {
        writes: true,
        lie: None,
    };
    let settings = Settings {
        dapps: Some(&mut coin as &mut dyn DappHost),
        ..Settings::default()
    };
    verify(clone, settings)
}

#[test]
fn the_mothers_history_and_the_forks_own() {
    let (mother, fork, clone) = forked(|_| {});
    support::git(&["-C", clone.to_str().unwrap(), "fsck", "--strict"]);
    let native = verify(&clone, Settings::default());
    assert!(native.ok, "{:?}", native.wrong);
    assert_eq!((native.chain, native.height), (Some(fork.chain), 2));
    assert_eq!(native.verified_height, 2);
    assert_eq!((native.checked.blocks, native.checked.certificates), (5, 5));
    assert_eq!(native.forked_from.len(), 1);
    let from = &native.forked_from[0];
    assert_eq!((from.chain, from.height), (mother.chain, 3));
    assert_eq!(from.block, mother.store.block_at(3).unwrap());
    assert_eq!(
        native.checked.state_roots, 0,
        "the coin writes in the first"
    );

    // With the coin run again, every root of both is recomputed: the fork's begin with what the mother's came to.
    let whole = with_dapps(&clone);
    assert!(whole.ok, "{:?}", whole.wrong);
    assert_eq!(whole.checked.state_roots, 5);
    assert!(whole.not_checked.is_empty(), "{:?}", whole.not_checked);
    let (report, verified) = verify_chain(&clone);
    assert!(report.ok);
    assert_eq!(verified.unwrap().history.chain, fork.chain);
}

#[test]
fn a_fork_of_a_fork() {
    let (_mother, mut fork, _) = forked(|_| {});
    let state = fork.state.clone();
    let mut second = fork.fork(2, &state, |g| g.chain_name = "second".into());
    transfer(&mut second);
    let clone = second.clone();
    let whole = with_dapps(&clone);
    assert!(whole.ok, "{:?}", whole.wrong);
    assert_eq!((whole.forked_from.len(), whole.checked.blocks), (2, 6));
    assert_eq!(whole.checked.state_roots, 6);
}

#[test]
fn a_fork_without_a_block_of_its_own() {
    let (mut mother, state) = mother();
    let mut fork = mother.fork(3, &state, |_| {});
    let clone = fork.clone();
    let verdict = verify(&clone, Settings::default());
    assert!(verdict.ok, "{:?}", verdict.wrong);
    assert_eq!((verdict.height, verdict.checked.blocks), (0, 3));
}

#[test]
fn it_goes_on_in_the_fork_and_in_the_mother() {
    let (_mother, mut fork, clone) = forked(|_| {});
    let progress = fork.dir.path().join("work/progress");
    let run = || {
        let settings = Settings {
            progress: Some(&progress),
            ..Settings::default()
        };
        verify(&clone, settings)
    };
    // Something is wrong in the fork's second block: what is kept is up to there.
    transfer(&mut fork);
    fork.store.flush().unwrap();
    support::git(&["-C", clone.to_str().unwrap(), "fetch", "--quiet"]);
    let forge = Forge::open(&clone);
    let mut draft = forge.head();
    let honest = draft.clone();
    draft.header.validators = instar_attest::Digest::of(b"others");
    forge.replace(&fork, draft, |_| {});
    let first = run();
    let wrong = first.wrong.unwrap();
    assert_eq!((wrong.rule, wrong.height), ("validators-differ", Some(3)));
    assert_eq!(first.verified_height, 2);
    // The end of the mother was kept: she is not read again, and the fork is.
    let second = run();
    assert_eq!((second.resumed_at, second.forked_from.len()), (Some(3), 1));
    assert_eq!(second.wrong.unwrap().rule, "validators-differ");
    forge.replace(&fork, honest, |_| {});
    let third = run();
    assert!(third.ok, "{:?}", third.wrong);
    assert_eq!((third.resumed_at, third.checked.blocks), (Some(3), 6));
    transfer(&mut fork);
    fork.store.flush().unwrap();
    support::git(&["-C", clone.to_str().unwrap(), "fetch", "--quiet"]);
    let fourth = run();
    assert!(fourth.ok, "{:?}", fourth.wrong);
    assert_eq!((fourth.resumed_at, fourth.forked_from.len()), (Some(3), 0));
    assert_eq!(fourth.checked, verify(&clone, Settings::default()).checked);
}

/// Attack: the founders put a block under their fork that the mother never certified.
#[test]
fn a_mothers_block_without_a_quorum() {
    let (mother, _fork, clone) = forked(|genesis| {
        let fork = genesis.fork.as_mut().unwrap();
        fork.header.certificate.signatures.truncate(2);
    });
    let wrong = verify(&clone, Settings::default()).wrong.unwrap();
    assert_eq!((wrong.rule, wrong.height), ("certificate-power", Some(3)));
    assert!(wrong.what.contains(&mother.chain.to_string()), "{wrong}");
}

/// Attack: the certificate is of the same block, but signed for another chain.
#[test]
fn a_mothers_certificate_that_was_signed_for_another_chain() {
    let (_mother, _fork, clone) = forked(|genesis| {
        let header = &mut genesis.fork.as_mut().unwrap().header;
        let other = instar_attest::ChainId::from_bytes([5; 32]);
        header.certificate = support::certificate(&other, 3, header.certificate.block, 3);
    });
    let wrong = verify(&clone, Settings::default()).wrong.unwrap();
    assert_eq!(wrong.rule, "certificate-signature", "{wrong}");
}

/// Attack: the founders give themselves money by beginning with a state that was never the mother's.
#[test]
fn a_state_that_was_never_the_mothers() {
    let (mut mother, mut state) = mother();
    state.insert("d/coin/balance/me", "1000000");
    let mut fork = mother.fork(3, &state, |_| {});
    transfer(&mut fork);
    let clone = fork.clone();
    let wrong = with_dapps(&clone).wrong.unwrap();
    assert_eq!(
        (wrong.rule, wrong.height),
        ("state-root", Some(1)),
        "{wrong}"
    );
}

/// Attack: dapps begin with another program than the one that wrote their state.
#[test]
fn a_dapp_of_another_release_than_the_mothers() {
    let (mut mother, state) = mother();
    let mut fork = mother.fork(3, &state, |_| {});
    transfer(&mut fork);
    // What an honest founder can't make, since the rules refuse it: a genesis that is whole but for its release.
    let mut genesis = fork.store.genesis().clone();
    genesis.releases.clear();
    let chain = genesis.chain_id().unwrap();
    let refused = instar_chain::fork_writes(&genesis, &chain, &state).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("release that runs on the mother")
    );
    let path = fork.dir.path().join("other.git");
    let options = instar_ledger::store::OpenOptions {
        lane_mark: None,
        mother: Some(mother.store.path().into()),
    };
    let (mut other, _) = instar_ledger::Store::create_with(&path, &genesis, &options).unwrap();
    other.flush().unwrap();
    let wrong = verify(&path, Settings::default()).wrong.unwrap();
    assert_eq!(wrong.rule, "genesis-rules", "{wrong}");
}

/// A repository that ends where the fork begins is not the fork.
#[test]
fn a_clone_without_the_mothers_history() {
    let (_mother, fork, clone) = forked(|_| {});
    let at = fork.store.genesis().fork.as_ref().unwrap().block();
    // A clone by path borrows as the fork does; without that it has the fork's own objects alone.
    std::fs::remove_file(clone.join(".git/objects/info/alternates")).unwrap();
    let wrong = verify(&clone, Settings::default()).wrong.unwrap();
    assert_eq!((wrong.rule, wrong.object), ("object-missing", Some(at)));
}
