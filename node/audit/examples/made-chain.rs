//! Makes a chain of any length, for benchmarks: the real store and the real rules, four validators whose keys are known,
//! and a dapp played by a few lines, which notes each entry's author as a balance would be.
//!
//! `made-chain FOLDER BLOCKS ENTRIES_A_BLOCK` writes `FOLDER/ledger.git`, repacked as a node repacks its own.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use instar_attest::release::{
    Activation, FileMode, FileReveal, Release, ReleaseHead, SbomReveal, Source, SourceFormat,
    Target,
};
use instar_attest::{ChainId, Digest, SecretKey};
use instar_chain::build::release_root;
use instar_chain::{
    BlockInput, DappCall, DappFailure, DappHost, DappResult, Policy, SlotPolicy, Verdict,
    apply_block, genesis_writes,
};
use instar_chunks::{FileSummary, Profile, add_file};
use instar_ledger::store::{OpenOptions, Store, maintain};
use instar_ledger::vote::{self, VoteKind};
use instar_ledger::{
    BlockDraft, Certificate, CommitSignature, DeviceId, Entry, Genesis, GenesisDapp,
    GenesisRelease, GenesisValidator, Header, Keys, Lane, LaneRange, Oid, receipt,
};
use instar_state::Fork;
use serde_json::{Value, json};

/// A wall clock that nobody reads.
const TIME_MS: u64 = 1_700_000_000_000;
/// Accounts that sign transfers, as in the benchmark of finality.
const ACCOUNTS: usize = 100;
/// Four validators survive one fault; three of them sign.
const VALIDATORS: usize = 4;

type Failure = Box<dyn Error>;

fn key(purpose: &str, number: usize) -> SecretKey {
    let seed = Digest::of(format!("instar bench key {purpose} {number}").as_bytes());
    SecretKey::from_seed(seed.as_bytes())
}

/// A release of the coin that nobody runs here: one file of a few bytes.
fn coin_release() -> Result<GenesisRelease, Failure> {
    let file = |content: &[u8]| -> Result<FileSummary, Failure> {
        let mut from = content;
        Ok(add_file(Profile::InstarCdcV1, &mut from, &mut |_, _| {
            Ok(())
        })?)
    };
    let manifest = file(b"{}")?;
    let bill = file(b"{\"bomFormat\":\"CycloneDX\"}")?;
    let target: Target = "x86_64-unknown-linux-gnu".parse()?;
    let files = vec![FileReveal {
        cid: manifest.cid.to_string().parse()?,
        dag_size: manifest.dag_size,
        mode: FileMode::Plain,
        path: format!("{target}/dapp.json").parse()?,
        sha256: Digest::from_bytes(manifest.sha256),
        size: manifest.size,
    }];
    let sbom = SbomReveal {
        cid: bill.cid.to_string().parse()?,
        dag_size: bill.dag_size,
        path: "sbom.cdx.json".parse()?,
        sha256: Digest::from_bytes(bill.sha256),
        size: bill.size,
    };
    let head = ReleaseHead {
        activation: Activation::Dapp,
        chain: ChainId::from_bytes([0; 32]),
        chunk_profile: Profile::InstarCdcV1.name().parse()?,
        name: "coin".parse()?,
        number: 1,
        protocol: 1,
        slot: "dapps/coin".parse()?,
        source: Source {
            commit: "1".repeat(40),
            format: SourceFormat::Sha1,
            tree: "2".repeat(40),
        },
    };
    let release = Release::assemble(head, &BTreeMap::from([(target, files)]), sbom)?;
    let (release_json, root) = release_root(&release)?;
    Ok(GenesisRelease {
        number: 1,
        release: root.to_string(),
        release_json,
        slot: "dapps/coin".into(),
    })
}

fn genesis() -> Result<Genesis, Failure> {
    let policy = Policy {
        dapps: SlotPolicy::default(),
        node: SlotPolicy::default(),
        ..Policy::default()
    };
    Ok(Genesis {
        accounts: BTreeMap::new(),
        chain_name: "made".into(),
        dapps: vec![GenesisDapp {
            manifest: json!({}),
            name: "coin".into(),
        }],
        fork: None,
        kernel: 1,
        operators: vec![],
        policy: serde_json::to_value(policy)?,
        protocol: 1,
        releases: vec![coin_release()?],
        time_ms: TIME_MS,
        validators: (0..VALIDATORS)
            .map(|i| GenesisValidator {
                keys: Keys {
                    account: key("account", ACCOUNTS + i).public(),
                    builder: key("builder", i).public(),
                    consensus: key("consensus", i).public(),
                    lane: key("lane", i).public(),
                },
                name: format!("v{i}"),
                operator: format!("operator-{i}"),
                power: 1,
            })
            .collect(),
    })
}

/// Notes what a coin would: one key for each author.
struct Coin;

impl DappHost for Coin {
    fn run(&mut self, call: DappCall<'_>) -> Result<DappResult, DappFailure> {
        let taken = |_| Verdict {
            ok: true,
            ..Verdict::default()
        };
        Ok(DappResult {
            verdicts: call.entries.iter().map(taken).collect(),
            writes: call
                .entries
                .iter()
                .map(|e| {
                    let balance = format!("{}", call.ctx.height).into_bytes();
                    (format!("balance/{}", e.author), Some(balance))
                })
                .collect(),
        })
    }
}

fn certificate(chain: &ChainId, height: u64, block: Oid) -> Certificate {
    let bytes = vote::signed_bytes(chain, VoteKind::Precommit, height, 0, Some(&block));
    let mut signatures: Vec<CommitSignature> = (0..VALIDATORS - 1)
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

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let [_, folder, blocks, entries] = &args[..] else {
        return Err("usage: made-chain FOLDER BLOCKS ENTRIES_A_BLOCK".into());
    };
    make(Path::new(folder), blocks.parse()?, entries.parse()?)
}

fn make(folder: &Path, blocks: u64, entries: usize) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let genesis = genesis()?;
    let ledger = folder.join("ledger.git");
    let options = OpenOptions {
        lane_mark: Some(folder.join("lane.mark")),
        mother: None,
    };
    let (mut store, chain) = Store::create_with(&ledger, &genesis, &options)?;
    let lane = Lane {
        device: DeviceId::of(&key("lane", 0).public()),
        incarnation: 1,
    };
    store.begin_incarnation(&lane)?;
    let mut state = Fork::empty();
    state.apply(&genesis_writes(&genesis, &chain)?)?;
    let accounts: Vec<SecretKey> = (0..ACCOUNTS).map(|i| key("account", i)).collect();
    let mut said: u64 = 0;
    for height in 1..=blocks {
        let mut batch = Vec::with_capacity(entries);
        for _ in 0..entries {
            let author = &accounts[said as usize % ACCOUNTS];
            let body: Value = json!({"amount": "5", "op": "transfer", "to": accounts[0].public()});
            batch.push(Entry::sign(
                &chain,
                author,
                said / ACCOUNTS as u64,
                "coin",
                body,
            )?);
            said += 1;
        }
        let time_s = TIME_MS / 1000 + height;
        let commit = store.append_lane(&key("lane", 0), &lane, &batch, time_s)?;
        let parent = store.head().1;
        let previous = store.tip_certificate().cloned();
        let proposer = key("consensus", height as usize % VALIDATORS).public();
        let lanes = [commit];
        let input = BlockInput {
            chain,
            height,
            time_ms: TIME_MS + height * 1000,
            parent,
            proposer,
            previous: previous.as_ref(),
            lanes: &lanes,
            fork: None,
            left_out: &[],
        };
        let output = apply_block(&state, &input, &mut Coin)?;
        let state_root = state.apply(&output.writes)?;
        let header = Header {
            chain,
            dapps: output.dapps,
            forks: vec![],
            height,
            kernel: 1,
            lanes: vec![LaneRange {
                device: lane.device,
                from: lanes[0].seq,
                head: lanes[0].id,
                incarnation: lane.incarnation,
                to: lanes[0].seq,
            }],
            left_out: vec![],
            parent,
            proposer,
            protocol: output.protocol,
            receipts: receipt::digest(&output.receipts)?,
            state_root,
            time_ms: input.time_ms,
            validators: output.validators.digest(),
        };
        let block = store.write_block(&BlockDraft {
            header,
            receipts: output.receipts,
            previous,
        })?;
        store.finalize(&block, &certificate(&chain, height, block))?;
    }
    store.flush()?;
    drop(store);
    maintain(&ledger)?;
    println!("{chain}");
    Ok(())
}
