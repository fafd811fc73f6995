//! A clone of a chain that has merged a fork: what was merged is checked as everything else is.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use instar_audit::{Settings, Verdict, Wrong, verify, verify_chain};
use instar_chain::DappHost;
use instar_ledger::{BlockDraft, ForkRange, ReceiptLine};
use serde_json::json;
use support::forge::Forge;
use support::{Chain, Coin};

fn transfer(chain: &mut Chain, to: &str) {
    let entry = chain.entry(0, "coin", json!({"amount": "5", "to": to}));
    chain.block(&[entry]);
}

/// A mother of five blocks, and a fork that left her after the third, with three blocks: transfers, of which the dapp
/// refused one, and a native entry.
fn apart() -> (Chain, Chain) {
    let mut mother = Chain::new();
    mother.coin.writes = true;
    for _ in 0..3 {
        transfer(&mut mother, "bob");
    }
    let state = mother.state.clone();
    let mut fork = mother.fork(3, &state, |_| {});
    transfer(&mut mother, "bob");
    transfer(&mut mother, "bob");
    transfer(&mut fork, "bob");
    let kept = fork.entry(0, "coin", json!({"amount": "5", "to": "bob"}));
    let refused = fork.entry(1, "coin", json!({"amount": "5", "to": "nobody"}));
    let native = fork.entry(1, "upgrade", json!({"op": "nonsense"}));
    fork.block(&[kept, refused, native]);
    transfer(&mut fork, "bob");
    fork.store.flush().unwrap();
    (mother, fork)
}

/// As [`apart`], merged back in two slices, beside an entry of the mother's own.
fn merged() -> (Chain, Chain, PathBuf) {
    let (mut mother, fork) = apart();
    mother.move_merge(&fork, &[2, 3]);
    mother.merge(&fork, &[]);
    let own = mother.entry(0, "coin", json!({"amount": "5", "to": "bob"}));
    mother.merge(&fork, &[own]);
    let clone = mother.clone();
    (mother, fork, clone)
}

fn native(clone: &Path) -> Verdict {
    verify(clone, Settings::default())
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
fn a_fork_that_was_merged_is_checked_with_the_rest() {
    let (mother, _fork, clone) = merged();
    support::git(&["-C", clone.to_str().unwrap(), "fsck", "--strict"]);
    let verdict = native(&clone);
    assert!(verdict.ok, "{:?}", verdict.wrong);
    assert_eq!(verdict.height, mother.store.head().0);
    assert_eq!(verdict.checked.fork_blocks, 3);
    let whole = with_dapps(&clone);
    assert!(whole.ok, "{:?}", whole.wrong);
    assert_eq!(whole.checked.state_roots, whole.checked.blocks);
    let (report, verified) = verify_chain(&clone);
    assert!(report.ok, "{report:?}");
    // Three of the fork's transfers took effect there; they are no entries of this chain.
    let total = verified.unwrap().log.entries_total;
    assert_eq!(total, whole.checked.entries + 3);
}

/// The fork left at a block that was verified before and is not read again.
#[test]
fn it_goes_on_after_the_fork_left() {
    let (mut mother, fork) = apart();
    let clone = mother.clone();
    let progress = mother.dir.path().join("work/progress");
    let run = || {
        let settings = Settings {
            progress: Some(&progress),
            ..Settings::default()
        };
        verify(&clone, settings)
    };
    assert_eq!(run().verified_height, 5);
    mother.move_merge(&fork, &[3]);
    mother.merge(&fork, &[]);
    mother.store.flush().unwrap();
    support::git(&["-C", clone.to_str().unwrap(), "fetch", "--quiet"]);
    let verdict = run();
    assert!(verdict.ok, "{:?}", verdict.wrong);
    assert_eq!(verdict.resumed_at, Some(5));
    assert_eq!(verdict.checked, native(&clone).checked);
}

/// Changes the head of a clone, has it signed, and gives what is found.
fn forged(change: impl FnOnce(&mut BlockDraft)) -> Wrong {
    let (mother, _fork, clone) = merged();
    let forge = Forge::open(&clone);
    let mut draft = forge.head();
    change(&mut draft);
    forge.replace(&mother, draft, |_| {});
    let wrong = native(&clone).wrong.unwrap();
    assert_eq!(wrong.height, Some(mother.store.head().0), "{wrong}");
    wrong
}

/// What is found in a clone whose newest block merges a fork that nobody decided about.
fn merged_unasked(mother: &mut Chain, fork: &Chain, to: u64) -> Wrong {
    let clone = mother.clone();
    let path = clone.to_str().unwrap();
    let from = fork.store.path().to_str().unwrap();
    support::git(&["-C", path, "fetch", "--quiet", from, "refs/heads/trunk"]);
    let forge = Forge::open(&clone);
    let mut draft = forge.head();
    draft.header.forks = vec![ForkRange {
        chain: fork.chain,
        from: 1,
        head: fork.store.head().1,
        to,
    }];
    forge.replace(mother, draft, |_| {});
    native(&clone).wrong.unwrap()
}

#[test]
fn a_slice_that_was_not_due() {
    // The first slice once more, and nothing of what is due.
    let again = |d: &mut BlockDraft| {
        let range = &mut d.header.forks[0];
        (range.from, range.to) = (1, 3);
    };
    assert_eq!(forged(again).rule, "fork-not-due");
    let nothing = |d: &mut BlockDraft| {
        d.header.forks.clear();
    };
    assert_eq!(forged(nothing).rule, "receipt-extra");
    let (mut mother, fork) = apart();
    let wrong = merged_unasked(&mut mother, &fork, 3);
    assert_eq!(wrong.rule, "fork-not-due", "nobody voted: {wrong}");
}

#[test]
fn receipts_of_a_fork_that_say_something_else() {
    let lose = |d: &mut BlockDraft| {
        d.receipts.pop();
    };
    assert_eq!(forged(lose).rule, "receipt-missing");
    let other = |d: &mut BlockDraft| {
        if let Some(ReceiptLine::Entry(receipt)) = d.receipts.last_mut() {
            receipt.entry = instar_attest::Digest::of(b"nobody said it");
        }
    };
    assert_eq!(forged(other).rule, "receipt-missing");
    let own = |d: &mut BlockDraft| {
        if let Some(ReceiptLine::Entry(receipt)) = d.receipts.last_mut() {
            receipt.chain = None;
        }
    };
    assert_eq!(forged(own).rule, "receipt-missing");
    let invented = |d: &mut BlockDraft| {
        let last = d.receipts.last().unwrap().clone();
        d.receipts.push(last);
    };
    assert_eq!(forged(invented).rule, "receipt-extra");
}

/// Attack: a fork of a history that this chain never had. Its id names the same mother.
#[test]
fn a_fork_that_stands_on_another_block() {
    let (mut mother, _) = apart();
    let mut twin = Chain::new();
    for _ in 0..3 {
        transfer(&mut twin, "carol");
    }
    assert_eq!(twin.chain, mother.chain);
    let state = twin.state.clone();
    let mut fork = twin.fork(3, &state, |_| {});
    transfer(&mut fork, "bob");
    fork.store.flush().unwrap();
    let wrong = merged_unasked(&mut mother, &fork, 1);
    assert_eq!(wrong.rule, "other-mother", "{wrong}");
}

/// Attack: what the fork's dapp wrote here is not what its entries come to.
#[test]
fn a_dapp_that_makes_something_else_of_a_forks_entries() {
    let (mut mother, fork) = apart();
    mother.move_merge(&fork, &[3]);
    mother.coin.lie = Some("balance/me");
    mother.merge(&fork, &[]);
    let clone = mother.clone();
    assert!(native(&clone).ok, "verdicts alone don't show it");
    let wrong = with_dapps(&clone).wrong.unwrap();
    assert_eq!(wrong.rule, "dapp-differs", "{wrong}");
}
