//! Two operators of their own fork a running chain: one shares its history in place, one fetches it. The coin begins with
//! the mother's balances, the chains part, nothing counts on both, and anybody can check all of it from a clone.

use std::fs;
use std::path::Path;
use std::process::Command;

use instar::client::Client;
use instar::demo::stage::Stage;
use instar::demo::traffic::account_key;
use instar_attest::keyfile;
use instar_ledger::Entry;
use serde_json::{Value, json};

use super::operators::{done, instar, text};
use super::site::Site;

const NAMES: [&str; 3] = ["ben", "cy", "door"];

fn balance(url: &str, account: &str) -> Value {
    let question = json!({"op": "balance", "account": account}).to_string();
    let asked = [
        "dapp", "query", "coin", &question, "--final", "--node", url, "--json",
    ];
    done(&asked)["answer"]["balance"].clone()
}

fn send(url: &str, key: &Path, to: &str) -> Value {
    let body = json!({"op": "transfer", "to": to, "amount": "3"}).to_string();
    done(&[
        "send",
        "coin",
        &body,
        "--key",
        text(key),
        "--node",
        url,
        "--json",
    ])
}

pub fn forked() {
    super::with_chain(
        |_| {},
        |stage| {
            super::stores::run_traffic(stage);
            story(stage);
        },
    );
}

fn story(stage: &Stage<'_>) {
    let mut fork = Site::new(&NAMES);
    let mother = stage.validators[0].url();
    // Below the head, where a block has one certificate for everybody.
    let height = stage.height().unwrap() - 1;
    let at = stage.clients[0].block(height).unwrap().unwrap();
    let account = fork.at("account.json");
    keyfile::create(&account, instar_attest::Purpose::Account, &account_key(0)).unwrap();
    let alice = account_key(0).public().to_string();

    let ids = found(stage, &fork, height, at.header.time_ms);
    assert_eq!(ids[0], ids[1], "both operators make the same genesis");
    let (chain, url) = (ids[0].clone(), fork.url(0));
    assert_ne!(chain, stage.chain.to_string());
    (0..2).for_each(|i| fork.start(i));
    fork.until("the fork's nodes answer", || {
        (0..2).all(|i| fork.height(i).is_some())
    });
    let status = done(&["chain", "status", "--node", &url, "--json"]);
    assert_eq!(status["chain"], chain);
    assert_eq!(status["mother"]["chain"], stage.chain.to_string());
    assert_eq!(status["mother"]["height"], height);
    assert_eq!(status["mother"]["block"], at.id.to_hex());

    // One entry for each chain; neither is taken by the other, whoever brings it.
    let before = balance(&url, &alice);
    let stranger = "ab".repeat(32);
    let of_mother = send(&mother, &account, &stranger);
    let of_fork = send(&url, &account, &stranger);
    assert_eq!(of_fork["receipt"]["outcome"], "applied", "{of_fork}");
    assert_eq!(of_mother["receipt"]["outcome"], "applied", "{of_mother}");
    assert_eq!(balance(&url, &stranger), "3");
    let key = account_key(0);
    for (from, to) in [(&stage.chain.to_string(), &url), (&chain, &mother)] {
        let body = json!({"op": "transfer", "to": stranger, "amount": "3"});
        let entry = Entry::sign(&from.parse().unwrap(), &key, 1_000, "coin", body).unwrap();
        let refused = Client::new(to, None).submit(&entry.to_line()).unwrap_err();
        assert!(
            refused.to_string().contains("belongs to chain"),
            "{refused:#}"
        );
    }
    let number = |v: &Value| v.as_str().unwrap().parse::<u64>().unwrap();
    let now = balance(&url, &alice);
    assert_eq!(
        number(&now) + 3,
        number(&before),
        "only the fork's own transfer counts"
    );

    checks(stage, &fork, &chain, &at.id.to_hex());

    // Somebody who knows nothing but the fork's id and one node of it.
    let home = fork.at("door");
    let http = fork.http(2);
    let joined = [
        "chain",
        "join",
        &url,
        "--id",
        &chain,
        "--home",
        text(&home),
        "--http",
        &http,
        "--json",
    ];
    done(&joined);
    fork.start(2);
    let newest = fork.height(0).unwrap();
    fork.until("the follower is there", || fork.height(2) >= Some(newest));
    assert_eq!(balance(&fork.url(2), &alice), now);
    lying_node(stage, &fork, &chain);
}

/// Each operator of the fork makes its genesis; the first reads the mother's objects in place.
fn found(stage: &Stage<'_>, fork: &Site, height: u64, time_ms: u64) -> Vec<String> {
    let files = [0, 1].map(|i| fork.keys(i));
    let plan = fork.at("plan.json");
    let mut policy = instar::demo::chain::policy(false);
    for slot in [&mut policy.dapps, &mut policy.node] {
        (slot.builders, slot.builder_names) = (2, None);
    }
    let content = json!({"chain_name": "forked", "policy": policy, "time_ms": time_ms + 1});
    fs::write(&plan, content.to_string()).unwrap();
    let (mother, at) = (stage.chain.to_string(), height.to_string());
    let ledger = stage.validators[0].home.ledger();
    let make = |i: usize, mother: &str, more: &[&str]| {
        let (url, home) = (stage.validators[i].url(), fork.at(NAMES[i]));
        let http = fork.http(i);
        let mut args = vec![
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
        ];
        args.extend(more);
        args.push("--validator");
        args.extend(files.iter().map(|f| text(f)));
        instar(&args)
    };
    let nobody = "1".repeat(64);
    assert_eq!(
        make(0, &nobody, &[]).status.code(),
        Some(1),
        "another mother"
    );
    let other = make(0, &mother, &["--id", &nobody]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("differ from the others"));
    [
        make(0, &mother, &["--share", text(&ledger)]),
        make(1, &mother, &[]),
    ]
    .iter()
    .map(|output| {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value["dapps"], json!(["coin"]));
        value["chain"].as_str().unwrap().to_owned()
    })
    .collect()
}

/// What a clone of the fork shows, to stock git and to those who run everything again.
fn checks(stage: &Stage<'_>, fork: &Site, chain: &str, block: &str) {
    let git = |folder: &Path, args: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(args)
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "git {args:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (i, name) in NAMES.iter().enumerate().take(2) {
        let own = git(&fork.at(name).join("ledger.git"), &["count-objects", "-v"]);
        assert!(own.contains("alternate: "), "{own}");
        let remote = format!("{}/ledger.git", fork.url(i));
        let name = format!("clone-{i}");
        git(fork.dir(), &["clone", "--quiet", &remote, &name]);
        let clone = fork.at(&name);
        assert_eq!(git(&clone, &["fsck", "--strict", "--no-progress"]), "");
        let parent = git(&clone, &["rev-parse", &format!("{chain}^")]);
        assert_eq!(parent.trim(), block);
    }
    let (clone, work, store) = (fork.at("clone-1"), fork.at("work"), fork.at("store"));
    let verify = |more: &[&str]| {
        let base = [
            "chain",
            "verify",
            text(&clone),
            "--chain",
            chain,
            "--work",
            text(&work),
            "--json",
        ];
        done(&[&base[..], more].concat())
    };
    let native = verify(&[]);
    assert_eq!(
        (&native["ok"], &native["forked_from"][0]["block"]),
        (&json!(true), &json!(block))
    );
    assert_eq!(native["forked_from"][0]["chain"], stage.chain.to_string());
    let node = fork.url(0);
    let whole = verify(&["--dapps", "--node", &node, "--store", text(&store)]);
    assert_eq!(whole["ok"], true);
    let checked = &whole["checked"];
    assert_eq!(
        checked["state_roots"], checked["blocks"],
        "every root of both chains"
    );
    assert!(checked["blocks"].as_u64() > whole["forked_from"][0]["height"].as_u64());
    assert_eq!(whole["not_checked"], json!([]));
    let light = done(&[
        "chain", "light", "--chain", chain, "--node", &node, "--json",
    ]);
    assert_eq!(light["chain"], chain);
}

/// Who joins takes the mother's state from any node, and believes none: one byte, and it is named.
fn lying_node(stage: &Stage<'_>, fork: &Site, chain: &str) {
    let dump = fork.at("ben").join("mother.state");
    let honest = fs::read(&dump).unwrap();
    let mut altered = honest.clone();
    let at = altered
        .windows(12)
        .position(|w| w == b"coin/balance")
        .unwrap();
    let end = at + 12 + 1 + 64;
    altered[end] = b'9' - (altered[end] == b'9') as u8;
    fs::write(&dump, &altered).unwrap();
    let (home, share) = (fork.at("misled"), stage.validators[0].home.ledger());
    let refused = instar(&[
        "chain",
        "join",
        &fork.url(0),
        "--id",
        chain,
        "--home",
        text(&home),
        "--share",
        text(&share),
    ]);
    fs::write(&dump, honest).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(why.contains("get it from another node"), "{why}");
    assert!(!home.join("ledger.git").exists());
}
