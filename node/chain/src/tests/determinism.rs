//! The same blocks come to the same bytes, whoever proposes them and in whatever order operators are named.

use instar_attest::{Digest, json};
use instar_ledger::receipt;
use proptest::prelude::*;
use serde_json::json;

use super::upgrades::{ready_all, vote_all};
use super::world::*;
use crate::apply::apply_gated;
use crate::fake::FakeHost;
use crate::{BlockOutput, MemoryState};

fn bytes(output: &BlockOutput) -> (Vec<u8>, Vec<u8>) {
    (
        receipt::to_jsonl(&output.receipts).unwrap(),
        format!("{:?} {:?}", output.writes, output.dapps).into_bytes(),
    )
}

/// Runs what happened in `w` again from the states that it went through, with another proposer each time.
pub fn replay(w: &World) {
    for (i, made) in w.made.iter().enumerate() {
        let state: &MemoryState = &w.states[i];
        let mut outputs = Vec::new();
        for node in &w.nodes {
            let mut input = made.input(w);
            input.proposer = node.consensus.public();
            let mut host = FakeHost::of_node(outputs.len() as u64);
            outputs.push(apply_gated(state, &input, &mut host, w.gates).unwrap());
        }
        assert!(
            outputs.windows(2).all(|o| bytes(&o[0]) == bytes(&o[1])),
            "height {}",
            made.height
        );
        let mut after = state.clone();
        after.apply(&outputs[0].writes);
        assert_eq!(after, w.states[i + 1], "height {}", made.height);
    }
}

fn whole_story(mut w: World) -> World {
    let round = w.agreed("dapps/coin", 2);
    w.say(1, &secret("payer"), "coin", json!({"put": {"paid": "1"}}));
    let proposal = w.propose(&round);
    vote_all(&mut w, &proposal);
    ready_all(&mut w, &proposal, [b"r", b"r", b"r", b"r"]);
    w.blocks(3);
    assert_eq!(w.slot("dapps/coin").number, 2);
    w
}

#[test]
fn the_same_input_gives_the_same_bytes_on_every_node() {
    replay(&whole_story(World::new()));
}

#[test]
fn the_order_in_which_genesis_names_validators_does_not_matter() {
    // Another genesis is another chain, so ids differ; what the rules come to does not.
    let facts = |w: &World| {
        let slot = w.slot("dapps/coin");
        let validators = crate::query::validators(&w.state).unwrap();
        let names: Vec<String> = validators.into_iter().map(|v| v.name).collect();
        (slot.number, slot.since, w.height(), names)
    };
    let turned = World::with(policy(), |genesis| genesis.validators.reverse());
    assert_eq!(
        facts(&whole_story(World::new())),
        facts(&whole_story(turned))
    );
}

#[test]
fn all_that_is_written_is_canonical_and_small() {
    let w = whole_story(World::new());
    for (key, value) in w.state.iter() {
        assert!(crate::view::is_key(key), "{key}");
        if key.starts_with("n/") && !key.starts_with("n/release/") {
            json::from_slice::<serde_json::Value>(value, crate::view::MAX_VALUE_BYTES).unwrap();
        }
        assert!(value.len() < 16 * 1024, "{key} has {} bytes", value.len());
    }
}

/// What random authors try to say; most of it is refused, none of it may break a block.
fn noise() -> impl Strategy<Value = (usize, usize, u8, u64)> {
    (0usize..4, 0usize..7, 0u8..12, 0u64..4)
}

fn body(
    w: &World,
    round: &Digest,
    proposal: &Digest,
    what: u8,
    n: u64,
) -> (&'static str, serde_json::Value) {
    let release = w.slot("dapps/coin").release.unwrap();
    match what {
        0 => ("coin", json!({"put": {"k": n.to_string()}})),
        1 => ("coin", json!({})),
        2 => ("nowhere", json!({"n": n})),
        3 => (
            "build",
            serde_json::to_value(w.commit_op(n as usize, round, b"x")).unwrap(),
        ),
        4 => ("build", json!({"op": "reveal", "round": round})),
        5 => (
            "upgrade",
            json!({"op": "propose", "release": release, "round": round}),
        ),
        6 => (
            "upgrade",
            json!({"op": "vote", "proposal": proposal, "vote": if n == 0 { "no" } else { "yes" }}),
        ),
        7 => (
            "upgrade",
            json!({"op": "ready", "proposal": proposal, "height": n, "root": Digest::of(b"r")}),
        ),
        8 => (
            "upgrade",
            json!({"op": "report", "proposal": proposal, "result": "reverted"}),
        ),
        9 => ("upgrade", json!({"op": "cancel", "proposal": proposal})),
        10 => (
            "build",
            crate::ops::BuildOp::Open(World::open_op("dapps/coin", n)).to_value(),
        ),
        _ => ("upgrade", json!({"op": {"deep": [n]}})),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_is_said_every_node_agrees(said in prop::collection::vec(noise(), 1..40), per_block in 1usize..8) {
        let mut w = World::new();
        let round = w.open("dapps/coin", 2);
        let agreed = w.agreed("dapps/coin", 3);
        let proposal = w.propose(&agreed);
        let keys: Vec<_> = w.nodes.iter().map(|n| n.account.clone())
            .chain([w.developer.clone(), secret("stranger"), w.nodes[0].lane.clone()])
            .collect();
        for some in said.chunks(per_block) {
            for (lane, key, what, n) in some {
                let (topic, body) = body(&w, &round, &proposal, *what, *n);
                w.say(*lane, &keys[*key], topic, body);
            }
            let count: usize = some.len();
            let output = w.block();
            let receipts = output.receipts.iter()
                .filter(|l| matches!(l, instar_ledger::ReceiptLine::Entry(_))).count();
            prop_assert_eq!(receipts, count, "every entry has a receipt");
        }
        w.blocks(3);
        replay(&w);
    }
}
