//! The network stands still for a while just when an upgrade goes live: the numbers that the demo reports must show it.
//!
//! The story runs in a network namespace of its own, where `lo` is all there is and can be taken down.

use std::process::Command;
use std::time::{Duration, Instant};

use instar::demo::report::{Transfers, measure};
use instar::demo::stage::{PATIENCE, Stage};
use instar::demo::traffic::{INTERVAL, Traffic};
use instar::demo::{VALIDATORS, coin, runner, wait};
use serde_json::Value;

/// The argument that tells this program that it runs inside the namespace.
pub const INSIDE: &str = "--inside-held-network";
/// How long nothing gets through.
const HELD: Duration = Duration::from_secs(3);
/// Between two looks at the upgrade: shorter than a block takes.
const LOOK: Duration = Duration::from_millis(5);
/// How long the last transfers may take.
const DRAIN: Duration = Duration::from_secs(60);

pub fn held_network() {
    let status = Command::new("unshare")
        .args(["--map-root-user", "--net"])
        .arg(std::env::current_exe().unwrap())
        .arg(INSIDE)
        .status()
        .expect("unshare is part of util-linux");
    assert!(
        status.success(),
        "the story inside the namespace ended with {status}"
    );
}

pub fn inside() {
    super::loopback::set(true).unwrap();
    super::with_chain(
        |policy| {
            policy.dapps.builders = 1;
            policy.dapps.builder_names = Some(vec!["val-1".into()]);
        },
        |stage| {
            let traffic = Traffic::start(stage.chain, stage.clients.clone(), 0, INTERVAL).unwrap();
            let opened = coin::open_second(stage).unwrap();
            runner::all(&stage.runners[..1], &opened.job, &opened.round, 1).unwrap();
            let round = stage.agreed(&opened.round, PATIENCE).unwrap();
            let proposal = stage.propose(&opened.round).unwrap();
            about_to_be_live(stage, &proposal.to_string());
            super::loopback::set(false).unwrap();
            std::thread::sleep(HELD);
            super::loopback::set(true).unwrap();

            let live = stage
                .proposal(&proposal, "activated", &["refused", "void"], PATIENCE)
                .unwrap();
            let height = live["activated_at"].as_u64().unwrap();
            // Some blocks more, so that the time after the activation is measured too.
            wait::until("blocks after the activation", PATIENCE, || {
                Ok((stage.height()? > height + 10).then_some(()))
            })
            .unwrap();
            let mut upgrade = instar::demo::report::upgrade_facts(
                &live,
                &round,
                &stage.first_coin,
                height,
                height,
                true,
                opened.start.elapsed(),
            );
            let seen = traffic.finish(DRAIN).unwrap();
            measure(&mut upgrade, &seen, &stage.clients[0], VALIDATORS).unwrap();
            let transfers = Transfers::from(&seen);
            assert_eq!(transfers.sent, transfers.applied + transfers.rejected);
            println!(
                "held for {} ms: gap {} ms (p99 before: {} ms), {} second rounds, {} absent precommits",
                HELD.as_millis(),
                upgrade.gap_ms,
                upgrade.gap_ms_before_p99,
                upgrade.rounds_over_0,
                upgrade.absent_signatures
            );
            assert!(
                upgrade.gap_ms >= HELD.as_secs_f64() * 1e3,
                "a network that stood still for {HELD:?} does not show: {upgrade:?}"
            );
        },
    );
}

/// Waits until an upgrade is scheduled. That lasts a few blocks, less than anybody who waits patiently would notice.
fn about_to_be_live(stage: &Stage<'_>, proposal: &str) {
    let path = format!("/v1/upgrades/{proposal}");
    let start = Instant::now();
    loop {
        let now: Value = stage.clients[0].get(&path).unwrap();
        match now["phase"].as_str() {
            Some("scheduled" | "activated") => return,
            Some("refused" | "void") => panic!("the upgrade came to nothing: {now}"),
            _ => {}
        }
        assert!(start.elapsed() < PATIENCE, "it is not scheduled: {now}");
        std::thread::sleep(LOOK);
    }
}
