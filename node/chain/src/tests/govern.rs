//! What motions change: who is a validator, an operator or a device.

use instar_attest::{ChainId, Digest, PublicKey, Purpose, SecretKey, Signature};
use instar_ledger::{DeviceId, Keys, Validator, ValidatorSet};
use serde_json::json;

use super::world::*;
use crate::govern::ops::*;
use crate::govern::{Change, GovernOp, MotionPhase, key_proof_bytes};
use crate::ops::Ballot;
use crate::query;

pub fn proof(chain: &ChainId, key: &SecretKey, purpose: Purpose, operator: &str) -> Signature {
    key.sign(&key_proof_bytes(chain, &key.public(), purpose, operator))
}

pub fn validator_add(chain: &ChainId, node: &Node, operator: &str, power: u64) -> Change {
    let by = |key: &SecretKey, purpose| proof(chain, key, purpose, operator);
    Change::ValidatorAdd(Box::new(ValidatorAdd {
        keys: node.keys(),
        name: node.name.clone(),
        operator: operator.to_owned(),
        power,
        proofs: Proofs {
            account: Some(by(&node.account, Purpose::Account)),
            builder: by(&node.builder, Purpose::Builder),
            consensus: by(&node.consensus, Purpose::Consensus),
            lane: Some(by(&node.lane, Purpose::Lane)),
        },
    }))
}

pub fn validator_remove(name: &str) -> Change {
    Change::ValidatorRemove(ByName { name: name.into() })
}

pub fn power(name: &str, power: u64) -> Change {
    let name = name.into();
    Change::ValidatorPower(ValidatorPower { name, power })
}

pub fn replace(
    chain: &ChainId,
    old: &SecretKey,
    new: &SecretKey,
    purpose: Purpose,
    operator: &str,
) -> Change {
    Change::KeyReplace(KeyReplace {
        new: new.public(),
        old: old.public(),
        proof: proof(chain, new, purpose, operator),
    })
}

fn device_add(chain: &ChainId, name: &str, operator: &str) -> Change {
    let key = secret(name);
    Change::DeviceAdd(DeviceAdd {
        lane: key.public(),
        name: name.into(),
        operator: operator.into(),
        proof: proof(chain, &key, Purpose::Lane, operator),
    })
}

pub fn operator_add(chain: &ChainId, name: &str, account: &SecretKey) -> Change {
    Change::OperatorAdd(OperatorAdd {
        account: account.public(),
        name: name.into(),
        proof: proof(chain, account, Purpose::Account, name),
    })
}

pub fn propose(change: Change, delay: u64) -> GovernOp {
    GovernOp::Propose(Propose {
        change,
        delay,
        reason: None,
    })
}

pub fn ballot(motion: Digest, vote: Ballot) -> GovernOp {
    GovernOp::Vote(MotionVote {
        motion,
        reason: None,
        vote,
    })
}

impl World {
    /// A motion that is made, voted for by all present validators, and has taken effect two blocks after.
    #[track_caller]
    pub fn pass(&mut self, change: Change) -> Digest {
        let motion = self.pass_later(change, 2);
        self.blocks(2);
        let now = query::motion(&self.state, &motion).unwrap().unwrap();
        assert_eq!(now.phase, MotionPhase::Done, "{:?}", now.detail);
        motion
    }

    #[track_caller]
    pub fn pass_later(&mut self, change: Change, delay: u64) -> Digest {
        let motion = self.govern(0, &propose(change, delay));
        self.block();
        self.applied(&motion);
        for node in 0..self.nodes.len() {
            self.govern(node, &ballot(motion, Ballot::Yes));
        }
        self.block();
        let now = query::motion(&self.state, &motion).unwrap().unwrap();
        assert_eq!(now.phase, MotionPhase::Passed);
        motion
    }

    /// A motion that is refused as soon as it is made.
    #[track_caller]
    pub fn cant(&mut self, change: Change, rule: &str) {
        let motion = self.govern(0, &propose(change, 1));
        self.block();
        self.refused(&motion, rule);
    }

    /// Another validator joins; its index.
    pub fn join(&mut self, name: &str) -> usize {
        let node = Node::of(name);
        let change = validator_add(&self.chain, &node, &format!("{name}-ltd"), 1);
        self.pass(change);
        self.nodes.push(node);
        self.signing.push(true);
        self.nodes.len() - 1
    }

    pub fn powers(&self) -> Vec<(String, u64)> {
        let mut all: Vec<(String, u64)> = query::validators(&self.state)
            .unwrap()
            .into_iter()
            .map(|v| (v.name, v.power))
            .collect();
        all.sort();
        all
    }
}

fn set(w: &World, nodes: &[usize]) -> ValidatorSet {
    let member = |i: &usize| Validator {
        key: w.nodes[*i].consensus.public(),
        power: 1,
    };
    ValidatorSet::new(nodes.iter().map(member).collect()).unwrap()
}

#[test]
fn a_fifth_validator_joins_at_its_height_and_one_leaves() {
    let mut w = World::new();
    let node = Node::of("eve");
    let motion = w.pass_later(validator_add(&w.chain, &node, "eve-ltd", 1), 3);
    w.nodes.push(node);
    w.signing.push(true);
    // The block at whose start it takes effect names the set of the next one.
    assert_eq!(w.block().validators, set(&w, &[0, 1, 2, 3]));
    assert_eq!(w.block().validators, set(&w, &[0, 1, 2, 3]));
    assert_eq!(w.block().validators, set(&w, &[0, 1, 2, 3, 4]));
    let done = query::motion(&w.state, &motion).unwrap().unwrap();
    assert_eq!((done.passed_at, done.effective_at), (Some(2), Some(5)));
    // It votes, and its lane is merged.
    let motion = w.govern(4, &propose(validator_remove("dan"), 1));
    w.block();
    w.applied(&motion);
    for node in [0, 1, 2] {
        w.govern(node, &ballot(motion, Ballot::Yes));
    }
    w.block();
    let waits = query::motion(&w.state, &motion).unwrap().unwrap();
    assert_eq!(
        waits.phase,
        MotionPhase::Voting,
        "three of five are too few"
    );
    w.govern(4, &ballot(motion, Ballot::Yes));
    w.block();
    assert_eq!(w.block().validators, set(&w, &[0, 1, 2, 4]));
    // The one who left is an operator with a device still, and no validator.
    let late = w.govern(3, &ballot(motion, Ballot::No));
    let coin = w.say(
        3,
        &w.nodes[3].account.clone(),
        "coin",
        json!({"put": {"k": "1"}}),
    );
    w.block();
    w.refused(&late, "not-a-validator");
    w.applied(&coin);
}

#[test]
fn keys_are_proven_for_this_chain_this_purpose_and_this_operator() {
    let mut w = World::new();
    let node = Node::of("eve");
    let good = validator_add(&w.chain, &node, "eve-ltd", 1);
    let Change::ValidatorAdd(good) = good else {
        panic!()
    };
    let wrongs: [(&SecretKey, ChainId, Purpose, &str); 4] = [
        (&node.account, w.chain, Purpose::Consensus, "eve-ltd"),
        (
            &node.consensus,
            ChainId::from_bytes([7; 32]),
            Purpose::Consensus,
            "eve-ltd",
        ),
        (&node.consensus, w.chain, Purpose::Lane, "eve-ltd"),
        (&node.consensus, w.chain, Purpose::Consensus, "mallory-ltd"),
    ];
    for (key, chain, purpose, operator) in wrongs {
        let mut bad = good.clone();
        let bytes = key_proof_bytes(&chain, &node.consensus.public(), purpose, operator);
        bad.proofs.consensus = key.sign(&bytes);
        w.cant(Change::ValidatorAdd(bad), "key-not-proven");
    }
    let mut bad = good.clone();
    bad.proofs.lane = None;
    w.cant(Change::ValidatorAdd(bad), "key-not-proven");
    // One key for two purposes.
    let mut bad = good.clone();
    bad.keys.builder = bad.keys.consensus;
    w.cant(Change::ValidatorAdd(bad), "key-not-proven");
    let mut twice = node.clone();
    twice.builder = twice.consensus.clone();
    w.cant(validator_add(&w.chain, &twice, "eve-ltd", 1), "key-taken");
    // A key of small order proves nothing.
    let mut weak = good.clone();
    weak.keys.consensus = PublicKey::from_bytes([0; 32]);
    w.cant(Change::ValidatorAdd(weak), "key-not-proven");
    w.pass(Change::ValidatorAdd(good));
}

#[test]
fn names_and_keys_are_never_used_again() {
    let mut w = World::new();
    w.join("eve");
    w.pass(validator_remove("dan"));
    let dan = w.nodes[3].clone();
    w.cant(validator_add(&w.chain, &dan, "dan-ltd", 1), "name-taken");
    let mut again = dan.clone();
    again.name = "dan-2".into();
    w.cant(validator_add(&w.chain, &again, "dan-ltd", 1), "key-taken");
    w.cant(device_add(&w.chain, "dan", "dan-ltd"), "name-taken");
    // With new consensus and builder keys it comes back under another name, with the account and device it has.
    again.consensus = secret("dan consensus 2");
    again.builder = secret("dan builder 2");
    let Change::ValidatorAdd(mut back) = validator_add(&w.chain, &again, "dan-ltd", 1) else {
        panic!()
    };
    back.proofs.account = None;
    back.proofs.lane = None;
    let mut stolen = back.clone();
    stolen.keys.account = w.nodes[0].account.public();
    w.cant(Change::ValidatorAdd(stolen), "key-taken");
    w.pass(Change::ValidatorAdd(back));
    w.nodes[3] = again;
    assert_eq!(w.powers().len(), 5);
    // Retired by a replacement, a key is gone too.
    let new = secret("ann account 2");
    let change = replace(
        &w.chain,
        &w.nodes[0].account,
        &new,
        Purpose::Account,
        "ann-ltd",
    );
    w.pass(change.clone());
    let old = std::mem::replace(&mut w.nodes[0].account, new);
    w.cant(change, "key-retired");
    w.cant(operator_add(&w.chain, "others", &old), "key-taken");
    let said = w.say(0, &old, "govern", propose(power("bob", 2), 1).to_value());
    w.block();
    w.refused(&said, "key-retired");
}

#[test]
fn every_key_is_replaced_one_by_one() {
    let mut w = World::new();
    let before = query::validators(&w.state).unwrap();
    let ann =
        |v: &[crate::record::ValidatorRecord]| v.iter().find(|v| v.name == "ann").unwrap().clone();
    let device = ann(&before).device;
    for purpose in [
        Purpose::Account,
        Purpose::Builder,
        Purpose::Consensus,
        Purpose::Lane,
    ] {
        let new = secret(&format!("ann {purpose} 2"));
        let node = &w.nodes[0];
        let old = match purpose {
            Purpose::Account => &node.account,
            Purpose::Builder => &node.builder,
            Purpose::Consensus => &node.consensus,
            Purpose::Lane => &node.lane,
        };
        let change = replace(&w.chain, old, &new, purpose, "ann-ltd");
        let wrong = replace(&w.chain, old, &new, purpose, "bob-ltd");
        w.cant(wrong, "key-not-proven");
        w.pass(change);
        match purpose {
            Purpose::Account => w.nodes[0].account = new,
            Purpose::Builder => w.nodes[0].builder = new,
            Purpose::Consensus => w.nodes[0].consensus = new,
            Purpose::Lane => {
                w.nodes[0].lane = new;
                w.lane_of.insert(
                    0,
                    instar_ledger::Lane {
                        device,
                        incarnation: 2,
                    },
                );
            }
        }
    }
    let record = ann(&query::validators(&w.state).unwrap());
    assert_eq!(record.device, device, "a device keeps its id");
    let node = &w.nodes[0];
    let keys: Keys = node.keys();
    assert_eq!(record.keys, keys);
    assert_eq!(query::device_of(&w.state, &keys.lane).unwrap(), device);
    let lane = |incarnation| instar_ledger::Lane {
        device,
        incarnation,
    };
    assert_eq!(
        query::lane_key(&w.state, &lane(2)).unwrap(),
        Some(keys.lane)
    );
    assert_eq!(
        query::lane_key(&w.state, &lane(1)).unwrap(),
        Some(secret("ann lane").public()),
        "what is merged was signed by the old key"
    );
    let said = w.say(
        0,
        &w.nodes[0].account.clone(),
        "coin",
        json!({"put": {"k": "1"}}),
    );
    w.block();
    w.applied(&said);
}

#[test]
fn no_single_change_hands_anybody_a_third() {
    let mut w = World::new();
    w.cant(power("ann", 2), "too-much-power");
    let eve = Node::of("eve");
    w.cant(
        validator_add(&w.chain, &eve, "eve-ltd", 2),
        "too-much-power",
    );
    w.cant(
        validator_add(&w.chain, &eve, "ann-ltd", 1),
        "too-much-power",
    );
    w.cant(power("ann", 0), "bad-validator-set");
    w.cant(power("ann", (1 << 53) - 1), "bad-validator-set");
    w.cant(power("ann", 1), "nothing-changes");
    w.cant(power("nobody", 1), "unknown-validator");
    // The policy asks three operators' builders, and a removal may bring the others to a third.
    w.pass(validator_remove("dan"));
    assert_eq!(w.powers().len(), 3);
    w.cant(validator_remove("cleo"), "policy-unmet");
}

#[test]
fn three_don_t_become_two_even_where_the_policy_would_allow_it() {
    let mut loose = policy();
    loose.dapps.builders = 1;
    loose.node.builders = 1;
    let mut w = World::with(loose, |genesis| genesis.validators.truncate(3));
    w.nodes.truncate(3);
    w.signing.truncate(3);
    w.cant(validator_remove("cleo"), "too-much-power");
    w.join("eve");
    w.pass(validator_remove("cleo"));
    assert_eq!(w.powers().len(), 3);
}

#[test]
fn one_validator_grows_into_four() {
    let mut loose = policy();
    loose.dapps.builders = 1;
    loose.node.builders = 1;
    let mut w = World::with(loose, |genesis| genesis.validators.truncate(1));
    w.nodes.truncate(1);
    w.signing.truncate(1);
    w.cant(validator_remove("ann"), "last-validator");
    w.pass(power("ann", 6));
    for name in ["eve", "fay", "gus"] {
        w.join(name);
    }
    w.pass(power("ann", 1));
    assert!(w.powers().iter().all(|(_, power)| *power == 1));
}

#[test]
fn operators_and_devices_come_and_go() {
    let mut w = World::new();
    let account = secret("house account");
    w.cant(device_add(&w.chain, "door", "house"), "unknown-operator");
    w.pass(operator_add(&w.chain, "house", &account));
    w.pass(device_add(&w.chain, "door", "house"));
    w.cant(device_add(&w.chain, "door", "house"), "name-taken");
    let device = DeviceId::of(&secret("door").public());
    w.nodes.push(Node {
        lane: secret("door"),
        account: account.clone(),
        ..Node::of("door")
    });
    let said = w.say(4, &account, "coin", json!({"put": {"open": "1"}}));
    w.block();
    w.applied(&said);
    w.cant(
        Change::OperatorRemove(ByName {
            name: "house".into(),
        }),
        "operator-in-use",
    );
    w.cant(
        Change::OperatorRemove(ByName {
            name: "ann-ltd".into(),
        }),
        "operator-in-use",
    );
    let own = DeviceId::of(&w.nodes[0].lane.public());
    w.cant(
        Change::DeviceRetire(DeviceRetire { device: own }),
        "device-of-validator",
    );

    // Its last words come when it is retired already: they get a receipt, and somebody else can carry them.
    w.pass_later(Change::DeviceRetire(DeviceRetire { device }), 1);
    let nonce = query::nonce(&w.state, &account.public()).unwrap();
    let body = json!({"put": {"open": "2"}});
    let last = instar_ledger::Entry::sign(&w.chain, &account, nonce, "coin", body).unwrap();
    let id = w.carry(4, last.clone());
    w.block();
    assert_eq!(w.receipts[&id].outcome, instar_ledger::Outcome::Unavailable);
    assert_eq!(w.receipts[&id].rule.as_deref(), Some("device-retired"));
    w.carry(0, last);
    w.block();
    w.applied(&id);
    w.cant(
        Change::DeviceRetire(DeviceRetire { device }),
        "device-retired",
    );

    w.pass(Change::OperatorRemove(ByName {
        name: "house".into(),
    }));
    w.cant(
        operator_add(&w.chain, "house", &secret("other")),
        "operator-removed",
    );
    let said = w.say(
        0,
        &account,
        "govern",
        propose(power("bob", 2), 1).to_value(),
    );
    w.block();
    w.refused(&said, "key-retired");
    let all = query::operators(&w.state).unwrap();
    assert_eq!(all.len(), 6);
    assert!(all["house"].removed.is_some() && all["house"].accounts.is_empty());
    assert_eq!(all["ann-ltd"].validators, ["ann"]);
}
