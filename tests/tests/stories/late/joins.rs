//! How the fifth node joins: past a kill and past sources that lie, and from a block that its operator trusts.

use std::process::Stdio;

use instar::demo::stage::Stage;
use instar_node::home::Home;
use instar_node::snapshots::Offer;
use serde_json::Value;

use super::super::liars::{Liar, Lie};
use super::{Late, PATIENCE, facts};

/// Chunks that the first join gets.
pub const BEFORE_THE_KILL: usize = 3;

pub fn joins_past_a_kill_and_liars(stage: &Stage<'_>, late: &Late, offer: &Offer) {
    let home = late.home.path();
    let stalls = Liar::before(
        &stage.validators[0].url(),
        Lie::StallsAfter(BEFORE_THE_KILL),
    );
    let mut child = late
        .join(stage, home, &[&stalls.url])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while stalls.chunks.recv_timeout(PATIENCE).unwrap() < BEFORE_THE_KILL {}
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(late.home.joining().exists() && !late.home.ledger().exists());

    // The list of the first lacks a chunk, the second changes every chunk; the third is honest.
    let short = Liar::before(&stage.validators[1].url(), Lie::List);
    let flips = Liar::before(&stage.validators[2].url(), Lie::Chunks);
    let honest = stage.validators[3].url();
    let output = late
        .join(stage, home, &[&short.url, &flips.url, &honest])
        .output()
        .unwrap();
    let joined = facts(&output);
    let snapshot = &joined["snapshot"];
    assert_eq!(snapshot["height"], offer.height);
    assert_eq!(snapshot["chunks"], offer.chunks);
    assert_eq!(snapshot["resumed"], BEFORE_THE_KILL);
    let named: Vec<(&str, &str)> = snapshot["dropped"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["url"].as_str().unwrap(), d["why"].as_str().unwrap()))
        .collect();
    let [(first, lacks), (second, flipped)] = named[..] else {
        panic!("{snapshot}")
    };
    assert!(
        first == short.url && lacks.contains("lacks some"),
        "{lacks}"
    );
    assert!(
        second == flips.url && flipped.contains("does not prove"),
        "{flipped}"
    );
    assert!(late.home.ledger().exists() && !late.home.joining().exists());
    // It joins once.
    let again = late.join(stage, home, &[&honest]).output().unwrap();
    let why = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        !again.status.success() && why.contains("has a chain already"),
        "{why}"
    );
}

/// The check of the validators begins at a block that is trusted, and a wrong one is no beginning.
pub fn joins_from_a_checkpoint(stage: &Stage<'_>, late: &Late, offer: &Offer) {
    let url = stage.validators[1].url();
    let block = |height: u64| stage.clients[0].block(height).unwrap().unwrap().id;
    let join = |name: &str, height: u64, id: instar_ledger::Oid| {
        let mut command = late.join(stage, &late.dir.join(name), &[&url]);
        command.args(["--checkpoint", &format!("{height}:{id}")]);
        command.output().unwrap()
    };
    let before = offer.height - 3;
    let joined = facts(&join("checkpoint", before, block(before)));
    assert_eq!(joined["snapshot"]["height"], offer.height);
    let home = Home::new(late.dir.join("checkpoint"));
    assert!(home.ledger().exists());
    let refused = |name: &str, height: u64, id, says: &str| {
        let output = join(name, height, id);
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && why.contains(says),
            "{name}: {why}"
        );
        assert!(!Home::new(late.dir.join(name)).ledger().exists());
    };
    let other = block(before - 1);
    refused("other-block", before, other, &other.to_string());
    let late_one = block(offer.height);
    refused("above", offer.height, late_one, "not above the checkpoint");
}

/// Each in a home of its own, with an honest node beside it.
pub fn others_who_lie_are_named(stage: &Stage<'_>, late: &Late, offer: &Offer) {
    let honest = stage.validators[3].url();
    for (lie, says) in [
        (Lie::Height, "it offers height 9"),
        (Lie::Root, "but the header of height"),
        (Lie::OtherBlock, "does not prove"),
        (Lie::Flood, "chunk "),
    ] {
        let liar = Liar::before(&stage.validators[0].url(), lie);
        let home = late.dir.join(format!("{lie:?}"));
        let output = late
            .join(stage, &home, &[&liar.url, &honest])
            .output()
            .unwrap();
        let joined = facts(&output);
        assert_eq!(joined["snapshot"]["height"], offer.height);
        let dropped = &joined["snapshot"]["dropped"][0];
        assert_eq!(dropped["url"], liar.url.as_str());
        let why = dropped["why"].as_str().unwrap();
        assert!(why.contains(says), "{lie:?}: {why}");
    }
    // With nobody else there is no home, and the reason is said.
    let liar = Liar::before(&stage.validators[0].url(), Lie::Chunks);
    let home = late.dir.join("nobody");
    let output = late.join(stage, &home, &[&liar.url]).output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && why.contains("no snapshot can be had"),
        "{why}"
    );
    assert!(!Home::new(&home).ledger().exists());
    // An archive begins at genesis, whatever is offered.
    let home = late.dir.join("archive");
    let output = late
        .join(stage, &home, &[&honest])
        .arg("--archive")
        .output()
        .unwrap();
    assert_eq!(facts(&output)["snapshot"], Value::Null);
    let archive = Home::new(&home);
    assert_eq!(archive.config().unwrap().states_kept, 0);
    let ledger = instar_ledger::Store::open_clone(&archive.ledger()).unwrap();
    assert_eq!((ledger.base(), ledger.head().0), (None, 0));
}
