//! Whatever is moved, in whatever order: the registry stays sound, and every node has the same.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::{PublicKey, Purpose};
use instar_ledger::{DeviceId, ValidatorSet};
use proptest::prelude::*;

use super::govern::{ballot, power, propose, replace, validator_add, validator_remove};
use super::world::*;
use crate::govern::ops::*;
use crate::govern::{Change, GovernOp};
use crate::ops::Ballot;
use crate::record::{DeviceRecord, KeyRecord, ValidatorRecord};
use crate::{MemoryState, StateView, keys, query, record};

/// What is tried, of whom, and with which number.
fn tries() -> impl Strategy<Value = (u8, usize, u64)> {
    (0u8..10, 0usize..10, 0u64..6)
}

/// Most of it can't be: names of nobody, keys of others, powers of all sizes.
fn change(w: &World, what: u8, who: usize, n: u64) -> Change {
    let name = [
        "ann", "bob", "cleo", "dan", "v0", "v1", "v2", "v3", "v4", "v5",
    ][who]
        .to_owned();
    let node = Node::of(&name);
    let operator = format!("{name}-ltd");
    let fresh = secret(&format!("{name} {n}"));
    match what {
        0..=2 => validator_add(&w.chain, &node, &operator, n),
        3 => validator_remove(&name),
        4 => power(&name, n),
        5 => {
            let old = [&node.account, &node.builder, &node.consensus, &node.lane][n as usize % 4];
            let purpose = [
                Purpose::Account,
                Purpose::Builder,
                Purpose::Consensus,
                Purpose::Lane,
            ][n as usize % 4];
            replace(&w.chain, old, &fresh, purpose, &operator)
        }
        6 => Change::DeviceAdd(DeviceAdd {
            lane: fresh.public(),
            name: format!("d{n}"),
            proof: super::govern::proof(&w.chain, &fresh, Purpose::Lane, &operator),
            operator,
        }),
        7 => Change::DeviceRetire(DeviceRetire {
            device: DeviceId::of(&fresh.public()),
        }),
        8 => Change::OperatorAdd(OperatorAdd {
            account: fresh.public(),
            proof: super::govern::proof(&w.chain, &fresh, Purpose::Account, &operator),
            name: operator,
        }),
        _ => Change::OperatorRemove(ByName { name: operator }),
    }
}

fn registered(state: &MemoryState) -> BTreeMap<PublicKey, KeyRecord> {
    let all: BTreeMap<String, KeyRecord> = record::read_all(state, keys::KEYS, 10_000).unwrap();
    all.into_iter()
        .map(|(k, v)| (k.parse().unwrap(), v))
        .collect()
}

fn largest(validators: &[ValidatorRecord]) -> (u64, u64) {
    let mut powers: BTreeMap<&str, u64> = BTreeMap::new();
    for v in validators {
        *powers.entry(&v.operator).or_default() += v.power;
    }
    (*powers.values().max().unwrap(), powers.values().sum())
}

fn sound(before: &MemoryState, after: &MemoryState) {
    let validators = query::validators(after).unwrap();
    let set: ValidatorSet = query::validator_set(after).unwrap();
    assert_eq!(set.len(), validators.len());
    let names: Vec<(&str, &str)> = validators
        .iter()
        .map(|v| (v.name.as_str(), v.operator.as_str()))
        .collect();
    query::policy(after).unwrap().check(&names).unwrap();
    assert_eq!(
        names.iter().map(|n| n.0).collect::<BTreeSet<_>>().len(),
        names.len()
    );

    let (old, new) = (registered(before), registered(after));
    for (key, known) in &old {
        let now = &new[key];
        assert_eq!(
            (&now.operator, now.purpose),
            (&known.operator, known.purpose),
            "{key}"
        );
        assert!(
            known.retired.is_none() || now.retired == known.retired,
            "a retired key came back"
        );
    }
    for v in &validators {
        let of = [
            (v.keys.account, Purpose::Account),
            (v.keys.builder, Purpose::Builder),
            (v.keys.consensus, Purpose::Consensus),
            (v.keys.lane, Purpose::Lane),
        ];
        for (key, purpose) in of {
            let known = &new[&key];
            assert_eq!((known.purpose, known.retired), (purpose, None));
            assert_eq!(
                (known.operator.as_str(), known.validator.as_ref()),
                (v.operator.as_str(), Some(&v.name))
            );
        }
        let device: DeviceRecord = record::expect(after, &keys::device(&v.device)).unwrap();
        assert_eq!(device.lane_key, v.keys.lane);
        assert!(!device.is_retired());
    }
    let claimed = new
        .values()
        .filter(|k| k.retired.is_none() && k.validator.is_some())
        .count();
    assert_eq!(
        claimed,
        validators.len() * 4,
        "a live key belongs to a validator that is none"
    );
    for (name, operator) in query::operators(after).unwrap() {
        if after.get(keys::INDEXED).unwrap().is_some() {
            let kept: record::OperatorRecord =
                record::expect(after, &keys::operator(&name)).unwrap();
            let mut accounts = kept.accounts.clone();
            accounts.sort();
            assert_eq!(
                (accounts, kept.devices),
                (operator.accounts, operator.devices.len() as u64),
                "{name}"
            );
        }
    }
    // Several motions may take effect in one block; one alone takes nobody beyond a third.
    let (old, new) = (query::validators(before).unwrap(), validators);
    let (most, all) = largest(&new);
    let (most_before, all_before) = largest(&old);
    if most * 3 > all {
        assert!(
            most_before * 3 > all_before,
            "{most} of {all} after {most_before} of {all_before}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_is_moved_the_registry_stays_sound(tried in prop::collection::vec(tries(), 1..24)) {
        let mut w = World::new();
        for (turn, (what, who, n)) in tried.into_iter().enumerate() {
            // What a device carries long after its lane was closed would spoil a block; no proposer takes it.
            let mut nodes = (0..4).map(|i| (turn + i) % 4);
            let Some(node) = nodes.find(|i| query::check_lane(&w.state, &w.lane(*i)).is_ok()) else {
                break;
            };
            let before = w.state.clone();
            let change = change(&w, what, who, n);
            let motion = w.govern(node, &propose(change, 1 + n % 3));
            w.block();
            // Everybody says yes who still can; a lane or an account may be gone by now.
            for name in ["ann", "bob", "cleo", "dan", "v0", "v1", "v2", "v3", "v4", "v5"] {
                let account = Node::of(name).account;
                w.say(node, &account, "govern", ballot(motion, Ballot::Yes).to_value());
            }
            w.blocks(5);
            sound(&before, &w.state);
        }
        super::determinism::replay(&w);
    }

    /// What is no operation is refused as malformed; it never breaks a block.
    #[test]
    fn any_body_is_an_operation_or_none(bytes in "\\PC{0,200}", op in "propose|vote|withdraw|evidence") {
        let body = serde_json::json!({"op": op, "change": {"kind": bytes}, "motion": bytes});
        prop_assert!(GovernOp::from_value(&body).is_err());
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(&bytes) {
            prop_assert!(GovernOp::from_value(&value).is_err());
        }
    }
}
