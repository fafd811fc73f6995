//! What dapps can and can't do to a block.

use instar_ledger::{Outcome, ReceiptLine};
use serde_json::json;

use super::world::*;
use crate::dapps::SUSPENSION_BLOCKS;
use crate::fake::Behaviour;
use crate::{BlockError, StateView, query};

fn coin(w: &World) -> String {
    w.slot("dapps/coin").release.unwrap()
}

#[test]
fn genesis_lays_out_what_a_dapp_starts_with() {
    let w = World::new();
    assert_eq!(w.state.get("d/coin/balance/ann"), Ok(Some(b"10".to_vec())));
}

#[test]
fn one_call_a_block_and_receipts_in_merge_order() {
    let mut w = World::new();
    let (a, b) = (secret("a"), secret("b"));
    let mut said = Vec::new();
    for lane in 0..4 {
        said.push(w.say(lane, &a, "coin", json!({"put": {"k": lane.to_string()}})));
        said.push(w.say(lane, &b, "nowhere", json!({})));
        if lane == 0 {
            // Nonces are the author's own: the lanes' merge order decides which entry comes first.
            break;
        }
    }
    said.push(w.say(0, &a, "coin", json!({"put": {"k": "last"}})));
    let made = w.draft();
    let order: Vec<_> = made
        .lanes
        .iter()
        .flat_map(|c| c.entries.iter().map(|e| e.id()))
        .collect();
    let output = w.try_block(made).unwrap();
    assert_eq!(w.host.calls, 1);
    let receipts = output.receipts.iter().filter_map(|line| match line {
        ReceiptLine::Entry(r) => Some(r.entry),
        ReceiptLine::Event(_) => None,
    });
    assert_eq!(receipts.collect::<Vec<_>>(), order);
    assert_eq!(w.state.get("d/coin/k"), Ok(Some(b"last".to_vec())));
    assert!(output.dapps.contains_key("coin") && output.dapps.len() == 1);
}

#[test]
fn a_crash_rejects_its_entries_in_that_block_and_nothing_else() {
    for (behaviour, rule) in [
        (Behaviour::Crashes, "dapp-crashed"),
        (Behaviour::BreaksProtocol, "dapp-protocol"),
    ] {
        let mut w = World::new();
        let release = coin(&w);
        w.host.behave(release, behaviour);
        let id = w.say(0, &secret("a"), "coin", json!({"put": {"k": "1"}}));
        let round = w.open("dapps/coin", 2);
        w.refused(&id, rule);
        assert_eq!(w.state.get("d/coin/k"), Ok(None));
        assert_eq!(query::nonce(&w.state, &secret("a").public()).unwrap(), 1);
        assert_eq!(
            w.round(&round).number,
            2,
            "native entries of the block took effect"
        );
    }
}

#[test]
fn an_abstention_is_no_answer() {
    let mut w = World::new();
    let release = coin(&w);
    w.host.behave(release, Behaviour::Abstains);
    w.say(0, &secret("a"), "coin", json!({"put": {"k": "1"}}));
    let made = w.draft();
    let error = w.try_block(made).unwrap_err();
    assert!(matches!(error, BlockError::Abstain { dapp, .. } if dapp == "coin"));
}

#[test]
fn a_dapp_that_is_left_out_rests_and_no_nonce_is_consumed() {
    let mut w = World::new();
    let key = secret("a");
    let body = json!({"put": {"k": "1"}});
    let id = w.say(0, &key, "coin", body.clone());
    let mut made = w.draft();
    let entry = made.lanes[0].entries[0].clone();
    made.left_out = vec!["nothing".into()];
    assert!(matches!(
        w.try_block(made.clone()),
        Err(BlockError::LeftOut(_))
    ));
    made.left_out = vec!["coin".into()];
    let release = coin(&w);
    w.host.behave(release.clone(), Behaviour::Abstains);
    w.try_block(made).unwrap();
    assert_eq!(w.receipts[&id].outcome, Outcome::Unavailable);
    assert_eq!(query::nonce(&w.state, &key.public()).unwrap(), 0);
    w.host.behave(release, Behaviour::Good);
    w.carry(0, entry.clone());
    w.block();
    assert_eq!(w.receipts[&id].outcome, Outcome::Unavailable, "it rests");
    w.blocks(SUSPENSION_BLOCKS);
    w.carry(0, entry);
    w.block();
    w.applied(&id);
}

#[test]
fn different_answers_show_in_the_digest_of_that_dapp() {
    let mut w = World::new();
    let release = coin(&w);
    w.say(0, &secret("a"), "coin", json!({"put": {"k": "1"}}));
    let made = w.draft();
    let on_node = |node: u64| {
        let mut w = w.clone();
        w.host = crate::fake::FakeHost::of_node(node);
        w.host.behave(release.clone(), Behaviour::Differs);
        w.try_block(made.clone()).unwrap()
    };
    let (one, two) = (on_node(1), on_node(2));
    assert_ne!(one.dapps, two.dapps);
    assert_ne!(one.writes, two.writes);
}

/// A state in which one value can't be read, as after somebody tampered with the store.
struct Tampered<'a>(&'a crate::MemoryState, &'a str);

impl StateView for Tampered<'_> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, crate::StateError> {
        if key == self.1 {
            let (key, why) = (
                key.to_owned(),
                "another value than the tree says".to_owned(),
            );
            return Err(crate::StateError::Corrupt { key, why });
        }
        self.0.get(key)
    }
    fn range(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, crate::StateError> {
        self.0.range(prefix, limit)
    }
}

#[test]
fn a_falsified_value_is_named_and_never_blamed_on_the_dapp() {
    let mut w = World::new();
    w.say(0, &secret("a"), "coin", json!({"put": {"k": "1"}}));
    let made = w.draft();
    let state = Tampered(&w.state, "d/coin/release");
    let mut host = w.host.clone();
    let error = crate::apply_block(&state, &made.input(&w), &mut host).unwrap_err();
    let named = |e: &BlockError| matches!(e, BlockError::State(crate::StateError::Corrupt { key, .. }) if key == "d/coin/release");
    assert!(named(&error), "{error}");
}

#[test]
fn verdicts_fit_into_a_block() {
    let mut w = World::new();
    let long = "x".repeat(crate::dapps::MAX_OUTPUT_BYTES - 100);
    w.say(0, &secret("a"), "coin", json!({"put": {"release": long}}));
    w.block();
    let ids: Vec<_> = (0..10)
        .map(|_| w.say(0, &secret("a"), "coin", json!({"put": {"k": "1"}})))
        .collect();
    w.block();
    w.refused(&ids[0], "dapp-protocol");
    let few = w.say(0, &secret("a"), "coin", json!({"put": {"k": "1"}}));
    w.block();
    w.applied(&few);
}
