//! One story end to end: the demo and what its report claims. The upgrade of the node's own binary is left out here: it
//! compiles the checkout anew, which takes longer than everything else together.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_demo_tells_its_whole_story() {
    let output = Command::new(instar_tests::instar())
        .args(["demo", "--json", "--no-node"])
        .output()
        .expect("the program starts");
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    let stdout = String::from_utf8(output.stdout).expect("the report is UTF-8");
    let report: Value = serde_json::from_str(stdout.lines().last().expect("there is a last line"))
        .expect("it is JSON");

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
    assert_eq!(slots, ["dapps/coin"], "{talk}");
    for upgrade in upgrades {
        assert_ne!(upgrade["from"], upgrade["to"]);
        assert_eq!(upgrade["votes"]["no"], 0);
        assert!(upgrade["activated_at"].as_u64().expect("a height") > 0);
    }
    assert_eq!(upgrades[0]["builders_matched"], 4);
    assert_eq!(
        report["left_out"].as_array().map(Vec::len),
        Some(1),
        "what is left out is said"
    );

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
}
