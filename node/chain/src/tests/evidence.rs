//! A device that said two things at one place of its lane.

use instar_attest::{Purpose, SecretKey};
use instar_ledger::equivocation::Evidence;
use instar_ledger::grammar::LanePayload;
use instar_ledger::{Entry, Lane, Oid, Outcome};
use serde_json::json;

use super::govern::replace;
use super::world::*;
use crate::govern::GovernOp;
use crate::lanes::CLOSING_BLOCKS;
use crate::record::ClosedBy;
use crate::{BlockError, ops, query};

/// The bytes of a lane commit at sequence number 5, told apart by its time.
fn commit(w: &World, key: &SecretKey, lane: Lane, time_s: u64) -> Vec<u8> {
    let payload = LanePayload {
        chain: w.chain,
        entries: 1,
        lane,
        parent: Oid::from_bytes([9; 32]),
        seq: 5,
        time_s,
        tree: Oid::from_bytes([8; 32]),
    };
    payload.sign(key).unwrap().to_bytes()
}

fn evidence(w: &World, key: &SecretKey, lane: Lane) -> Evidence {
    let [a, b] = [1, 2].map(|time| commit(w, key, lane, time));
    Evidence::of(&w.chain, &a, &b).unwrap()
}

fn put(text: &str) -> serde_json::Value {
    json!({"put": {text: "1"}})
}

#[test]
fn what_was_merged_stands_and_the_rest_gets_receipts() {
    let mut w = World::new();
    let payer = secret("payer");
    let first = w.say(3, &payer, "coin", put("first"));
    w.block();
    w.applied(&first);
    let (dan, lane) = (w.nodes[3].lane.clone(), w.lane(3));
    let op = GovernOp::Evidence(evidence(&w, &dan, lane));
    // Anybody may bring it, also somebody whom the registry does not know.
    let id = w.say(0, &secret("passer-by"), ops::GOVERN, op.to_value());
    w.block();
    w.applied(&id);
    let device = query::device(&w.state, &lane.device).unwrap().unwrap();
    let closed = device.closed.unwrap();
    assert_eq!((closed.by, closed.since), (ClosedBy::LaneQuarantined, 2));
    assert_eq!(closed.evidence, Some(id));
    assert_eq!(w.event("lane-quarantined").unwrap().body["seq"], 5);

    let entry = Entry::sign(&w.chain, &payer, 1, "coin", put("second")).unwrap();
    let left = w.carry(3, entry.clone());
    w.block();
    let receipt = w.receipts[&left].clone();
    assert_eq!(receipt.outcome, Outcome::Unavailable);
    assert_eq!(receipt.rule.as_deref(), Some("lane-quarantined"));
    // The nonce is not consumed: the same entry takes effect where an honest lane carries it.
    w.carry(1, entry);
    w.block();
    w.applied(&left);
    let again = w.say(0, &secret("passer-by"), ops::GOVERN, op.to_value());
    w.block();
    w.refused(&again, "lane-closed");
}

#[test]
fn a_closed_lane_is_merged_no_more_after_its_rest() {
    let mut w = World::new();
    let (dan, lane) = (w.nodes[3].lane.clone(), w.lane(3));
    let op = GovernOp::Evidence(evidence(&w, &dan, lane));
    w.govern(0, &op);
    w.block();
    let next = Lane {
        incarnation: 2,
        ..lane
    };
    w.lane_of.insert(3, next);
    w.say(3, &secret("payer"), "coin", put("a"));
    w.block();
    let way_out = w.receipts.values().find(|r| r.lane == next).unwrap();
    assert_eq!(way_out.rule.as_deref(), Some("lane-quarantined"));
    w.lane_of.remove(&3);
    for height in 3..CLOSING_BLOCKS + 1 {
        assert_eq!(w.height() + 1, height);
        assert!(query::check_lane(&w.state, &lane).is_ok());
        w.block();
    }
    w.say(3, &secret("payer"), "coin", put("a"));
    let made = w.draft();
    assert!(matches!(
        w.try_block(made),
        Err(BlockError::LaneClosed { .. })
    ));
    assert!(
        query::check_lane(&w.state, &lane).is_err(),
        "the proposer is told before"
    );
}

#[test]
fn the_quarantine_begins_within_the_block() {
    let mut w = World::new();
    let lane = w.lane(3);
    let op = GovernOp::Evidence(evidence(&w, &w.nodes[3].lane.clone(), lane));
    w.govern(0, &op);
    let id = w.say(3, &secret("payer"), "coin", put("a"));
    let made = w.draft();
    // Merge order decides, which no proposer chooses.
    let later = made.lanes[0].lane != lane;
    w.try_block(made).unwrap();
    let expected = if later {
        Outcome::Unavailable
    } else {
        Outcome::Applied
    };
    assert_eq!(w.receipts[&id].outcome, expected);
}

#[test]
fn governance_gives_the_device_a_new_key_and_the_quarantine_ends() {
    let mut w = World::new();
    let old = w.nodes[3].lane.clone();
    let lane = w.lane(3);
    w.say(3, &secret("payer"), "coin", put("a"));
    w.block();
    let op = GovernOp::Evidence(evidence(&w, &old, lane));
    w.govern(0, &op);
    w.block();
    let new = secret("dan lane 2");
    // It can't carry its own motion; others do.
    w.nodes[3].account = secret("nobody");
    w.pass(replace(&w.chain, &old, &new, Purpose::Lane, "dan-ltd"));
    let next = Lane {
        incarnation: 2,
        ..lane
    };
    assert_eq!(
        query::lane_key(&w.state, &next).unwrap(),
        Some(new.public())
    );
    assert_eq!(
        query::lane_key(&w.state, &lane).unwrap(),
        Some(old.public())
    );
    w.lane_of.insert(3, next);
    let id = w.say(3, &secret("other payer"), "coin", put("b"));
    w.block();
    w.applied(&id);
    // Two payloads of the old key for the new incarnation are nobody's.
    let op = GovernOp::Evidence(evidence(&w, &old, next));
    let framed = w.govern(0, &op);
    let op = GovernOp::Evidence(evidence(&w, &old, lane));
    let late = w.govern(0, &op);
    w.block();
    w.refused(&framed, "evidence-of-another-key");
    w.refused(&late, "lane-closed");
    assert!(
        query::device(&w.state, &lane.device)
            .unwrap()
            .unwrap()
            .closed
            .is_none()
    );
}

#[test]
fn nobody_is_framed() {
    let mut w = World::new();
    let lane = w.lane(3);
    let dan = w.nodes[3].lane.clone();
    // Signed by somebody else.
    let op = GovernOp::Evidence(evidence(&w, &w.nodes[0].lane.clone(), lane));
    let by_another = w.govern(0, &op);
    // One payload, taken out of a commit and out of the same commit in another armour: the payload is all that counts.
    let good = evidence(&w, &dan, lane);
    let mut same = good.clone();
    same.b = same.a.clone();
    let rewrapped = w.govern(0, &GovernOp::Evidence(same));
    let mut turned = good.clone();
    std::mem::swap(&mut turned.a, &mut turned.b);
    let turned = w.govern(0, &GovernOp::Evidence(turned));
    let mut unsigned = good.clone();
    unsigned.b.sig = unsigned.a.sig;
    let unsigned = w.govern(0, &GovernOp::Evidence(unsigned));
    let mut spaced = good.clone();
    spaced.b = spaced.a.clone();
    spaced.b.payload.push('\n');
    let spaced = w.govern(0, &GovernOp::Evidence(spaced));
    // Another place.
    let other = Lane {
        incarnation: 2,
        ..lane
    };
    let mut apart = good.clone();
    apart.b = evidence(&w, &dan, other).b;
    let apart = w.govern(0, &GovernOp::Evidence(apart));
    let stranger = Lane {
        device: instar_ledger::DeviceId::of(&secret("x").public()),
        incarnation: 1,
    };
    let nobody = w.govern(0, &GovernOp::Evidence(evidence(&w, &secret("x"), stranger)));
    let by_lane_key = w.say(
        0,
        &dan,
        ops::GOVERN,
        GovernOp::Evidence(good.clone()).to_value(),
    );
    // Of another chain.
    let mut foreign = w.clone();
    foreign.chain = instar_attest::ChainId::from_bytes([3; 32]);
    let foreign = w.govern(0, &GovernOp::Evidence(evidence(&foreign, &dan, lane)));
    w.block();
    w.refused(&by_another, "evidence-of-another-key");
    for id in [rewrapped, turned, unsigned, spaced, apart, foreign] {
        w.refused(&id, "evidence-invalid");
    }
    w.refused(&nobody, "unknown-device");
    w.refused(&by_lane_key, "wrong-key-purpose");
    assert!(
        query::device(&w.state, &lane.device)
            .unwrap()
            .unwrap()
            .closed
            .is_none()
    );
}
