//! Rules of blocks: height, time, lanes, nonces, keys.

use instar_attest::{ChainId, Digest};
use instar_ledger::{Entry, Oid, Outcome};
use serde_json::json;

use super::world::*;
use crate::{BlockError, MAX_COUNT, ops, query};

fn put(key: &str) -> serde_json::Value {
    json!({"put": {key: "1"}})
}

#[test]
fn a_block_follows_on_its_parent() {
    let mut w = World::new();
    w.block();
    let good = w.draft();
    let mut other = good.clone();
    other.height = 3;
    assert!(matches!(w.try_block(other), Err(BlockError::Height { .. })));
    let mut other = good.clone();
    other.time_ms = w.time_ms;
    assert!(matches!(w.try_block(other), Err(BlockError::Time { .. })));
    let mut other = good.clone();
    other.time_ms = MAX_COUNT + 1;
    assert!(matches!(w.try_block(other), Err(BlockError::Overflow(_))));
    let chain = w.chain;
    w.chain = ChainId::from_bytes([9; 32]);
    assert!(matches!(
        w.try_block(good.clone()),
        Err(BlockError::OtherChain { .. })
    ));
    w.chain = chain;
    w.try_block(good).unwrap();
    let head = query::head(&w.state).unwrap();
    assert_eq!((head.height, head.time_ms), (2, w.time_ms));
}

#[test]
fn lanes_are_merged_from_where_they_were_merged_last() {
    let mut w = World::new();
    let key = w.developer.clone();
    w.say(0, &key, "coin", put("a"));
    w.block();
    w.say(0, &key, "coin", put("b"));
    w.say(1, &secret("guest"), "coin", put("c"));
    let good = w.draft();
    let lane = good.lanes[0].lane;

    let mut other = good.clone();
    other.lanes[0].seq += 1;
    assert!(matches!(
        w.try_block(other),
        Err(BlockError::LaneGap { .. })
    ));
    let mut other = good.clone();
    other.lanes[0].parent = Oid::from_bytes([7; 32]);
    assert!(
        matches!(w.try_block(other), Err(BlockError::LaneGap { .. })),
        "another history"
    );
    let mut other = good.clone();
    other.lanes.swap(0, 1);
    assert!(matches!(w.try_block(other), Err(BlockError::LaneOrder(_))));
    let mut other = good.clone();
    other.lanes[0].lane.incarnation = 2 + crate::lanes::MAX_INCARNATION_STEP;
    assert!(matches!(
        w.try_block(other),
        Err(BlockError::Incarnation { .. })
    ));
    let mut other = good.clone();
    other.lanes[0].lane.device = instar_ledger::DeviceId::of(&secret("stranger").public());
    other.lanes.truncate(1);
    assert!(matches!(
        w.try_block(other),
        Err(BlockError::UnknownDevice(_))
    ));

    let merged = good.lanes[0].clone();
    w.try_block(good).unwrap();
    let mark = query::lane(&w.state, &lane).unwrap().unwrap();
    assert_eq!((mark.seq, mark.head), (merged.seq, merged.id));
}

#[test]
fn a_device_has_a_quota() {
    let mut w = World::new();
    let key = w.developer.clone();
    for _ in 0..crate::lanes::MAX_DEVICE_ENTRIES + 1 {
        w.say(0, &key, "coin", put("a"));
    }
    let mut made = w.draft();
    let too_much = made.clone();
    assert!(matches!(
        w.try_block(too_much),
        Err(BlockError::Quota { .. })
    ));
    let mut quota = crate::Quota::default();
    assert!(!quota.take(&made.lanes[0]), "the proposer is told before");
    made.lanes[0].entries.truncate(100);
    assert!(quota.take(&made.lanes[0]));
    w.try_block(made).unwrap();
}

#[test]
fn an_entry_in_a_second_lane_gets_a_receipt_and_no_effect() {
    let mut w = World::new();
    let key = secret("payer");
    let entry = Entry::sign(&w.chain, &key, 0, "coin", put("paid")).unwrap();
    let id = w.carry(0, entry.clone());
    w.block();
    w.applied(&id);
    let before = w.state.clone();
    w.carry(1, entry);
    w.block();
    w.refused(&id, "nonce-used");
    let differs = |prefix: &str| {
        let read = |s| crate::StateView::range(s, prefix, 100).unwrap();
        read(&before) != read(&w.state)
    };
    assert!(!differs("d/") && !differs("n/nonce/") && differs("n/lane/"));
}

#[test]
fn nonces_are_taken_in_order_and_by_refused_entries_too() {
    let mut w = World::new();
    let key = secret("payer");
    let gap = Entry::sign(&w.chain, &key, 1, "coin", put("x")).unwrap();
    let gap = w.carry(0, gap);
    let refused = w.say(0, &key, "coin", json!({"steal": 1}));
    let nowhere = w.say(0, &key, "nowhere", json!({}));
    w.block();
    w.refused(&gap, "nonce-gap");
    w.refused(&refused, "unknown-op");
    w.refused(&nowhere, "unknown-topic");
    assert_eq!(query::nonce(&w.state, &key.public()).unwrap(), 2);
}

#[test]
fn keys_of_other_purposes_say_nothing() {
    let mut w = World::new();
    let node = w.nodes[0].clone();
    for key in [&node.consensus, &node.lane, &node.builder] {
        let native = w.say(
            0,
            key,
            ops::UPGRADE,
            json!({"op": "cancel", "proposal": Digest::of(b"")}),
        );
        let dapp = w.say(0, key, "coin", put("x"));
        w.block();
        w.refused(&native, "wrong-key-purpose");
        w.refused(&dapp, "wrong-key-purpose");
    }
    let account = w.say(0, &node.account, "coin", put("x"));
    w.block();
    assert_eq!(w.receipts[&account].outcome, Outcome::Applied);
}

#[test]
fn a_note_changes_nothing_but_the_nonce() {
    let mut w = World::new();
    let guest = secret("guest");
    let first = w.say(0, &guest, ops::NOTE, json!({"anything": ["at", "all"]}));
    let consensus = w.nodes[1].consensus.clone();
    let wrong = w.say(0, &consensus, ops::NOTE, json!({}));
    let output = w.block();
    w.applied(&first);
    w.refused(&wrong, "wrong-key-purpose");
    let lanes_and_head = output.writes.keys().filter(|k| !k.starts_with("n/nonce/"));
    let mut empty = World::new();
    empty.say(0, &guest, "nowhere", json!({}));
    let of_empty = empty.block();
    let other: Vec<_> = of_empty
        .writes
        .keys()
        .filter(|k| !k.starts_with("n/nonce/"))
        .collect();
    assert_eq!(lanes_and_head.collect::<Vec<_>>(), other);
    assert_eq!(query::nonce(&w.state, &guest.public()).unwrap(), 1);
}
