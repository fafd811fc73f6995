//! A chain is forked, the fork takes entries that its mother never saw, and comes back by a motion: a dapp that opted in has
//! them on the mother, and nothing else of the fork counts there. Only one of the mother's nodes had the fork's history.

mod house;

use std::fs;
use std::path::{Path, PathBuf};

use instar::client::Client;
use serde_json::{Value, json};

use self::house::{House, NAMES, git, releases};
use super::operators::{done, instar, text};

const MOTHERS: [usize; 2] = [0, 1];
const FORK: usize = 2;

pub fn merged() {
    let mut house = House::new();
    let account = house.at("account.json");
    let key = done(&["key", "new", "account", "-o", text(&account), "--json"]);
    let ann = key["public"].as_str().unwrap().to_owned();
    let mother = found(&house, &ann);
    MOTHERS.iter().for_each(|i| house.begin(*i));
    house.send(0, "notes", &json!({"note": "before"}));
    let fork = leave(&house, &mother);
    house.begin(FORK);

    // The chains part. What follows on the fork the mother never sees.
    let stranger = "ab".repeat(32);
    house.send(0, "notes", &json!({"note": "on the mother"}));
    let noted = house.send(FORK, "notes", &json!({"note": "on the fork"}));
    let paid = json!({"amount": "30", "op": "transfer", "to": stranger});
    let paid = house.send(FORK, "coin", &paid);
    // Native, and refused or not of no effect elsewhere: on the fork it made a motion.
    let device = govern_on_the_fork(&house);
    assert_eq!(house.balance(FORK, &stranger), "30");
    assert_eq!(house.note(0, &fork, &ann), Value::Null);

    let motion = moved(&house, &fork);
    house.until("the fork is merged", || {
        MOTHERS.iter().all(|i| {
            let forks: Value = Client::new(&house.url(*i), None).get("/v1/forks").unwrap();
            forks[&fork]["parts"] == json!([]) && forks[&fork]["height"].as_u64() > Some(0)
        })
    });
    for i in MOTHERS {
        assert_eq!(house.note(i, &fork, &ann), "on the fork");
        assert_eq!(house.note(i, "here", &ann), "on the mother");
        // The coin did not opt in: a transfer on the fork moves nothing here.
        assert_eq!(house.balance(i, &stranger), "0");
        assert_eq!(house.balance(i, &ann), "100");
    }
    let receipt = |entry: &Value| {
        let id = entry["entry"].as_str().unwrap();
        let answer: Value = Client::new(&house.url(1), None)
            .get(&format!("/v1/receipts/{id}"))
            .unwrap();
        answer["receipt"].clone()
    };
    let taken = receipt(&noted);
    assert_eq!(
        (&taken["outcome"], &taken["chain"]),
        (&json!("applied"), &json!(fork))
    );
    assert_eq!(receipt(&paid)["rule"], "foreign-not-taken");
    let url = house.url(0);
    let devices = done(&["device", "list", "--node", &url, "--json"]);
    assert!(!devices.to_string().contains(&device), "{devices}");

    checks(&house, &mother, &fork);
    again(&house, &fork, &motion, &ann);
}

/// Each of the two operators makes the mother's genesis.
fn found(house: &House, ann: &str) -> String {
    let files: Vec<PathBuf> = MOTHERS.iter().map(|i| house.keys(*i)).collect();
    let releases = releases(house);
    let plan = house.at("plan.json");
    let mut policy = instar::demo::chain::policy(false);
    for slot in [&mut policy.dapps, &mut policy.node] {
        (slot.builders, slot.builder_names) = (2, None);
    }
    let content = json!({
        "accounts": {"coin": {"balance": {ann: "100"}}}, "chain_name": "mother", "policy": policy,
        "time_ms": 1_795_262_400_000u64,
    });
    fs::write(&plan, content.to_string()).unwrap();
    let ids: Vec<Value> = MOTHERS
        .iter()
        .map(|i| {
            let (home, http) = (house.at(NAMES[*i]), house.http(*i));
            let mut args = vec!["chain", "init", "--json", "--home", text(&home)];
            args.extend(["--plan", text(&plan), "--http", &http, "--release"]);
            args.extend(releases.iter().map(|r| text(r)));
            args.push("--validator");
            args.extend(files.iter().map(|f| text(f)));
            done(&args)["chain"].clone()
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
    ids[0].as_str().unwrap().to_owned()
}

/// One operator leaves with a chain of her own.
fn leave(house: &House, mother: &str) -> String {
    let file = house.keys(FORK);
    let (plan, home, url) = (house.at("fork.json"), house.at(NAMES[FORK]), house.url(0));
    let height = house.height(0).unwrap();
    let block = Client::new(&url, None).block(height).unwrap().unwrap();
    let mut policy = instar::demo::chain::policy(false);
    for slot in [&mut policy.dapps, &mut policy.node] {
        (slot.builders, slot.builder_names) = (1, None);
    }
    let content = json!({
        "chain_name": "fork", "policy": policy, "time_ms": block.header.time_ms + 1,
    });
    fs::write(&plan, content.to_string()).unwrap();
    let (at, http) = (height.to_string(), house.http(FORK));
    let made = done(&[
        "chain",
        "fork",
        &url,
        "--mother",
        mother,
        "--height",
        &at,
        "--home",
        text(&home),
        "--plan",
        text(&plan),
        "--http",
        &http,
        "--json",
        "--validator",
        text(&file),
    ]);
    made["chain"].as_str().unwrap().to_owned()
}

/// A device that the fork registers; its name.
fn govern_on_the_fork(house: &House) -> String {
    let (key, url) = (house.at("door.lane"), house.url(FORK));
    done(&["key", "new", "lane", "-o", text(&key), "--json"]);
    let operator = done(&["validator", "list", "--node", &url, "--json"])[0]["operator"].clone();
    let operator = operator.as_str().unwrap();
    let application = done(&[
        "device",
        "apply",
        "--key",
        text(&key),
        "--name",
        "door-of-the-fork",
        "--operator",
        operator,
        "--node",
        &url,
    ]);
    let file = house.at("door.json");
    fs::write(&file, application.to_string()).unwrap();
    let moved = house.verb(FORK, &["device", "add", text(&file)]);
    house.verb(
        FORK,
        &["motion", "vote", moved["id"].as_str().unwrap(), "yes"],
    );
    house.until("the fork registers a device", || {
        let all = done(&["device", "list", "--node", &url, "--json"]);
        all.to_string().contains("door-of-the-fork")
    });
    "door-of-the-fork".into()
}

/// Ann fetches the fork and moves that it be merged; both vote, Bob after a look of his own that leaves no history with him.
fn moved(house: &House, fork: &str) -> String {
    let (url, home) = (house.url(FORK), house.at(NAMES[0]));
    let merge = |home: &Path, more: &[&str]| -> Vec<String> {
        let base = [
            "chain",
            "merge-fork",
            &url,
            "--fork",
            fork,
            "--home",
            text(home),
        ];
        house.said(0, &[&base[..], more].concat())
    };
    let run = |words: Vec<String>| instar(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let other = "1".repeat(64);
    let lie = house.said(
        0,
        &[
            "chain",
            "merge-fork",
            &url,
            "--fork",
            &other,
            "--home",
            text(&home),
        ],
    );
    assert_eq!(
        run(lie).status.code(),
        Some(1),
        "another chain than that of the node"
    );
    let output = run(merge(&home, &["--delay", "1"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["receipt"]["receipt"]["outcome"], "applied", "{made}");
    let motion = made["id"].as_str().unwrap().to_owned();
    let aside = house.at("aside");
    fs::create_dir_all(aside.join("ledger.git/objects")).unwrap();
    let checked = run(merge(&aside, &["--check", &motion]));
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    let facts: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!((&facts["ok"], &facts["from"]), (&json!(true), &json!(1)));
    for i in MOTHERS {
        house.verb(i, &["motion", "vote", &motion, "yes"]);
    }
    assert!(!house.at(NAMES[1]).join("forks").exists());
    motion
}

/// What a clone of the mother shows, of the node that never saw the fork itself.
fn checks(house: &House, mother: &str, fork: &str) {
    let remote = format!("{}/ledger.git", house.url(1));
    git(house.dir(), &["clone", "--quiet", &remote, "clone"]);
    let clone = house.at("clone");
    assert_eq!(git(&clone, &["fsck", "--strict", "--no-progress"]), "");
    git(&clone, &["merge-base", "--is-ancestor", fork, "origin/tip"]);
    let log = git(&clone, &["log", "--format=%B", "origin/trunk"]);
    assert!(log.contains(&format!("Fork: {fork} 1-")), "{log}");
    let (work, store, node) = (house.at("work"), house.at("store"), house.url(0));
    let verify = |more: &[&str]| {
        let base = [
            "chain",
            "verify",
            text(&clone),
            "--chain",
            mother,
            "--work",
            text(&work),
            "--json",
        ];
        done(&[&base[..], more].concat())
    };
    let native = verify(&[]);
    assert_eq!(native["ok"], true, "{native}");
    assert!(
        native["checked"]["fork_blocks"].as_u64() >= Some(3),
        "{native}"
    );
    let whole = verify(&["--dapps", "--node", &node, "--store", text(&store)]);
    assert_eq!(whole["ok"], true, "{whole}");
    let checked = &whole["checked"];
    assert_eq!(checked["state_roots"], checked["blocks"], "every root");
}

/// The fork goes on, and is merged from where it was merged last.
fn again(house: &House, fork: &str, first: &str, ann: &str) {
    let before: Value = Client::new(&house.url(0), None).get("/v1/forks").unwrap();
    house.send(FORK, "notes", &json!({"note": "and later"}));
    let motion = moved_again(house, fork);
    assert_ne!(motion, first);
    house.until("the rest of the fork is merged", || {
        MOTHERS
            .iter()
            .all(|i| house.note(*i, fork, ann) == "and later")
    });
    let after: Value = Client::new(&house.url(0), None).get("/v1/forks").unwrap();
    let height = |all: &Value| all[fork]["height"].as_u64().unwrap();
    assert!(height(&after) > height(&before));
    assert_eq!(after[fork]["motion"], json!(motion));
}

fn moved_again(house: &House, fork: &str) -> String {
    let (url, home) = (house.url(FORK), house.at(NAMES[0]));
    let words = [
        "chain",
        "merge-fork",
        &url,
        "--fork",
        fork,
        "--home",
        text(&home),
        "--delay",
        "1",
    ];
    let made = house.verb(0, &words);
    let motion = made["id"].as_str().unwrap().to_owned();
    for i in MOTHERS {
        house.verb(i, &["motion", "vote", &motion, "yes"]);
    }
    motion
}
