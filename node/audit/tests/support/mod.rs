//! A small chain that upgrades its coin, made by the real rules over the real store; only consensus and the dapp are
//! played: three of four keys sign whatever block is made, the dapp takes every transfer but those to nobody.

// Each test program uses another part of this module.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

pub mod forge;
mod forked;
mod governed;
mod releases;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use instar_attest::bundle::Bundle;
use instar_attest::release::{Nonce, Source, Target, commitment, target_digest};
use instar_attest::statement::{Build, Statement};
use instar_attest::{ChainId, Digest, SecretKey};
use instar_audit::Supplier;
use instar_chain::ops::{
    Ballot, BuildOp, Commit, Health, Open, Propose, Ready, Report, Reveal, TargetCommitment,
    TargetReveal, UpgradeOp, Vote,
};
use instar_chain::{
    BlockInput, DappCall, DappFailure, DappHost, DappResult, MemoryState, Verdict, apply_block,
    genesis_writes, query,
};
use instar_ledger::store::{OpenOptions, Store};
use instar_ledger::vote::{self, VoteKind};
use instar_ledger::{
    BlockDraft, Certificate, CommitSignature, DeviceId, Entry, Header, Lane, LaneRange, Oid,
    ReceiptLine, Slice, receipt,
};
use instar_state::Fork;
use serde_json::{Value, json};

pub use releases::{COIN, COMMIT, NODE, Program, contents, files, sbom, source};
use releases::{genesis, release, summary};

pub const TIME_MS: u64 = 1_700_000_000_000;
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
const RECIPE: &str = "cargo-vendored-v1";

/// A key with a fixed seed: one for each purpose and number.
pub fn key(purpose: &str, number: usize) -> SecretKey {
    let seed = Digest::of(format!("instar audit test key {purpose} {number}").as_bytes());
    SecretKey::from_seed(seed.as_bytes())
}

/// Takes every transfer but those to nobody.
#[derive(Default)]
pub struct Coin {
    /// Whether it notes each transfer in its state.
    pub writes: bool,
    /// What it notes beside them; a machine that computes otherwise.
    pub lie: Option<&'static str>,
}

impl DappHost for Coin {
    fn run(&mut self, call: DappCall<'_>) -> Result<DappResult, DappFailure> {
        let verdict = |to: &Value| match to.as_str() {
            Some("nobody") => Verdict {
                detail: Some("nobody has no account".into()),
                ok: false,
                output: None,
                rule: Some("no-such-account".into()),
            },
            _ => Verdict {
                ok: true,
                output: Some(json!({"fee": "1"})),
                ..Verdict::default()
            },
        };
        Ok(DappResult {
            verdicts: call
                .entries
                .iter()
                .map(|e| verdict(&e.body["to"]))
                .collect(),
            writes: match self.writes {
                false => BTreeMap::new(),
                true => call
                    .entries
                    .iter()
                    .map(|e| (format!("seen/{}", e.id), Some(b"1".to_vec())))
                    .chain(self.lie.map(|key| (key.to_owned(), Some(b"1".to_vec()))))
                    .collect(),
            },
        })
    }
}

pub struct Chain {
    pub dir: tempfile::TempDir,
    pub store: Store,
    pub chain: ChainId,
    pub state: MemoryState,
    tree: Fork,
    pub coin: Coin,
    nonces: BTreeMap<usize, u64>,
    /// Whose account key was replaced, and by which.
    accounts: BTreeMap<usize, usize>,
    pub root: String,
    /// What a lying proposer puts into the receipts of the next block, and everybody signs.
    pub falsify: Option<fn(&mut Vec<ReceiptLine>)>,
    /// How many of the four sign the blocks.
    pub signers: usize,
    /// Whose key signs the first validator's lane.
    pub lane_key: usize,
    /// The time of its genesis.
    pub time_ms: u64,
    /// What the next block merges of a fork.
    pub merging: Option<Slice>,
}

impl Chain {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            lane_mark: Some(dir.path().join("lane.mark")),
            mother: None,
        };
        let genesis = genesis();
        let path = dir.path().join("ledger.git");
        let (mut store, chain) = Store::create_with(&path, &genesis, &options).unwrap();
        let mut state = MemoryState::default();
        let writes = genesis_writes(&genesis, &chain).unwrap();
        state.apply(&writes);
        let mut tree = Fork::empty();
        tree.apply(&writes).unwrap();
        store.begin_incarnation(&lane()).unwrap();
        Self {
            dir,
            store,
            chain,
            state,
            tree,
            coin: Coin::default(),
            nonces: BTreeMap::new(),
            accounts: BTreeMap::new(),
            root: String::new(),
            falsify: None,
            signers: 3,
            lane_key: 0,
            time_ms: TIME_MS,
            merging: None,
        }
    }

    pub fn entry(&mut self, author: usize, topic: &str, body: Value) -> Entry {
        let number = self.accounts.get(&author).copied().unwrap_or(author);
        let nonce = self.nonces.entry(number).or_default();
        *nonce += 1;
        let key = key("account", number);
        Entry::sign(&self.chain, &key, *nonce - 1, topic, body).unwrap()
    }

    /// The next block merges what is due of a fork, which a repository has.
    pub fn merge(&mut self, fork: &Self, entries: &[Entry]) {
        let due = query::forks_due(&self.state).unwrap()[0];
        self.merging = Some(self.store.take_slice(fork.store.path(), &due).unwrap());
        self.block(entries);
    }

    fn build(&mut self, author: usize, op: &BuildOp) -> Entry {
        self.entry(author, "build", op.to_value())
    }

    fn upgrade(&mut self, author: usize, op: &UpgradeOp) -> Entry {
        self.entry(author, "upgrade", op.to_value())
    }

    /// Makes the next block of these entries, all carried by the first validator's lane.
    pub fn block(&mut self, entries: &[Entry]) -> u64 {
        let (head, parent) = self.store.head();
        let height = head + 1;
        let lanes = match entries {
            [] => vec![],
            entries => vec![
                self.store
                    .append_lane(
                        &key("lane", self.lane_key),
                        &lane(),
                        entries,
                        self.time_ms / 1000 + height,
                    )
                    .unwrap(),
            ],
        };
        let previous = self.store.tip_certificate().cloned();
        let slice = self.merging.take();
        let input = BlockInput {
            chain: self.chain,
            height,
            time_ms: self.time_ms + height * 1000,
            parent,
            proposer: key("consensus", 0).public(),
            previous: previous.as_ref(),
            lanes: &lanes,
            fork: slice.as_ref(),
            left_out: &[],
        };
        let output = apply_block(&self.state, &input, &mut self.coin).unwrap();
        self.state.apply(&output.writes);
        let state_root = self.tree.apply(&output.writes).unwrap();
        let mut receipts = output.receipts;
        if let Some(falsify) = self.falsify.take() {
            falsify(&mut receipts);
        }
        let header = Header {
            chain: self.chain,
            dapps: output.dapps,
            forks: slice.iter().map(|s| s.range).collect(),
            height,
            kernel: 1,
            lanes: lanes
                .iter()
                .map(|c| LaneRange {
                    device: c.lane.device,
                    from: c.seq,
                    head: c.id,
                    incarnation: c.lane.incarnation,
                    to: c.seq,
                })
                .collect(),
            left_out: vec![],
            parent,
            proposer: key("consensus", 0).public(),
            protocol: output.protocol,
            receipts: receipt::digest(&receipts).unwrap(),
            state_root,
            time_ms: self.time_ms + height * 1000,
            validators: output.validators.digest(),
        };
        let draft = BlockDraft {
            header,
            receipts,
            previous,
        };
        let id = self.store.write_block(&draft).unwrap();
        let certificate = certificate(&self.chain, height, id, self.signers);
        self.store.finalize(&id, &certificate).unwrap();
        height
    }

    /// The whole way of version 2, with transfers between. Gives the height of its activation.
    pub fn upgrade_the_coin(&mut self) -> u64 {
        self.bring_live(COIN)
    }

    /// The whole way of version 2 of a program, with transfers between.
    pub fn bring_live(&mut self, program: Program) -> u64 {
        self.root = release(self.chain, program, 2).1;
        let transfer = self.entry(0, "coin", json!({"amount": "5", "to": "bob"}));
        let refused = self.entry(1, "coin", json!({"amount": "5", "to": "nobody"}));
        self.block(&[transfer, refused]);
        let target: Target = TARGET.parse().unwrap();
        let open = self.build(
            9,
            &BuildOp::Open(Open {
                activation: program.activation,
                name: program.name.parse().unwrap(),
                number: 2,
                protocol: 1,
                slot: program.slot.parse().unwrap(),
                source: source(),
                targets: vec![target.clone()],
            }),
        );
        let round = open.id();
        self.block(&[open]);
        let digest = target_digest(&files(2));
        let commits: Vec<Entry> = (0..4)
            .map(|i| {
                let builder = key("builder", i).public();
                let opens = commitment(&builder, &self.chain, &digest, &nonce(i), &round, &target);
                let commitments = vec![TargetCommitment {
                    digest: opens,
                    target: target.clone(),
                }];
                self.build(i, &BuildOp::Commit(Commit { commitments, round }))
            })
            .collect();
        self.block(&commits);
        // The last of them in a block of its own.
        let reveals: Vec<Entry> = (0..4)
            .map(|i| {
                let op = Reveal {
                    bundle: self.bundle(i, program, &round),
                    reveals: vec![TargetReveal {
                        files: files(2),
                        nonce: nonce(i),
                        target: target.clone(),
                    }],
                    round,
                    sbom: sbom(),
                };
                self.build(i, &BuildOp::Reveal(op))
            })
            .collect();
        self.block(&reveals[..3]);
        self.block(&reveals[3..]);
        let propose = self.upgrade(
            9,
            &UpgradeOp::Propose(Propose {
                release: self.root.parse().unwrap(),
                round,
            }),
        );
        let proposal = propose.id();
        self.block(&[propose]);
        let votes: Vec<Entry> = (0..3)
            .map(|i| {
                let op = Vote {
                    proposal,
                    reason: None,
                    rebuilt: Some(digest),
                    vote: Ballot::Yes,
                };
                self.upgrade(i, &UpgradeOp::Vote(op))
            })
            .collect();
        let accepted = self.block(&votes);
        self.block(&[]);
        let ready: Vec<Entry> = (0..4)
            .map(|i| {
                let op = Ready {
                    height: accepted,
                    proposal,
                    reason: None,
                    root: Some(Digest::of(b"the same everywhere")),
                };
                self.upgrade(i, &UpgradeOp::Ready(op))
            })
            .collect();
        self.block(&ready);
        let found = query::proposal(&self.state, &proposal).unwrap().unwrap();
        let activation = found.activation_height.unwrap();
        while self.store.head().0 < activation {
            let transfer = self.entry(0, "coin", json!({"amount": "5", "to": "bob"}));
            self.block(&[transfer]);
        }
        if program.slot == "node" {
            self.roll_out(&proposal);
        }
        activation
    }

    /// Each validator reports its health when its wave has come, until the last wave is over.
    fn roll_out(&mut self, proposal: &Digest) {
        for i in 0..4 {
            let op = Report {
                proposal: *proposal,
                reason: None,
                result: Health::Healthy,
                running: Some(self.root.parse().unwrap()),
            };
            let wave = |state: &MemoryState| {
                let found = query::proposal(state, proposal).unwrap().unwrap();
                found.rollout.map(|r| r.waves[r.index].clone())
            };
            let members = wave(&self.state).expect("the rollout goes on");
            let member = (0..4).find(|i| members.contains(&format!("v{i}"))).unwrap();
            let report = self.upgrade(member, &UpgradeOp::Report(op));
            self.block(&[report]);
            let in_wave = |c: &Self| {
                let found = query::proposal(&c.state, proposal).unwrap().unwrap();
                let rollout = found.rollout.expect("it has begun");
                found.completed_at.is_none() && rollout.index == i
            };
            while in_wave(self) {
                self.block(&[]);
            }
        }
    }

    fn bundle(&self, i: usize, program: Program, round: &Digest) -> String {
        let builder = key("builder", i);
        let build = Build {
            builder: builder.public(),
            cargo_lock: Digest::of(b"Cargo.lock"),
            chain: self.chain,
            name: program.name.parse().unwrap(),
            number: 2,
            recipe: RECIPE.parse().unwrap(),
            round: *round,
            slot: program.slot.parse().unwrap(),
            source: source(),
            targets: vec![TARGET.parse().unwrap()],
            toolchain: Digest::of(format!("toolchain {i}").as_bytes()),
            vendor: Digest::of(b"vendor"),
        };
        let statement = Statement::new(build, &files(2), &sbom()).unwrap();
        let bundle = Bundle::sign(&builder, &statement).unwrap();
        String::from_utf8(bundle.to_bytes().unwrap()).unwrap()
    }

    /// A clone as stock git makes it.
    pub fn clone(&mut self) -> PathBuf {
        self.store.flush().unwrap();
        let to = self.dir.path().join("clone");
        let from = self.dir.path().join("ledger.git");
        git(&[
            "clone",
            "--quiet",
            from.to_str().unwrap(),
            to.to_str().unwrap(),
        ]);
        to
    }
}

pub fn git(args: &[&str]) {
    let output = Command::new("git")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent")
        .args(args)
        .output()
        .expect("git is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {said}");
}

fn nonce(i: usize) -> Nonce {
    Nonce::from_bytes([i as u8 + 1; 32])
}

fn lane() -> Lane {
    Lane {
        device: DeviceId::of(&key("lane", 0).public()),
        incarnation: 1,
    }
}

/// Signed by the first `signers` of four validators.
pub fn certificate(chain: &ChainId, height: u64, block: Oid, signers: usize) -> Certificate {
    let bytes = vote::signed_bytes(chain, VoteKind::Precommit, height, 0, Some(&block));
    let mut signatures: Vec<CommitSignature> = (0..signers)
        .map(|i| key("consensus", i))
        .map(|key| CommitSignature {
            sig: key.sign(&bytes),
            validator: key.public(),
        })
        .collect();
    signatures.sort_by_key(|s| s.validator);
    Certificate {
        block,
        height,
        round: 0,
        signatures,
    }
}

/// Has every file, and the commit.
pub struct Everything;

impl Supplier for Everything {
    fn file(&mut self, cid: &str) -> io::Result<Box<dyn Read + '_>> {
        contents()
            .into_iter()
            .find(|c| summary(c).cid.to_string() == cid)
            .map(|c| Box::new(io::Cursor::new(c)) as Box<dyn Read>)
            .ok_or_else(|| io::Error::other("no such file"))
    }

    fn source_commit(&mut self, source: &Source) -> io::Result<Option<Vec<u8>>> {
        assert_eq!(*source, self::source());
        Ok(Some(COMMIT.into()))
    }
}

/// All files below `dir`, with their paths.
pub fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            out.extend(walk(&path));
        } else {
            out.push(path);
        }
    }
    out.sort();
    out
}
