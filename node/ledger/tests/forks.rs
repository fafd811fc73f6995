//! A fork's repository: the mother's objects where they are, one history, and nothing that counts on both chains.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::Duration;

use instar_attest::ChainId;
use instar_ledger::grammar::{self, GrammarError, Kind};
use instar_ledger::light::Light;
use instar_ledger::store::{OpenOptions, TIP_KEPT, maintain_with};
use instar_ledger::*;
use support::*;

/// The genesis of a fork of the first node's chain at a height.
fn fork_of(store: &Store, height: u64) -> Genesis {
    let mut genesis = genesis("fork");
    genesis.time_ms = TIME_MS + 1_000_000;
    genesis.validators.truncate(1);
    genesis.fork = Some(GenesisFork {
        dapps: vec!["coin".into()],
        header: store.signed_header(height).unwrap().unwrap(),
    });
    genesis
}

fn shared(dir: &Path, mother: &Store) -> OpenOptions {
    OpenOptions {
        lane_mark: Some(dir.join("fork.mark")),
        mother: Some(mother.path().into()),
    }
}

/// Three blocks of a mother, a fork at the second, and a block of the fork.
fn story() -> (Net, Store, ChainId) {
    let mut net = Net::new(4);
    for _ in 0..3 {
        net.round(2);
    }
    net.stores[0].flush().unwrap();
    let genesis = fork_of(&net.stores[0], 2);
    let path = net.dir.path().join("fork.git");
    let options = shared(net.dir.path(), &net.stores[0]);
    let (mut fork, chain) = Store::create_with(&path, &genesis, &options).unwrap();
    fork.begin_incarnation(&lane_of(0)).unwrap();
    let entry = transfer(&chain, 0, 1);
    let commit = fork
        .append_lane(&key("lane", 0), &lane_of(0), &[entry], TIME_MS / 1000)
        .unwrap();
    let mut draft = draft(&fork, &[vec![commit]]);
    draft.header.time_ms = genesis.time_ms + 1;
    let block = fork.write_block(&draft).unwrap();
    fork.finalize(&block, &certificate(&chain, 1, 0, block))
        .unwrap();
    fork.flush().unwrap();
    (net, fork, chain)
}

#[test]
fn one_history_without_a_copy() {
    let (net, fork, chain) = story();
    let mother = &net.stores[0];
    assert_ne!(chain, net.chain);
    assert_eq!((fork.head().0, fork.block_at(0)), (1, Some(chain.into())));
    // Three objects of genesis, three of the lane commit, four of the block and its tip's three: nothing of the mother's.
    let own = git(fork.path(), &["count-objects", "-v"]).unwrap();
    let count = |name: &str| -> u64 {
        let line = own.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    assert_eq!(count("count:") + count("in-pack:"), 13, "{own}");
    assert!(own.contains("alternate: "), "{own}");

    let clone = net.dir.path().join("clone");
    let from = format!("file://{}", fork.path().display());
    git(
        net.dir.path(),
        &["clone", "-q", &from, clone.to_str().unwrap()],
    )
    .unwrap();
    let fsck = git(&clone, &["fsck", "--strict", "--full", "--no-progress"]).unwrap();
    assert_eq!(fsck, "");
    let log = git(
        &clone,
        &["log", "--first-parent", "--format=%H %s", "origin/tip"],
    )
    .unwrap();
    let subjects: Vec<&str> = log.lines().map(|l| l.split_once(' ').unwrap().1).collect();
    assert_eq!(
        subjects,
        [
            "tip 1: 3 signatures",
            "block 1: 1 entries, 1 lanes",
            "genesis fork",
            "block 2: 8 entries, 4 lanes",
            "block 1: 8 entries, 4 lanes",
            "genesis test",
        ]
    );
    let shown = git(&clone, &["show", "-s", "--format=%B", &chain.to_hex()]).unwrap();
    let mother_at = format!("Mother: {}\nMother-Height: 2\n", net.chain);
    assert!(shown.contains(&mother_at), "{shown}");

    // The clone is a chain of its own, from its genesis on.
    let read = Store::open_clone(&clone).unwrap();
    assert_eq!((*read.chain(), read.head().0), (chain, 1));
    assert_eq!(
        read.genesis().fork.as_ref().unwrap().block(),
        mother.block_at(2).unwrap()
    );
}

#[test]
fn a_fork_is_opened_again_and_finds_its_heights() {
    let (net, fork, chain) = story();
    let (path, head) = (fork.path().to_owned(), fork.head());
    drop(fork);
    std::fs::remove_file(path.join("instar/heights")).unwrap();
    let options = shared(net.dir.path(), &net.stores[0]);
    let again = Store::open_with(&path, &options).unwrap();
    assert_eq!((*again.chain(), again.head()), (chain, head));
}

#[test]
fn a_fork_and_its_mother_in_one_repository() {
    let (net, fork, chain) = story();
    let both = net.dir.path().join("both.git");
    let init = ["init", "-q", "--bare", "--object-format=sha256", "both.git"];
    git(net.dir.path(), &init).unwrap();
    for (name, store) in [("mother", &net.stores[0]), ("fork", &fork)] {
        let refs = format!("+refs/heads/*:refs/heads/{name}/*");
        git(
            &both,
            &["fetch", "-q", store.path().to_str().unwrap(), &refs],
        )
        .unwrap();
    }
    git(&both, &["symbolic-ref", "HEAD", "refs/heads/fork/trunk"]).unwrap();
    assert_eq!(
        git(&both, &["fsck", "--strict", "--no-progress"]).unwrap(),
        ""
    );
    let base = git(&both, &["merge-base", "mother/trunk", "fork/trunk"]).unwrap();
    assert_eq!(base.trim(), net.stores[0].block_at(2).unwrap().to_hex());
    assert_ne!(chain, net.chain);
}

/// The mother's node packs her objects anew all the time; a fork that reads them in place must not notice.
#[test]
fn the_mothers_maintenance_takes_nothing_from_the_fork() {
    let (mut net, fork, _) = story();
    net.round(1);
    net.stores[0].flush().unwrap();
    let mother = net.stores[0].path();
    let rolled = maintain_with(mother, 1, Duration::ZERO, TIP_KEPT).unwrap();
    let removed = maintain_with(mother, 1, Duration::ZERO, TIP_KEPT).unwrap();
    assert!(
        rolled.rolled_up >= 2 && removed.removed >= 2,
        "{rolled:?} {removed:?}"
    );
    assert_eq!(Store::open_clone(fork.path()).unwrap().head(), fork.head());
    let from = format!("file://{}", fork.path().display());
    git(net.dir.path(), &["clone", "-q", &from, "after"]).unwrap();
    let clone = net.dir.path().join("after");
    assert_eq!(
        git(&clone, &["fsck", "--strict", "--no-progress"]).unwrap(),
        ""
    );
}

/// As the guide has it, for those who want to remove the mother's ledger.
#[test]
fn a_fork_is_made_to_stand_alone() {
    let (net, fork, chain) = story();
    let (path, head) = (fork.path().to_owned(), fork.head());
    let options = shared(net.dir.path(), &net.stores[0]);
    drop(fork);
    git(&path, &["repack", "-a", "-d", "-q"]).unwrap();
    std::fs::remove_file(path.join("objects/info/alternates")).unwrap();
    std::fs::remove_dir_all(repo_path(net.dir.path(), 0)).unwrap();
    let again = Store::open_with(&path, &options).unwrap();
    assert_eq!((*again.chain(), again.head()), (chain, head));
    let block = again.genesis().fork.as_ref().unwrap().block();
    let log = git(&path, &["log", "--format=%s", &block.to_hex()]).unwrap();
    assert!(log.contains("genesis test"), "{log}");
    let fsck = git(&path, &["fsck", "--strict", "--full", "--no-progress"]).unwrap();
    assert_eq!(fsck, "");
}

/// A ledger that begins in the middle of the mother has the block, and not what it stands on.
#[test]
fn a_mother_whose_history_is_cut_off() {
    let (net, _, _) = story();
    let genesis = fork_of(&net.stores[0], 2);
    let from = format!("file://{}", net.stores[0].path().display());
    let clone = ["clone", "-q", "--bare", "--depth=3", &from, "shallow.git"];
    git(net.dir.path(), &clone).unwrap();
    let options = OpenOptions {
        lane_mark: None,
        mother: Some(net.dir.path().join("shallow.git")),
    };
    let path = net.dir.path().join("lonely.git");
    let refused = Store::create_with(&path, &genesis, &options).map(drop);
    assert!(
        matches!(refused, Err(StoreError::NoMother { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_fork_without_its_mothers_history() {
    let (net, _, _) = story();
    let genesis = fork_of(&net.stores[0], 2);
    let path = net.dir.path().join("lonely.git");
    let stranger = net.dir.path().join("stranger.git");
    Store::create(&stranger, &support::genesis("stranger")).unwrap();
    for mother in [None, Some(stranger), Some(net.dir.path().join("nowhere"))] {
        let options = OpenOptions {
            lane_mark: None,
            mother,
        };
        let refused = Store::create_with(&path, &genesis, &options).map(drop);
        assert!(
            matches!(refused, Err(StoreError::NoMother { .. })),
            "{refused:?}"
        );
        assert!(!path.exists(), "nothing is left behind");
    }
}

#[test]
fn a_genesis_that_contradicts_the_block_it_stands_on() {
    let (net, fork, _) = story();
    let good = fork.genesis().clone();
    let change = |change: &dyn Fn(&mut GenesisFork)| {
        let mut genesis = good.clone();
        change(genesis.fork.as_mut().unwrap());
        genesis
    };
    let other = net.stores[0].signed_header(3).unwrap().unwrap();
    let cases = [
        change(&|f| f.header.certificate.block = other.certificate.block),
        change(&|f| f.header.certificate.height = 3),
        change(&|f| f.header.header.height = 3),
        change(&|f| f.header.header.state_root = instar_attest::Digest::of(b"mine")),
        change(&|f| f.header.header.chain = ChainId::from_bytes([3; 32])),
        change(&|f| f.header.entries += 1),
        change(&|f| f.dapps = vec!["coin".into(), "coin".into()]),
        change(&|f| f.dapps = vec!["door".into(), "coin".into()]),
        {
            let mut early = good.clone();
            early.time_ms = good.fork.as_ref().unwrap().header.header.time_ms;
            early
        },
    ];
    for genesis in cases {
        let refused = genesis.chain_id();
        assert!(
            matches!(refused, Err(GrammarError::Contradiction(_))),
            "{refused:?} {:?}",
            genesis.fork
        );
    }
    assert_eq!(good.chain_id().unwrap(), *fork.chain());
}

#[test]
fn a_genesis_commit_on_another_parent() {
    let (net, fork, chain) = story();
    let read = |id: &Oid, kind: Kind| -> Result<Vec<u8>, GrammarError> {
        let word = ["cat-file", kind.as_str(), &id.to_hex()].map(str::to_owned);
        let output = std::process::Command::new("git")
            .arg("-C")
            .arg(fork.path())
            .args(word)
            .output()
            .unwrap();
        Ok(output.stdout)
    };
    grammar::read_genesis(&chain.into(), read).unwrap();
    let honest = read(&chain.into(), Kind::Commit).unwrap();
    assert!(grammar::is_genesis(&honest));
    let text = String::from_utf8(honest).unwrap();
    let of = |height| net.stores[0].block_at(height).unwrap().to_hex();
    for (from, to) in [
        (of(2), of(1)),
        (format!("parent {}\n", of(2)), String::new()),
        ("Mother-Height: 2".into(), "Mother-Height: 1".into()),
    ] {
        let moved = text.replacen(&from, &to, 1).into_bytes();
        assert_ne!(moved, text.as_bytes());
        let id = Oid::of_object("commit", &moved);
        let refused = grammar::read_genesis(&id, |wanted, kind| match *wanted == id {
            true => Ok(moved.clone()),
            false => read(wanted, kind),
        });
        assert!(
            matches!(refused, Err(GrammarError::Bytes { .. })),
            "{refused:?}"
        );
    }
}

/// Replay across a fork: whatever was signed for one of the two chains is refused on the other.
#[test]
fn what_was_signed_for_the_mother_is_refused_on_the_fork_and_the_other_way_round() {
    let (mut net, mut fork, chain) = story();
    // What the fork has already, by the mother's history, is not news; so something that waits for its pack yet.
    net.round(2);
    let mother = &mut net.stores[0];
    let entry = transfer(mother.chain(), 0, 50);
    assert!(matches!(
        Entry::parse(entry.to_line().as_bytes(), &chain),
        Err(EntryError::OtherChain { .. })
    ));
    let lane = mother.pack_lane(&lane_of(0), 0).unwrap();
    let other = fork.import_pack(&lane, 4 << 20);
    assert!(
        matches!(
            &other,
            Err(StoreError::Grammar {
                source: GrammarError::OtherChain { .. },
                ..
            })
        ),
        "{other:?}"
    );
    let fourth = mother.pack_block(&mother.block_at(4).unwrap()).unwrap();
    assert!(fork.import_pack(&fourth, 4 << 20).is_err());
    let first = fork.pack_block(&fork.block_at(1).unwrap()).unwrap();
    assert!(mother.import_pack(&first, 4 << 20).is_err());
    // Not even a certificate by keys that both have.
    let certificate = mother.certificate_at(1).unwrap().unwrap();
    assert!(certificate.verify_signatures(mother.chain()).is_ok());
    assert!(certificate.verify_signatures(&chain).is_err());
}

#[test]
fn light_checkers_of_both_chains_know_where_they_part() {
    let (net, fork, chain) = story();
    let genesis = fork.genesis();
    let light = Light::from_genesis(&chain, genesis).unwrap();
    assert_eq!(light.validators().len(), 1);
    assert!(Light::from_genesis(&net.chain, genesis).is_err());
    // Whoever follows the mother sees by the fork's genesis alone that she had certified the block.
    let of_mother = Light::from_genesis(&net.chain, net.stores[0].genesis()).unwrap();
    let at = &genesis.fork.as_ref().unwrap().header;
    assert_eq!(
        of_mother.verify(at).unwrap(),
        net.stores[0].block_at(2).unwrap()
    );
    let mut few = at.clone();
    few.certificate.signatures.truncate(2);
    assert!(of_mother.verify(&few).is_err());
}
