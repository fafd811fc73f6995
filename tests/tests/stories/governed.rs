//! Four operators govern their chain with the program's verbs: a fifth validator joins and is needed, one leaves, one
//! loses its marks, a lane says two things and gets a new key.

use std::fs;
use std::ops::{Deref, DerefMut};

use instar_attest::{ChainId, Purpose};
use instar_ledger::equivocation::Evidence;
use instar_ledger::grammar::LanePayload;
use instar_ledger::{DeviceId, Lane, Oid};
use serde_json::{Value, json};

use super::operators::{done, instar, text};
use super::site::Site;

const NAMES: [&str; 5] = ["ada", "ben", "cy", "di", "eve"];

struct House {
    site: Site,
    chain: String,
}

impl Deref for House {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl DerefMut for House {
    fn deref_mut(&mut self) -> &mut Site {
        &mut self.site
    }
}

impl House {
    fn status(&self, i: usize) -> Value {
        let url = self.url(i);
        let output = instar(&["chain", "status", "--json", "--node", &url]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Votes yes at a node. Whether the ledger took it.
    fn votes(&self, i: usize, motion: &str) -> bool {
        let (url, token) = (self.url(i), self.home(i).token_file());
        let words = ["motion", "vote", motion, "yes", "--json", "--node", &url];
        let output = instar(&[&words[..], &["--token-file", text(&token)]].concat());
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = complaint.contains("the ledger refused it");
        assert!(output.status.success() || refused, "{complaint}");
        output.status.success()
    }

    fn validators(&self, i: usize) -> Vec<String> {
        let all = self.verb_read(i, &["validator", "list"]);
        let names = all.as_array().unwrap().iter();
        let mut names: Vec<String> = names.map(|v| v["name"].as_str().unwrap().into()).collect();
        names.sort();
        names
    }

    fn verb_read(&self, i: usize, words: &[&str]) -> Value {
        let url = self.url(i);
        let mut all = words.to_vec();
        all.extend(["--json", "--node", &url]);
        done(&all)
    }

    /// Moves a change at the first node and lets these vote for it; waits until it has taken effect.
    fn decide(&self, words: &[&str], voters: &[usize]) {
        let moved = self.verb(0, words);
        let id = moved["id"].as_str().unwrap().to_owned();
        let phase = || self.verb_read(0, &["motion", "show", &id])["phase"].clone();
        for i in voters {
            // What has passed takes no more votes; another node may know so before the first does.
            if phase() == "voting" && !self.votes(*i, &id) {
                self.until("what takes no votes has passed", || phase() != "voting");
            }
        }
        self.until("the motion takes effect", || phase() == "done");
    }

    /// Heights from `from` on whose certificate has a validator's precommit.
    fn signed(&self, i: usize, from: u64) -> Vec<u64> {
        let key = self
            .home(i)
            .key(Purpose::Consensus)
            .unwrap()
            .public()
            .to_string();
        let height = self.status(0)["height"].as_u64().unwrap();
        let client = instar::client::Client::new(&self.url(0), None);
        let signs = |h: &u64| {
            let block = client.block(*h).unwrap().unwrap();
            let mut signers = block.certificate.signatures.iter();
            signers.any(|s| s.validator.to_string() == key)
        };
        (from..=height).filter(signs).collect()
    }
}

fn found() -> House {
    let mut house = House {
        site: Site::new(&NAMES),
        chain: String::new(),
    };
    let files = [0, 1, 2, 3].map(|i| house.keys(i));
    let plan = house.at("plan.json");
    fs::write(
        &plan,
        json!({"chain_name": "governed", "time_ms": 1_795_262_400_000u64}).to_string(),
    )
    .unwrap();
    for (i, name) in NAMES[..4].iter().enumerate() {
        let http = house.http(i);
        let home = house.at(name);
        let mut args = vec![
            "chain",
            "init",
            "--json",
            "--home",
            text(&home),
            "--plan",
            text(&plan),
        ];
        args.extend(["--http", &http, "--validator"]);
        args.extend(files.iter().map(|f| text(f)));
        house.chain = done(&args)["chain"].as_str().unwrap().to_owned();
    }
    house
}

/// The fifth has the chain's id and the address of one node, and nothing else: it begins as a follower.
fn join(house: &House) {
    let home = house.at(NAMES[4]);
    let http = house.http(4);
    let (consensus, data) = (house.address(4, 1), house.address(4, 2));
    let mut args = vec!["chain", "join", "--json", "--id", &house.chain];
    args.extend(["--home", text(&home), "--name", NAMES[4], "--http", &http]);
    args.extend(["--consensus", &consensus, "--data", &data]);
    let url = house.url(0);
    args.push(&url);
    let joined = done(&args);
    assert_eq!(joined["chain"], house.chain.as_str());
    // A chain without a snapshot is replayed.
    assert!(joined["snapshot"].is_null(), "{joined}");
}

/// Something to decide that changes nothing for anybody: a device more.
fn something(house: &House, name: &str, voters: &[usize]) {
    let key = house.at(&format!("{name}.key"));
    done(&["key", "new", "lane", "-o", text(&key), "--json"]);
    let made = instar(&[
        "device",
        "apply",
        "--key",
        text(&key),
        "--name",
        name,
        "--operator",
        "ada",
        "--chain",
        &house.chain,
    ]);
    let file = house.at(&format!("{name}.application"));
    fs::write(&file, made.stdout).unwrap();
    house.decide(&["device", "add", text(&file)], voters);
}

pub fn governed() {
    let mut house = found();
    (0..4).for_each(|i| house.start(i));
    house.until("the four answer", || {
        (0..4).all(|i| house.status(i)["height"].is_u64())
    });
    join(&house);
    house.start(4);
    house.until("all nodes answer", || {
        (0..5).all(|i| house.status(i)["height"].is_u64())
    });

    // The fifth asks, another operator moves it, three of four decide.
    let home = house.at("eve");
    let made = instar(&[
        "validator",
        "apply",
        "--home",
        text(&home),
        "--name",
        "eve",
        "--chain",
        &house.chain,
    ]);
    let file = house.at("eve.application");
    fs::write(&file, made.stdout).unwrap();
    house.decide(
        &["validator", "add", text(&file), "--delay", "3"],
        &[0, 1, 2],
    );
    assert_eq!(house.validators(2), NAMES);
    house.until("the fifth follows", || house.validators(4).len() == 5);
    house.until("the follower is a validator", || {
        house.status(4)["role"] == "validator"
    });

    // Four of five are needed: without the fourth the chain goes on only with the fifth.
    house.kill(3);
    let before = house.status(0)["height"].as_u64().unwrap();
    something(&house, "door-1", &[0, 1, 2, 4]);
    assert!(!house.signed(4, before + 1).is_empty(), "{}", house.log(4));

    // The fourth lost its marks: it follows first, then signs again, and its lane is another incarnation.
    fs::remove_dir_all(house.home(3).marks()).unwrap();
    let lost = house.status(0)["height"].as_u64().unwrap();
    house.start(3);
    house.until("the fourth is back", || {
        house.status(3)["height"].as_u64() >= Some(lost)
    });
    assert!(house.log(3).contains("only follows"), "{}", house.log(3));
    assert!(house.status(3)["lane"]["lane"]["incarnation"].as_u64() > Some(1));
    let voters = [3, 0, 1, 2, 4];
    something(&house, "door-2", &voters);
    something(&house, "door-3", &voters);
    let signed = house.signed(3, lost);
    assert!(
        !signed.contains(&(lost + 1)) && !signed.contains(&(lost + 2)),
        "{signed:?} after {lost}"
    );
    assert!(!signed.is_empty(), "{}", house.log(3));

    house.decide(&["validator", "remove", "ben"], &[0, 2, 3, 4]);
    assert_eq!(house.validators(3), ["ada", "cy", "di", "eve"]);
    house.kill(1);
    two_things(&mut house);
}

/// The third's lane key signed two payloads for one place; somebody who is nobody brings the evidence.
fn two_things(house: &mut House) {
    let key = house.home(2).key(Purpose::Lane).unwrap();
    let chain: ChainId = house.chain.parse().unwrap();
    let device = DeviceId::of(&key.public());
    let lane = Lane {
        device,
        incarnation: 1,
    };
    let [a, b] = [1, 2].map(|time_s| {
        let payload = LanePayload {
            chain,
            entries: 1,
            lane,
            parent: Oid::from_bytes([9; 32]),
            seq: 1000,
            time_s,
            tree: Oid::from_bytes([8; 32]),
        };
        payload.sign(&key).unwrap().to_bytes()
    });
    let evidence = Evidence::of(&chain, &a, &b).unwrap();
    let mut body = serde_json::to_value(&evidence).unwrap();
    body["op"] = "evidence".into();
    let passer_by = house.at("passer-by.json");
    done(&["key", "new", "account", "-o", text(&passer_by), "--json"]);
    let sent = house.verb_read(
        0,
        &[
            "send",
            "govern",
            &body.to_string(),
            "--key",
            text(&passer_by),
        ],
    );
    assert_eq!(sent["receipt"]["outcome"], "applied", "{sent}");
    assert_eq!(house.status(3)["quarantined"][0]["name"], "cy");
    let (url, token) = (house.url(2), house.home(2).token_file());
    let refused = instar(&[
        "motion",
        "vote",
        &"0".repeat(64),
        "yes",
        "--node",
        &url,
        "--token-file",
        text(&token),
    ]);
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("lane-quarantined"), "{why}");

    // Governance gives the device a new key, and it has a lane again.
    let new = house.at("cy-lane-2.json");
    done(&["key", "new", "lane", "-o", text(&new), "--json"]);
    let old = key.public().to_string();
    house.decide(&["key", "replace", text(&new), "--old", &old], &[0, 3, 4]);
    house.kill(2);
    fs::copy(&new, house.home(2).key_file(Purpose::Lane)).unwrap();
    house.start(2);
    house.until("the third answers", || house.status(2)["height"].is_u64());
    something(house, "door-4", &[0, 2, 3, 4]);
    let own = house.status(2)["lane"].clone();
    assert!(
        own["closed"].is_null() && own["lane"]["device"] == device.to_string(),
        "{own}"
    );
    assert_eq!(house.status(0)["quarantined"], json!([]));
}
