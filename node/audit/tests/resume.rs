//! Verifying again: from where an earlier run ended, from a trusted block, and with dapps run again.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use instar_audit::{Settings, Trusted, Verdict, verify};
use instar_chain::{DappCall, DappFailure, DappHost, DappResult};
use instar_ledger::Store;
use serde_json::json;
use support::forge::Forge;
use support::{Chain, Coin};

fn transfer(chain: &mut Chain) {
    let entry = chain.entry(0, "coin", json!({"amount": "5", "to": "bob"}));
    chain.block(&[entry]);
}

fn fetched(chain: &mut Chain, clone: &Path) {
    chain.store.flush().unwrap();
    support::git(&["-C", clone.to_str().unwrap(), "fetch", "--quiet"]);
}

fn chain_of(blocks: usize) -> (Chain, PathBuf, PathBuf) {
    let mut chain = Chain::new();
    for _ in 0..blocks {
        transfer(&mut chain);
    }
    let clone = chain.clone();
    let progress = chain.dir.path().join("work/progress");
    (chain, clone, progress)
}

fn run(clone: &Path, progress: &Path) -> (Verdict, Vec<String>) {
    let mut notes = Vec::new();
    let mut note = |text: &str| notes.push(text.to_owned());
    let verdict = verify(
        clone,
        Settings {
            progress: Some(progress),
            note: Some(&mut note),
            ..Settings::default()
        },
    );
    (verdict, notes)
}

#[test]
fn it_goes_on_where_it_ended() {
    let (mut chain, clone, progress) = chain_of(4);
    let (first, notes) = run(&clone, &progress);
    assert!(first.ok && notes.is_empty(), "{first:?} {notes:?}");
    assert_eq!(first.resumed_at, None);
    for _ in 0..3 {
        transfer(&mut chain);
    }
    fetched(&mut chain, &clone);
    let (second, notes) = run(&clone, &progress);
    assert!(second.ok, "{:?}", second.wrong);
    assert_eq!((second.resumed_at, notes.len()), (Some(4), 1), "{notes:?}");
    let whole = verify(&clone, Settings::default());
    assert_eq!(second.checked, whole.checked);
    assert_eq!(whole.verified_height, 7);
    // Nothing new is nothing to do.
    let (third, _) = run(&clone, &progress);
    assert!(third.ok);
    assert_eq!(third.checked, whole.checked);
}

#[test]
fn what_is_found_wrong_after_going_on() {
    let (mut chain, clone, progress) = chain_of(3);
    assert!(run(&clone, &progress).0.ok);
    transfer(&mut chain);
    fetched(&mut chain, &clone);
    let forge = Forge::open(&clone);
    let mut draft = forge.head();
    draft.header.state_root = instar_attest::Digest::of(b"other");
    forge.replace(&chain, draft, |_| {});
    let (verdict, _) = run(&clone, &progress);
    assert_eq!(verdict.resumed_at, Some(3));
    assert_eq!(verdict.verified_height, 3);
    assert_eq!(verdict.wrong.unwrap().rule, "state-root");
}

#[test]
fn a_history_that_was_rewritten_since() {
    let (chain, clone, progress) = chain_of(3);
    assert!(run(&clone, &progress).0.ok);
    // Another block in its place, signed by the same validators: only who saw the first one can know.
    let forge = Forge::open(&clone);
    let mut draft = forge.head();
    draft.header.time_ms += 1;
    let other = forge.replace(&chain, draft, |_| {});
    let wrong = run(&clone, &progress).0.wrong.unwrap();
    assert_eq!(
        (wrong.rule, wrong.height, wrong.object),
        ("history-rewritten", Some(3), Some(other))
    );
}

#[test]
fn progress_that_is_torn_damaged_or_of_a_newer_clone() {
    let (mut chain, clone, progress) = chain_of(3);
    assert!(run(&clone, &progress).0.ok);
    let good = std::fs::read(&progress).unwrap();
    for cut in [0, 10, good.len() / 2, good.len() - 1] {
        std::fs::write(&progress, &good[..cut]).unwrap();
        let (verdict, notes) = run(&clone, &progress);
        assert!(verdict.ok && verdict.resumed_at.is_none());
        assert!(notes[0].contains("starting over"), "{notes:?}");
    }
    let mut flipped = good.clone();
    let at = flipped.iter().rposition(|b| *b == b'[').unwrap() + 3;
    flipped[at] ^= 1;
    std::fs::write(&progress, &flipped).unwrap();
    assert!(run(&clone, &progress).1[0].contains("checksum"));
    // A clone of before, with the progress of after: it is read from genesis and holds.
    let older = chain.dir.path().join("older");
    std::fs::rename(&clone, &older).unwrap();
    transfer(&mut chain);
    let newer = chain.clone();
    assert!(run(&newer, &progress).0.ok);
    let (verdict, _) = run(&older, &progress);
    assert!(verdict.ok && verdict.resumed_at.is_none(), "{verdict:?}");
}

#[test]
fn signatures_up_to_a_trusted_block() {
    let (chain, clone, _) = chain_of(4);
    let store = Store::open_clone(&clone).unwrap();
    let from = |height, block| Settings {
        trusted: Some(Trusted { height, block }),
        ..Settings::default()
    };
    let verdict = verify(&clone, from(3, store.block_at(3)));
    assert!(verdict.ok, "{:?}", verdict.wrong);
    assert_eq!(verdict.checked.certificates, 1);
    assert_eq!(verdict.checked.signatures, 1 + 1 + 3);
    assert_eq!(
        verdict.checked.state_roots, 4,
        "rules are run again all the same"
    );
    assert!(verdict.not_checked[0].contains("up to height 3"));
    let other = verify(&clone, from(3, store.block_at(2)));
    assert_eq!(other.wrong.unwrap().rule, "other-checkpoint");
    assert!(verify(&clone, from(9, None)).cannot_tell.is_some());
    // A head that nobody may vouch for: its certificate is checked although it is trusted.
    let forge = Forge::open(&clone);
    forge.replace(&chain, forge.head(), |c| {
        c.signatures.pop();
    });
    let wrong = verify(&clone, from(4, None)).wrong.unwrap();
    assert_eq!(wrong.rule, "certificate-power");
}

#[test]
fn dapps_run_again_give_every_state_root() {
    let mut chain = Chain::new();
    chain.block(&[]);
    chain.coin.writes = true;
    for _ in 0..3 {
        transfer(&mut chain);
    }
    let clone = chain.clone();
    let without = verify(&clone, Settings::default());
    assert!(without.ok, "{:?}", without.wrong);
    assert_eq!(
        without.checked.state_roots, 1,
        "up to the first write of a dapp"
    );
    assert!(
        without
            .not_checked
            .iter()
            .any(|s| s.contains("from height 2 on"))
    );
    let with = |host: &mut dyn DappHost| {
        verify(
            &clone,
            Settings {
                dapps: Some(host),
                ..Settings::default()
            },
        )
    };
    let mut coin = Coin {
        writes: true,
        lie: None,
    };
    let verdict = with(&mut coin);
    assert!(verdict.ok, "{:?}", verdict.wrong);
    assert_eq!(verdict.checked.state_roots, 4);
    assert!(verdict.not_checked.is_empty());
    coin.lie = Some("seen/extra");
    let wrong = with(&mut coin).wrong.unwrap();
    assert_eq!((wrong.rule, wrong.height), ("dapp-differs", Some(2)));
    let verdict = with(&mut NoImage);
    assert!(!verdict.ok && verdict.wrong.is_none());
    assert!(verdict.cannot_tell.unwrap().contains("no image"));
    assert_eq!(verdict.verified_height, 1);
}

/// A machine that can't run the dapp.
struct NoImage;

impl DappHost for NoImage {
    fn run(&mut self, _: DappCall<'_>) -> Result<DappResult, DappFailure> {
        Err(DappFailure::Abstain("there is no image".into()))
    }
}
