//! One story end to end: the whole demo, the upgrade of the node's own binary included, and what its report claims.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn the_demo_tells_its_whole_story() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(instar_tests::instar())
        .args(["demo", "--json", "--home"])
        .arg(home.path())
        .output()
        .expect("the program starts");
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    let stdout = String::from_utf8(output.stdout).expect("the report is UTF-8");
    let report: Value = serde_json::from_str(stdout.lines().last().expect("there is a last line"))
        .expect("it is JSON");
    println!("{talk}\n{report}");

    assert_eq!(report["validators"], 4);
    assert!(report["height"].as_u64().expect("a height") > 20);
    let transfers = &report["transfers"];
    let count = |name: &str| {
        transfers[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} is a count"))
    };
    assert!(count("sent") > 100, "{transfers}");
    assert_eq!(count("sent"), count("final") + count("rejected"));

    let upgrades = report["upgrades"].as_array().expect("a list");
    let slots: Vec<&str> = upgrades.iter().filter_map(|u| u["slot"].as_str()).collect();
    assert_eq!(slots, ["dapps/coin", "node"], "{talk}");
    for upgrade in upgrades {
        assert_ne!(upgrade["from"], upgrade["to"]);
        assert_eq!(upgrade["votes"]["no"], 0);
        assert!(upgrade["activated_at"].as_u64().expect("a height") > 0);
    }
    assert_eq!(upgrades[0]["builders_matched"], 4);
    assert_eq!(upgrades[0]["hermetic"], true);
    // One builder went on from the warm target folder, and the report says so.
    assert_eq!(upgrades[1]["builders_matched"], 1);
    assert_eq!(upgrades[1]["hermetic"], false);
    assert_eq!(report["left_out"], Value::Array(Vec::new()));

    let mut rules: Vec<&str> = report["refused"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|r| r["rule"].as_str())
        .collect();
    rules.sort_unstable();
    assert_eq!(
        rules,
        ["builders-below-threshold", "rehearsal-roots-differ"]
    );
    assert_eq!(report["killed"]["recovered"], true);
    assert_eq!(report["audit"]["verified"], true);
    assert_eq!(report["audit"]["fsck"], true);
    assert!(
        report["audit"]["lane_commits_verified"]
            .as_u64()
            .expect("a count")
            > 10
    );
    four_logs_one_sum(home.path());
}

/// Four runners in four homes built version 2 of the coin: four logs of their own, and one SHA-256 in all of them.
fn four_logs_one_sum(home: &Path) {
    let mut sums = BTreeSet::new();
    for validator in 1..=4 {
        let out = home.join(format!("validators/val-{validator}/runner/dapps-coin-2"));
        for build in ["build-1.log", "build-2.log"] {
            let log = fs::read_to_string(out.join(build)).expect("each build left its log");
            assert!(log.contains("Compiling coin"), "{log}");
        }
        let log = fs::read_to_string(out.with_extension("log")).expect("each runner left its log");
        let before = sums.len();
        sums.extend(
            log.lines()
                .filter(|l| l.starts_with("sha256:"))
                .map(str::to_owned),
        );
        assert!(validator == 1 || sums.len() == before, "{sums:?}\n{log}");
    }
    assert!(!sums.is_empty(), "the logs name what was built");
}
