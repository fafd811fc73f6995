//! Stock git and ssh-keygen read what we write.
#![allow(clippy::unwrap_used)]

mod support;

use support::*;

#[test]
fn a_clone_by_stock_git_is_clean_and_verifies() {
    let mut net = Net::new(4);
    for _ in 0..5 {
        net.round(3);
    }
    net.stores[1].flush().unwrap();
    let source = net.stores[1].path().to_owned();
    for (n, url) in [
        source.display().to_string(),
        format!("file://{}", source.display()),
    ]
    .iter()
    .enumerate()
    {
        let clone = net.dir.path().join(format!("clone{n}"));
        git(
            net.dir.path(),
            &["clone", "-q", url, clone.to_str().unwrap()],
        )
        .unwrap();
        let fsck = git(&clone, &["fsck", "--strict", "--full"]).unwrap();
        assert!(
            !fsck.contains("warning") && !fsck.contains("error"),
            "{fsck}"
        );

        let signers = net.dir.path().join("signers");
        std::fs::write(&signers, net.stores[0].allowed_signers(&net.signers())).unwrap();
        let config = format!("gpg.ssh.allowedSignersFile={}", signers.display());
        let log = git(&clone, &["log", "--format=%H %ae", "origin/tip"]).unwrap();
        let mut verified = 0;
        for line in log.lines() {
            let (id, email) = line.split_once(' ').unwrap();
            if email.ends_with("@lane.instar") {
                let said = git(&clone, &["-c", &config, "verify-commit", id]).unwrap();
                assert!(said.contains("Good \"git\" signature for v"), "{said}");
                verified += 1;
            }
        }
        assert_eq!(verified, 20);
        let graph = git(&clone, &["log", "--graph", "--oneline", "origin/tip"]).unwrap();
        println!("{graph}");
        assert!(graph.contains("tip 5: 3 signatures"), "{graph}");
        assert!(graph.contains("block 5: 12 entries, 4 lanes"), "{graph}");
        assert!(graph.contains("genesis test"), "{graph}");
        assert!(graph.contains("/1 #5: 3 entries"), "{graph}");
        let shown = git(&clone, &["show", "origin/trunk:header.json"]).unwrap();
        assert!(shown.contains("\"height\":5"), "{shown}");
    }
    // Lanes are there for who asks, with what is not merged yet.
    let unmerged = net.append(1, 1);
    net.stores[1].flush().unwrap();
    let clone = net.dir.path().join("clone0");
    git(
        &clone,
        &["fetch", "-q", "origin", "refs/lanes/*:refs/lanes/*"],
    )
    .unwrap();
    let lane = git(&clone, &["rev-parse", &unmerged.lane.ref_name()]).unwrap();
    assert_eq!(lane.trim(), unmerged.id.to_hex());
    let fsck = git(&source, &["fsck", "--strict", "--full"]).unwrap();
    assert!(
        !fsck.contains("warning") && !fsck.contains("error"),
        "{fsck}"
    );
}

#[test]
fn an_auditors_clone_is_read_back() {
    let mut net = Net::new(4);
    let blocks: Vec<_> = (0..3).map(|_| net.round(2)).collect();
    net.stores[2].flush().unwrap();
    let clone = net.dir.path().join("clone");
    let source = net.stores[2].path().display().to_string();
    git(
        net.dir.path(),
        &["clone", "-q", &source, clone.to_str().unwrap()],
    )
    .unwrap();
    let mut reader = instar_ledger::Store::open_clone(&clone).unwrap();
    assert_eq!(reader.chain(), &net.chain);
    assert_eq!(reader.head(), (3, blocks[2]));
    let set = reader.genesis().validator_set().unwrap();
    for (i, id) in blocks.iter().enumerate() {
        let height = i as u64 + 1;
        assert_eq!(reader.block_at(height), Some(*id));
        let certificate = reader.certificate_at(height).unwrap().unwrap();
        assert_eq!(certificate.block, *id);
        certificate.verify(&net.chain, &set).unwrap();
        for range in reader.read_block(id).unwrap().header.lanes {
            for commit in reader.lane_range(&range.head, range.from - 1).unwrap() {
                assert_eq!(reader.lane_commit(&commit).unwrap().entries.len(), 2);
            }
        }
    }
    assert!(reader.flush().is_err());
}
