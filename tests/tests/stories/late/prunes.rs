//! One validator keeps as little as it may: old states and old blocks go while the chain goes on.

use instar::client::Client;
use instar::demo::stage::Stage;
use instar::demo::wait;
use instar_ledger::{ReceiptLine, Store};
use instar_node::home::MIN_STATES_KEPT;

use super::super::operators::text;
use super::{EVERY, LONG_AGO, Late, PATIENCE};

/// Which one it is.
pub const PRUNES: &str = "val-4";
/// Blocks that it keeps.
pub const KEPT: u64 = 3 * EVERY;

/// Who keeps more has all of it.
pub fn what_is_old_is_gone_where_little_is_kept(stage: &Stage<'_>, late: &Late) {
    for (validator, client) in stage.validators.iter().zip(&stage.clients) {
        let status = client.status().unwrap();
        let old = client.find_bytes(&format!("/v1/state/{LONG_AGO}")).unwrap();
        let kept = client.find_bytes(&format!("/v1/state/{}", status.height - 1));
        assert!(kept.unwrap().is_some());
        if validator.name == PRUNES {
            assert!(status.states_from > LONG_AGO, "{status:?}");
            assert!(
                status.states_from + MIN_STATES_KEPT <= status.height,
                "{status:?}"
            );
            assert!(old.is_none());
        } else {
            assert_eq!((status.states_from, status.history_from), (0, 1));
            assert!(old.is_some() && client.block(LONG_AGO).unwrap().is_some());
        }
    }
    let at = stage.validators.iter().position(|v| v.name == PRUNES);
    let at = at.expect("it is a validator");
    let from = wait::until("older blocks going", PATIENCE, || {
        let from = stage.clients[at].status()?.history_from;
        Ok((from > LONG_AGO).then_some(from))
    })
    .unwrap();
    println!("{PRUNES} has blocks from {from} on");
    says_what_it_has_no_more(stage, &stage.clients[at]);
    its_ledger_is_whole(stage, late, at);

    // Killed and started again it is there with what it had, and its own history goes on.
    let killed = stage.validators[at].kill_node().unwrap();
    wait::until("it is there again", PATIENCE, || {
        let status = stage.clients[at].status();
        Ok(status.is_ok_and(|s| s.pid != killed).then_some(()))
    })
    .unwrap();
    let again = stage.clients[at].status().unwrap();
    assert!(again.history_from >= from, "{again:?}");
    its_ledger_is_whole(stage, late, at);
}

fn says_what_it_has_no_more(stage: &Stage<'_>, pruned: &Client) {
    let others = stage.clients[0].block(LONG_AGO).unwrap().unwrap();
    let entry = others.receipts.iter().find_map(|line| match line {
        ReceiptLine::Entry(receipt) => Some(receipt.entry),
        _ => None,
    });
    let entry = entry.expect("blocks have entries while there is traffic");
    for path in [
        format!("/v1/blocks/{LONG_AGO}"),
        format!("/v1/headers/{LONG_AGO}"),
        format!("/v1/sync/{LONG_AGO}"),
        format!("/v1/receipts/{entry}"),
        format!("/v1/entries/{entry}"),
    ] {
        let said = format!("{:#}", pruned.find_bytes(&path).expect_err(&path));
        assert!(
            said.contains("410") && said.contains("begins with block") && said.contains("archive"),
            "{path}: {said}"
        );
    }
}

/// To stock git, to us, and to whoever checks the validators from genesis on.
fn its_ledger_is_whole(stage: &Stage<'_>, late: &Late, at: usize) {
    let url = stage.validators[at].url();
    let clone = tempfile::tempdir_in(&late.dir).unwrap();
    let clone = text(clone.path());
    let ledger = format!("{url}/ledger.git");
    late.git(&["clone", "-q", "--bare", &ledger, clone]);
    let fsck = ["-C", clone, "fsck", "--strict", "--no-progress"];
    assert_eq!(late.git(&fsck), "");
    let own = stage.validators[at].home.ledger();
    let fsck = late.git(&[
        "-C",
        text(&own),
        "fsck",
        "--strict",
        "--no-progress",
        "--no-dangling",
    ]);
    assert_eq!(fsck, "");
    let read = Store::open_clone(clone.as_ref()).unwrap();
    assert!(read.base().is_some_and(|base| base > LONG_AGO));

    late.proves(stage, &url, "n/policy");
}
