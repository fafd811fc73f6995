//! A release audited from a clone and a bundle, and what happens when anything in them is changed.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use instar_audit::{FromBlocks, Verified, export, run, run_verified, verify_chain};
use instar_chunks::Blocks as _;
use support::{COMMIT, Chain, Everything, NODE, contents, walk};

/// A chain with its upgrade, cloned, and its bundle.
fn audited() -> (Chain, PathBuf, PathBuf, u64) {
    let mut chain = Chain::new();
    let activation = chain.upgrade_the_coin();
    let clone = chain.clone();
    let bundle = chain.dir.path().join("bundle");
    export(&clone, &chain.root, &mut Everything, &bundle).unwrap();
    (chain, clone, bundle, activation)
}

#[test]
fn from_the_source_commit_to_the_activation_height() {
    let (chain, clone, bundle, activation) = audited();
    let report = run(&clone, &bundle, &chain.root);
    assert!(report.ok, "{:#?}", report.refused_by());
    assert_eq!(report.activated_at, Some(activation));
    assert_eq!(report.admitted.as_deref(), Some("voted"));
    assert_eq!(report.chain, Some(chain.chain));
    assert_eq!(report.blocks, chain.store.head().0);
    assert!(report.lane_commits > 5);
    let names: Vec<&str> = report.steps.iter().map(|s| s.name.as_str()).collect();
    let way = [
        "source-commit",
        "build-open",
        "commitments",
        "reveals",
        "attestations",
        "builders",
        "release-root",
        "proposal",
        "votes",
        "readiness",
        "activation",
    ];
    let places: Vec<Option<usize>> = way
        .iter()
        .map(|w| names.iter().position(|n| n == w))
        .collect();
    assert!(places.is_sorted() && !places.contains(&None), "{names:?}");
}

#[test]
fn who_counts_is_who_counted_then() {
    let mut chain = Chain::new();
    chain.replace_an_account();
    chain.upgrade_the_coin();
    let clone = chain.clone();
    let bundle = chain.dir.path().join("bundle");
    export(&clone, &chain.root, &mut Everything, &bundle).unwrap();
    // All four attestations, the one that was revealed by a key that genesis doesn't know too.
    assert_eq!(
        fs::read_dir(bundle.join("attestations")).unwrap().count(),
        4
    );
    let report = run(&clone, &bundle, &chain.root);
    assert!(report.ok, "{:#?}", report.refused_by());
    let votes = report.steps.iter().find(|s| s.name == "votes").unwrap();
    assert!(
        votes.detail.contains("yes by v0, v1, v2"),
        "{}",
        votes.detail
    );
}

fn verified(clone: &Path) -> Verified {
    verify_chain(clone).1.unwrap()
}

#[test]
fn every_member_of_the_bundle_changed_by_one_byte() {
    let (chain, clone, bundle, _) = audited();
    let verified = verified(&clone);
    let members = walk(&bundle);
    assert_eq!(members.len(), 12, "{members:?}");
    for member in members {
        let name = member.strip_prefix(&bundle).unwrap().to_str().unwrap();
        let step = match name {
            "audit.json" | "genesis.json" | "allowed_signers" => "bundle",
            "release.json" => "release-json",
            "sbom.cdx.json" => "sbom",
            "source-commit" => "source-commit",
            attestation if attestation.starts_with("attestations/") => "attestation-members",
            _ => "files",
        };
        let good = fs::read(&member).unwrap();
        // The first byte, the last, and some between.
        for at in [0, good.len() / 3, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&member, &bad).unwrap();
            let report = run_verified(&verified, &bundle, &chain.root);
            let refused = report
                .refused_by()
                .unwrap_or_else(|| panic!("{name} at {at} is taken"));
            assert!(!report.ok);
            assert_eq!(refused.name, step, "{name} at {at}: {}", refused.detail);
            assert!(!refused.detail.is_empty());
        }
        fs::write(&member, &good).unwrap();
    }
    assert!(run_verified(&verified, &bundle, &chain.root).ok);
}

#[test]
fn a_member_that_is_missing_or_too_many() {
    let (chain, clone, bundle, _) = audited();
    let verified = verified(&clone);
    let audit = || run_verified(&verified, &bundle, &chain.root);
    for member in walk(&bundle) {
        let good = fs::read(&member).unwrap();
        fs::remove_file(&member).unwrap();
        assert!(!audit().ok, "{member:?}");
        fs::write(&member, &good).unwrap();
    }
    let extra = bundle.join("files/README");
    fs::write(&extra, "trust me").unwrap();
    let report = audit();
    let refused = report.refused_by().unwrap();
    assert_eq!(refused.name, "members");
    assert!(
        refused.detail.contains("files/README"),
        "{}",
        refused.detail
    );
    fs::remove_file(&extra).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &extra).unwrap();
    assert!(!audit().ok);
}

#[test]
fn a_node_release_that_was_rolled_out() {
    let mut chain = Chain::new();
    chain.signers = 4;
    let activation = chain.bring_live(NODE);
    let clone = chain.clone();
    let bundle = chain.dir.path().join("bundle");
    export(&clone, &chain.root, &mut Everything, &bundle).unwrap();
    let report = run(&clone, &bundle, &chain.root);
    assert!(report.ok, "{:#?}", report.refused_by());
    assert_eq!(report.activated_at, Some(activation));
    let rollout = report.steps.iter().find(|s| s.name == "rollout").unwrap();
    for name in ["v0", "v1", "v2", "v3"] {
        assert!(rollout.detail.contains(name), "{}", rollout.detail);
    }
}

#[test]
fn a_release_that_the_chain_started_with() {
    let (chain, clone, _, _) = audited();
    let genesis = chain.store.genesis();
    let cid = genesis.releases[0].release.clone();
    let bundle = chain.dir.path().join("bundle-1");
    export(&clone, &cid, &mut Everything, &bundle).unwrap();
    let report = run(&clone, &bundle, &cid);
    assert!(report.ok, "{:#?}", report.refused_by());
    assert_eq!(report.admitted.as_deref(), Some("genesis-admitted"));
    assert_eq!(report.activated_at, Some(0));
}

#[test]
fn a_bundle_out_of_blocks() {
    let mut chain = Chain::new();
    chain.upgrade_the_coin();
    let clone = chain.clone();
    let bundle = chain.dir.path().join("bundle");
    let blocks = instar_chunks::MemoryBlocks::default();
    let mut supplier = FromBlocks {
        blocks: &blocks,
        source_commit: Some(COMMIT.into()),
    };
    assert!(export(&clone, &chain.root, &mut supplier, &bundle).is_err());
    assert!(!bundle.exists(), "half a bundle");
    for content in contents() {
        let mut put = |cid: &instar_chunks::Cid, bytes: &[u8]| {
            blocks.put(cid, bytes).map_err(std::io::Error::other)
        };
        let profile = instar_chunks::Profile::InstarCdcV1;
        instar_chunks::add_file(profile, &mut content.as_slice(), &mut put).unwrap();
    }
    export(&clone, &chain.root, &mut supplier, &bundle).unwrap();
    let report = run(&clone, &bundle, &chain.root);
    assert!(report.ok, "{:#?}", report.refused_by());
}

#[test]
fn a_bundle_for_another_release() {
    let (chain, clone, bundle, _) = audited();
    let other = &chain.store.genesis().releases[0].release;
    let report = run(&clone, &bundle, other);
    assert_eq!(report.refused_by().unwrap().name, "bundle");
}

#[test]
fn receipts_that_the_rules_do_not_give() {
    let mut chain = Chain::new();
    chain.falsify = Some(|receipts| {
        if let Some(instar_ledger::ReceiptLine::Entry(r)) = receipts.last_mut() {
            r.outcome = instar_ledger::Outcome::Applied;
            r.rule = None;
            r.detail = None;
        }
    });
    // A native entry that its rule refuses, receipted as applied, and certified by three of four.
    let entry = chain.entry(0, "upgrade", serde_json::json!({"op": "nonsense"}));
    chain.block(&[entry]);
    let (report, verified) = verify_chain(&chain.clone());
    assert!(verified.is_none());
    let refused = report.refused_by().unwrap();
    assert_eq!(refused.name, "native-rules");
    assert!(
        refused.detail.contains("malformed-body"),
        "{}",
        refused.detail
    );
}

#[test]
fn a_chain_without_a_block() {
    let mut chain = Chain::new();
    let (report, verified) = verify_chain(&chain.clone());
    assert!(report.ok && verified.is_some(), "{report:?}");
    assert_eq!(report.blocks, 0);
}

#[test]
fn a_folder_that_is_no_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(dir.path(), dir.path(), "bafy");
    assert_eq!(report.refused_by().unwrap().name, "clone");
}

#[test]
fn a_certificate_of_two_of_four() {
    let mut chain = Chain::new();
    chain.signers = 2;
    chain.block(&[]);
    let (report, _) = verify_chain(&chain.clone());
    let refused = report.refused_by().unwrap();
    assert_eq!(refused.name, "certificates");
    assert!(refused.detail.contains("2 of 4"), "{}", refused.detail);
}

#[test]
fn a_lane_commit_by_another_devices_key() {
    let mut chain = Chain::new();
    chain.lane_key = 1;
    let entry = chain.entry(0, "coin", serde_json::json!({"to": "bob"}));
    chain.block(&[entry]);
    let (report, _) = verify_chain(&chain.clone());
    let refused = report.refused_by().unwrap();
    assert_eq!(refused.name, "lane-commits");
    assert!(
        refused.detail.contains("is signed by"),
        "{}",
        refused.detail
    );
}
