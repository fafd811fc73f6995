//! A small chain with fixed keys, so that every byte of it is the same each time.
#![allow(dead_code)] // Each test file uses another part.

pub mod forked;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use instar_attest::{ChainId, Digest, SecretKey};
use instar_ledger::lane::merge_key;
use instar_ledger::store::OpenOptions;
use instar_ledger::vote::{self, VoteKind};
use instar_ledger::*;
use serde_json::json;

pub const TIME_MS: u64 = 1_700_000_000_000;

/// A key with a fixed seed: one for each purpose and number.
pub fn key(purpose: &str, number: usize) -> SecretKey {
    let seed = Digest::of(format!("instar test key {purpose} {number}").as_bytes());
    SecretKey::from_seed(seed.as_bytes())
}

pub fn lane_of(number: usize) -> Lane {
    Lane {
        device: DeviceId::of(&key("lane", number).public()),
        incarnation: 1,
    }
}

pub fn genesis(name: &str) -> Genesis {
    let validators = (0..4)
        .map(|i| GenesisValidator {
            keys: Keys {
                account: key("account", i).public(),
                builder: key("builder", i).public(),
                consensus: key("consensus", i).public(),
                lane: key("lane", i).public(),
            },
            name: format!("v{i}"),
            operator: format!("operator-{i}"),
            power: 1,
        })
        .collect();
    Genesis {
        accounts: BTreeMap::from([("coin".to_owned(), json!({"alice": "100"}))]),
        chain_name: name.to_owned(),
        dapps: vec![GenesisDapp {
            manifest: json!({}),
            name: "coin".to_owned(),
        }],
        fork: None,
        kernel: 1,
        operators: vec![],
        policy: json!({}),
        protocol: 1,
        releases: vec![],
        time_ms: TIME_MS,
        validators,
    }
}

pub fn certificate(chain: &ChainId, height: u64, round: u32, block: Oid) -> Certificate {
    let bytes = vote::signed_bytes(chain, VoteKind::Precommit, height, round, Some(&block));
    let mut signatures: Vec<_> = (0..3)
        .map(|i| {
            let key = key("consensus", i);
            CommitSignature {
                sig: key.sign(&bytes),
                validator: key.public(),
            }
        })
        .collect();
    signatures.sort_by_key(|s| s.validator);
    Certificate {
        block,
        height,
        round,
        signatures,
    }
}

pub fn transfer(chain: &ChainId, author: usize, nonce: u64) -> Entry {
    let body = json!({"amount": "5", "op": "transfer", "to": "bob"});
    Entry::sign(chain, &key("account", author), nonce, "coin", body).unwrap()
}

/// The header and receipts of a block that merges `merged`, applying every entry.
pub fn draft(store: &Store, merged: &[Vec<LaneCommit>]) -> BlockDraft {
    let (height, parent) = store.head();
    let mut merged: Vec<_> = merged.iter().filter(|l| !l.is_empty()).collect();
    merged.sort_by_key(|commits| merge_key(&parent, &commits[0].lane));
    let lanes = merged
        .iter()
        .map(|commits| LaneRange {
            device: commits[0].lane.device,
            incarnation: commits[0].lane.incarnation,
            from: commits[0].seq,
            to: commits[commits.len() - 1].seq,
            head: commits[commits.len() - 1].id,
        })
        .collect();
    let mut receipts = Vec::new();
    for commit in merged.iter().flat_map(|c| c.iter()) {
        for (index, entry) in commit.entries.iter().enumerate() {
            receipts.push(ReceiptLine::Entry(Receipt {
                chain: None,
                detail: None,
                entry: entry.id(),
                index: index as u32,
                lane: commit.lane,
                outcome: Outcome::Applied,
                output: None,
                rule: None,
                seq: commit.seq,
            }));
        }
    }
    BlockDraft {
        header: Header {
            chain: *store.chain(),
            dapps: BTreeMap::from([("coin".to_owned(), Digest::of(b"coin"))]),
            forks: vec![],
            height: height + 1,
            kernel: 1,
            lanes,
            left_out: vec![],
            parent,
            proposer: key("consensus", 0).public(),
            protocol: 1,
            receipts: receipt::digest(&receipts).unwrap(),
            state_root: Digest::of(format!("state {}", height + 1).as_bytes()),
            time_ms: TIME_MS + (height + 1) * 1000,
            validators: store.genesis().validator_set().unwrap().digest(),
        },
        receipts,
        previous: store.tip_certificate().cloned(),
    }
}

/// Four nodes, each with its own store and lane, as they would be on four machines.
pub struct Net {
    pub dir: tempfile::TempDir,
    pub stores: Vec<Store>,
    pub chain: ChainId,
    nonces: Vec<u64>,
}

impl Net {
    pub fn new(nodes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let genesis = genesis("test");
        let chain = genesis.chain_id().unwrap();
        let stores = (0..nodes)
            .map(|i| {
                let mark = mark_path(dir.path(), i);
                drop(MarkFile::create(&mark, Mark::start(chain, lane_of(i))).unwrap());
                Store::create_with(&repo_path(dir.path(), i), &genesis, &options(dir.path(), i))
                    .unwrap()
                    .0
            })
            .collect();
        Self {
            dir,
            stores,
            chain,
            nonces: vec![0; nodes],
        }
    }

    /// Appends `entries` transfers to the lane of node `i`.
    pub fn append(&mut self, i: usize, entries: usize) -> LaneCommit {
        let batch: Vec<_> = (0..entries)
            .map(|_| {
                self.nonces[i] += 1;
                transfer(&self.chain, i, self.nonces[i])
            })
            .collect();
        let time_s = TIME_MS / 1000 + self.nonces[i];
        self.stores[i]
            .append_lane(&key("lane", i), &lane_of(i), &batch, time_s)
            .unwrap()
    }

    /// Every node appends, gossips its lane, and one block merges all; every node takes it and makes it final.
    pub fn round(&mut self, entries: usize) -> Oid {
        let nodes = self.stores.len();
        let mut merged = Vec::new();
        for i in 0..nodes {
            let commit = self.append(i, entries);
            let pack = self.stores[i]
                .pack_lane(&commit.lane, commit.seq - 1)
                .unwrap();
            for j in (0..nodes).filter(|j| *j != i) {
                let imported = self.stores[j].import_pack(&pack, 4 << 20).unwrap();
                assert_eq!(imported.lane_commits, std::slice::from_ref(&commit));
                self.stores[j].set_lane(&commit.lane, &commit.id).unwrap();
            }
            merged.push(vec![commit]);
        }
        let draft = draft(&self.stores[0], &merged);
        let block = self.stores[0].write_block(&draft).unwrap();
        let pack = self.stores[0].pack_block(&block).unwrap();
        let certificate = certificate(&self.chain, draft.header.height, 0, block);
        for store in &mut self.stores {
            store.import_pack(&pack, 4 << 20).unwrap();
            let read = store.read_block(&block).unwrap();
            assert_eq!(
                (&read.header, &read.receipts),
                (&draft.header, &draft.receipts)
            );
            store.finalize(&block, &certificate).unwrap();
        }
        block
    }

    pub fn signers(&self) -> Vec<(String, instar_attest::PublicKey)> {
        (0..self.stores.len())
            .map(|i| (format!("v{i}"), key("lane", i).public()))
            .collect()
    }
}

pub fn repo_path(dir: &Path, i: usize) -> PathBuf {
    dir.join(format!("n{i}")).join("ledger.git")
}

pub fn mark_path(dir: &Path, i: usize) -> PathBuf {
    let home = dir.join(format!("n{i}"));
    std::fs::create_dir_all(&home).unwrap();
    home.join("lane.mark")
}

pub fn options(dir: &Path, i: usize) -> OpenOptions {
    OpenOptions {
        lane_mark: Some(mark_path(dir, i)),
        mother: None,
    }
}

/// Runs stock git, without any configuration of this machine.
pub fn git(folder: &Path, args: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("LC_ALL", "C")
        .args(["-c", "safe.directory=*"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(text + &error)
    } else {
        Err(format!("git {args:?}: {}\n{text}{error}", output.status))
    }
}
