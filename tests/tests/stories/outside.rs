//! A chain checked from outside: the whole of it from a clone with its dapps run again in containers, one header by
//! certificates alone, single keys by proofs, and the mesh by stock git.

use std::path::Path;
use std::process::{Command, Output};

use instar::demo::stage::Stage;
use instar::demo::traffic::account_key;
use serde_json::Value;

fn instar(args: &[&str]) -> Output {
    Command::new(instar_tests::instar())
        .args(args)
        .env_remove("INSTAR_NODE")
        .output()
        .unwrap()
}

fn facts(args: &[&str]) -> Value {
    let output = instar(args);
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "instar {args:?}: {said}{complaint}"
    );
    serde_json::from_str(&said).unwrap()
}

fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {said}{complaint}");
    said
}

pub fn checked_from_outside() {
    super::with_chain(
        |_| {},
        |stage| {
            super::stores::run_traffic(stage);
            let dir = tempfile::tempdir().unwrap();
            whole_chain(stage, dir.path());
            headers_and_proofs(stage, dir.path());
            stock_git(stage, dir.path());
        },
    );
}

fn whole_chain(stage: &Stage<'_>, dir: &Path) {
    let node = stage.validators[0].url();
    let url = format!("{node}/ledger.git");
    let chain = stage.chain.to_string();
    let (work, store) = (dir.join("work"), dir.join("store"));
    let (work, store) = (work.to_str().unwrap(), store.to_str().unwrap());
    let verify = [
        "chain", "verify", &url, "--chain", &chain, "--work", work, "--json",
    ];
    let with = |more: &[&str]| facts(&[&verify[..], more].concat());
    let native = with(&[]);
    assert_eq!(native["ok"], true);
    let blocks = native["checked"]["blocks"].as_u64().unwrap();
    assert!(blocks > 3 && native["checked"]["entries"].as_u64().unwrap() > 20);
    assert!(native["checked"]["state_roots"].as_u64().unwrap() < blocks);
    assert!(
        native["not_checked"].as_array().unwrap().len() == 2,
        "{native}"
    );

    // The coin in its container again, its image from a node, by the same clone.
    let dapps = with(&["--dapps", "--node", &node, "--store", store]);
    assert_eq!(dapps["ok"], true);
    assert_eq!(dapps["checked"]["state_roots"], dapps["checked"]["blocks"]);
    assert!(dapps["not_checked"].as_array().unwrap().is_empty());
    let images = dapps["images"].as_object().unwrap();
    assert_eq!(images.len(), 1);
    assert!(
        images
            .values()
            .all(|from| from.as_str().unwrap().contains("blocks from"))
    );

    // More blocks: fetched, and only those are checked.
    super::stores::run_traffic(stage);
    let again = with(&["--dapps", "--store", store]);
    assert_eq!(again["ok"], true);
    assert!(again["resumed_at"].as_u64().unwrap() >= blocks);
    assert!(again["checked"]["blocks"].as_u64().unwrap() > blocks);

    // No image, no verdict; another chain is another chain.
    let empty = dir.join("empty");
    let untold = instar(
        &[
            &verify[..],
            &["--dapps", "--fresh", "--store", empty.to_str().unwrap()],
        ]
        .concat(),
    );
    assert_eq!(untold.status.code(), Some(3), "{untold:?}");
    let other = instar(&[
        "chain",
        "verify",
        &url,
        "--work",
        work,
        "--chain",
        &"0".repeat(64),
    ]);
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&other.stdout).contains("other-chain"));
}

fn headers_and_proofs(stage: &Stage<'_>, dir: &Path) {
    let node = stage.validators[1].url();
    let chain = stage.chain.to_string();
    let checkpoint = dir.join("checkpoint.json");
    let checkpoint = checkpoint.to_str().unwrap();
    let light = facts(&[
        "chain", "light", "--chain", &chain, "--node", &node, "--save", checkpoint, "--json",
    ]);
    let height = light["height"].as_u64().unwrap();
    let block = stage.clients[0].block(height).unwrap().unwrap();
    assert_eq!(light["block"], block.id.to_hex());
    assert_eq!(light["state_root"], block.header.state_root.to_hex());
    let from = facts(&[
        "chain",
        "light",
        "--checkpoint",
        checkpoint,
        "--node",
        &node,
        "--json",
    ]);
    assert!(from["height"].as_u64().unwrap() >= height);
    let wrong = format!("{height}:{}", "1".repeat(64));
    let refused = instar(&["chain", "light", "--checkpoint", &wrong, "--node", &node]);
    assert_eq!(refused.status.code(), Some(1));

    let balance = format!("d/coin/balance/{}", account_key(0).public());
    let nobody = format!("d/coin/balance/{}", "0".repeat(64));
    for (key, there) in [(&balance, true), (&nobody, false)] {
        let file = dir.join("proof.json");
        let file = file.to_str().unwrap();
        facts_less(&[
            "chain", "prove", key, "--chain", &chain, "--node", &node, "-o", file,
        ]);
        let shown = facts(&["chain", "check-proof", file, "--chain", &chain, "--json"]);
        assert_eq!(shown["value"].is_string(), there, "{shown}");
        assert_eq!(shown["chain"], chain);
        // Nothing is proven to somebody who trusts another chain, or of a file with one digit changed.
        let other = "2".repeat(64);
        let refused = instar(&["chain", "check-proof", file, "--chain", &other]);
        assert_eq!(refused.status.code(), Some(1));
        let text = std::fs::read_to_string(file).unwrap();
        let root = shown["root"].as_str().unwrap();
        std::fs::write(file, text.replace(root, &"3".repeat(64))).unwrap();
        let refused = instar(&["chain", "check-proof", file, "--chain", &chain]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing is proven"));
    }
    let file = dir.join("from-checkpoint.json");
    let file = file.to_str().unwrap();
    let args = ["--checkpoint", checkpoint];
    facts_less(
        &[
            &["chain", "prove", &balance, "--node", &node, "-o", file],
            &args[..],
        ]
        .concat(),
    );
    facts(&[&["chain", "check-proof", file, "--json"], &args[..]].concat());
}

/// For verbs that talk and print no facts.
fn facts_less(args: &[&str]) {
    let output = instar(args);
    assert!(
        output.status.success(),
        "instar {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn stock_git(stage: &Stage<'_>, dir: &Path) {
    let url = format!("{}/ledger.git", stage.validators[2].url());
    git(dir, &["clone", "--quiet", &url, "ledger"]);
    let clone = dir.join("ledger");
    let before = git(&clone, &["rev-list", "--count", "origin/tip"]);
    super::stores::run_traffic(stage);
    git(&clone, &["fetch", "--quiet"]);
    let after = git(&clone, &["rev-list", "--count", "origin/tip"]);
    let count = |text: &str| text.trim().parse::<u64>().unwrap();
    assert!(count(&after) > count(&before), "{before}{after}");
    assert_eq!(git(&clone, &["fsck", "--strict", "--no-progress"]), "");
    let graph = git(&clone, &["log", "--graph", "--format=%s", "origin/tip"]);
    for subject in ["block ", "lane ", "tip ", "genesis "] {
        assert!(graph.contains(subject), "{graph}");
    }
    assert!(graph.contains("|\\"), "the mesh is drawn: {graph}");
    let signers = dir.join("allowed_signers");
    let text = stage.clients[0].text("/v1/allowed-signers").unwrap();
    std::fs::write(&signers, text).unwrap();
    let config = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    let new = format!("{}..origin/tip", "origin/trunk~3");
    let log = git(&clone, &["log", "--format=%H %s", &new]);
    let lanes: Vec<&str> = log
        .lines()
        .filter_map(|l| l.split_once(" lane "))
        .map(|(id, _)| id)
        .collect();
    assert!(!lanes.is_empty(), "{log}");
    for id in lanes {
        git(
            &clone,
            &["-c", "gpg.format=ssh", "-c", &config, "verify-commit", id],
        );
    }
}
