//! Four validators, a developer and a dapp, in memory.

use std::collections::BTreeMap;

use instar_attest::release::{
    Activation, ChunkProfile, FileMode, FileReveal, Nonce, Release, ReleaseHead, ReleasePath,
    SbomReveal, Source, SourceFormat, Target,
};
use instar_attest::{ChainId, Digest, SecretKey};
use instar_ledger::{
    Certificate, CommitSignature, DeviceId, Entry, Event, Genesis, GenesisDapp, GenesisOperator,
    GenesisRelease, GenesisValidator, Keys, Lane, LaneCommit, Oid, Outcome, Receipt, ReceiptLine,
    Slice, lane::merge_key,
};
use serde_json::{Value, json};

use crate::apply::apply_gated;
use crate::fake::FakeHost;
use crate::gates::{Gate, Gates};
use crate::govern::GovernOp;
use crate::ops::{BuildOp, UpgradeOp};
use crate::*;

pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The block time between two blocks.
pub const STEP_MS: u64 = 1000;

/// One validator's secrets.
#[derive(Clone)]
pub struct Node {
    pub name: String,
    pub account: SecretKey,
    pub builder: SecretKey,
    pub consensus: SecretKey,
    pub lane: SecretKey,
}

impl Node {
    /// The secrets of the validator of this name.
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            account: secret(&format!("{name} account")),
            builder: secret(&format!("{name} builder")),
            consensus: secret(&format!("{name} consensus")),
            lane: secret(&format!("{name} lane")),
        }
    }

    pub fn keys(&self) -> Keys {
        Keys {
            account: self.account.public(),
            builder: self.builder.public(),
            consensus: self.consensus.public(),
            lane: self.lane.public(),
        }
    }
}

/// A block as it was, for replays.
#[derive(Clone)]
pub struct Made {
    pub height: u64,
    pub time_ms: u64,
    pub parent: Oid,
    pub previous: Option<Certificate>,
    pub lanes: Vec<LaneCommit>,
    pub fork: Option<Slice>,
    pub left_out: Vec<String>,
}

impl Made {
    pub fn input<'a>(&'a self, world: &World) -> BlockInput<'a> {
        BlockInput {
            chain: world.chain,
            height: self.height,
            time_ms: self.time_ms,
            parent: self.parent,
            proposer: world.nodes[0].consensus.public(),
            previous: self.previous.as_ref(),
            lanes: &self.lanes,
            fork: self.fork.as_ref(),
            left_out: &self.left_out,
        }
    }
}

#[derive(Clone)]
pub struct World {
    pub chain: ChainId,
    pub genesis: Genesis,
    pub nodes: Vec<Node>,
    pub developer: SecretKey,
    pub state: MemoryState,
    pub host: FakeHost,
    pub gates: Gates,
    pub time_ms: u64,
    pub made: Vec<Made>,
    /// The states after each height.
    pub states: Vec<MemoryState>,
    pub receipts: BTreeMap<Digest, Receipt>,
    pub events: Vec<(u64, Event)>,
    /// Validators whose precommits certificates carry.
    pub signing: Vec<bool>,
    /// The lanes of those whose device is not that of their lane key, or which are not the first.
    pub lane_of: BTreeMap<usize, Lane>,
    queue: BTreeMap<usize, Vec<Entry>>,
    lanes: BTreeMap<Lane, (u64, Oid)>,
    nonces: BTreeMap<instar_attest::PublicKey, u64>,
}

pub fn secret(name: &str) -> SecretKey {
    SecretKey::from_seed(Digest::of(name.as_bytes()).as_bytes())
}

pub fn target() -> Target {
    TARGET.parse().unwrap()
}

pub fn source(n: u64) -> Source {
    let id = |what: &str| Digest::of(format!("{what} {n}").as_bytes()).to_hex();
    Source {
        commit: id("commit"),
        format: SourceFormat::Sha256,
        tree: id("tree"),
    }
}

fn cid_of(content: &[u8]) -> (instar_attest::release::Cid, u64) {
    let profile = instar_chunks::Profile::InstarCdcV1;
    let summary = instar_chunks::add_file(profile, &mut &*content, &mut |_, _| Ok(())).unwrap();
    (summary.cid.to_string().parse().unwrap(), summary.dag_size)
}

pub fn file(path: &str, content: &[u8]) -> FileReveal {
    let (cid, dag_size) = cid_of(content);
    FileReveal {
        cid,
        dag_size,
        mode: FileMode::Executable,
        path: ReleasePath::of_target(&target(), path).unwrap(),
        sha256: Digest::of(content),
        size: content.len() as u64,
    }
}

pub fn sbom() -> SbomReveal {
    let content = b"{\"bomFormat\":\"CycloneDX\"}";
    let (cid, dag_size) = cid_of(content);
    SbomReveal {
        cid,
        dag_size,
        path: "sbom.cdx.json".parse().unwrap(),
        sha256: Digest::of(content),
        size: content.len() as u64,
    }
}

/// A small policy whose deadlines a test reaches in a few blocks.
pub fn policy() -> Policy {
    let dapps = SlotPolicy {
        commit_blocks: 6,
        commit_ms: 6 * STEP_MS,
        reveal_blocks: 6,
        reveal_ms: 6 * STEP_MS,
        vote_blocks: 20,
        vote_ms: 20 * STEP_MS,
        rehearse_blocks: 4,
        rehearse_ms: 8 * STEP_MS,
        probation_blocks: 2,
        ..SlotPolicy::default()
    };
    Policy {
        node: dapps.clone(),
        dapps,
        pause_blocks: 3,
        pause_ms: 3 * STEP_MS,
        wave_blocks: 8,
        wave_ms: 8 * STEP_MS,
    }
}

/// A stand-in for the id of the genesis commit.
pub fn chain_of(genesis: &Genesis) -> ChainId {
    ChainId::from_bytes(*Digest::of(&genesis.to_bytes().unwrap()).as_bytes())
}

fn genesis_release() -> GenesisRelease {
    let head = ReleaseHead {
        activation: Activation::Dapp,
        chain: ChainId::from_bytes([0; 32]),
        chunk_profile: ChunkProfile::new("instar-cdc-v1").unwrap(),
        name: "coin".parse().unwrap(),
        number: 1,
        protocol: 1,
        slot: "dapps/coin".parse().unwrap(),
        source: source(1),
    };
    let files = BTreeMap::from([(target(), vec![file("rootfs/bin/coin", b"coin 1")])]);
    let release = Release::assemble(head, &files, sbom()).unwrap();
    let (release_json, root) = build::release_root(&release).unwrap();
    GenesisRelease {
        number: 1,
        release: root.to_string(),
        release_json,
        slot: "dapps/coin".into(),
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(policy(), |_| {})
    }

    pub fn with(policy: Policy, change: impl FnOnce(&mut Genesis)) -> Self {
        let nodes: Vec<Node> = ["ann", "bob", "cleo", "dan"]
            .iter()
            .map(|name| Node::of(name))
            .collect();
        let developer = secret("developer");
        let validators = nodes.iter().map(|n| GenesisValidator {
            keys: n.keys(),
            name: n.name.clone(),
            operator: format!("{}-ltd", n.name),
            power: 1,
        });
        let mut genesis = Genesis {
            accounts: BTreeMap::from([("coin".into(), json!({"balance": {"ann": "10"}}))]),
            chain_name: "test".into(),
            dapps: vec![GenesisDapp {
                manifest: json!({}),
                name: "coin".into(),
            }],
            fork: None,
            kernel: 1,
            operators: vec![GenesisOperator {
                account: developer.public(),
                name: "developers".into(),
            }],
            policy: serde_json::to_value(policy).unwrap(),
            protocol: 1,
            releases: vec![genesis_release()],
            time_ms: 1_000_000,
            validators: validators.collect(),
        };
        change(&mut genesis);
        let chain = chain_of(&genesis);
        let mut state = MemoryState::default();
        state.apply(&genesis_writes(&genesis, &chain).unwrap());
        Self {
            chain,
            time_ms: genesis.time_ms,
            genesis,
            signing: vec![true; nodes.len()],
            nodes,
            developer,
            states: vec![state.clone()],
            state,
            host: FakeHost::of_node(0),
            gates: Gates::default(),
            made: Vec::new(),
            receipts: BTreeMap::new(),
            events: Vec::new(),
            lane_of: BTreeMap::new(),
            queue: BTreeMap::new(),
            lanes: BTreeMap::new(),
            nonces: BTreeMap::new(),
        }
    }

    pub fn without(gate: Gate) -> Self {
        Self {
            gates: Gates::without(gate),
            ..Self::new()
        }
    }

    pub fn height(&self) -> u64 {
        self.made.len() as u64
    }

    /// Queues an entry on a lane; its id.
    pub fn say(&mut self, lane: usize, key: &SecretKey, topic: &str, body: Value) -> Digest {
        let nonce = self.nonces.entry(key.public()).or_default();
        let entry = Entry::sign(&self.chain, key, *nonce, topic, body).unwrap();
        *nonce += 1;
        self.carry(lane, entry)
    }

    /// Queues an entry that was signed before.
    pub fn carry(&mut self, lane: usize, entry: Entry) -> Digest {
        let id = entry.id();
        self.queue.entry(lane).or_default().push(entry);
        id
    }

    pub fn build(&mut self, node: usize, op: &BuildOp) -> Digest {
        let key = self.nodes[node].account.clone();
        self.say(node, &key, ops::BUILD, op.to_value())
    }

    pub fn upgrade(&mut self, node: usize, op: &UpgradeOp) -> Digest {
        let key = self.nodes[node].account.clone();
        self.say(node, &key, ops::UPGRADE, op.to_value())
    }

    pub fn govern(&mut self, node: usize, op: &GovernOp) -> Digest {
        let key = self.nodes[node].account.clone();
        self.say(node, &key, ops::GOVERN, op.to_value())
    }

    /// The lane that a node appends to.
    pub fn lane(&self, node: usize) -> Lane {
        let first = Lane {
            device: DeviceId::of(&self.nodes[node].lane.public()),
            incarnation: 1,
        };
        self.lane_of.get(&node).copied().unwrap_or(first)
    }

    fn take_lanes(&mut self, parent: &Oid) -> Vec<LaneCommit> {
        let mut commits: Vec<LaneCommit> = Vec::new();
        for (node, entries) in std::mem::take(&mut self.queue) {
            let lane = self.lane(node);
            let genesis = (0, Oid::from(self.chain));
            let (seq, head) = self.lanes.get(&lane).copied().unwrap_or(genesis);
            let id = Oid::of_object("commit", format!("{lane} {} {head}", seq + 1).as_bytes());
            self.lanes.insert(lane, (seq + 1, id));
            commits.push(LaneCommit {
                id,
                lane,
                seq: seq + 1,
                parent: head,
                time_s: 0,
                entries,
            });
        }
        commits.sort_by_key(|c| merge_key(parent, &c.lane));
        commits
    }

    /// The next block with all that is queued, as its proposer would put it together.
    pub fn draft(&mut self) -> Made {
        let height = self.height() + 1;
        let block = |height: u64| Oid::of_object("commit", &height.to_be_bytes());
        let parent = match height {
            1 => Oid::from(self.chain),
            _ => block(height - 1),
        };
        let mut signatures: Vec<CommitSignature> = self
            .nodes
            .iter()
            .zip(&self.signing)
            .filter(|(_, signs)| **signs)
            .map(|(n, _)| CommitSignature {
                sig: instar_attest::Signature::from_bytes([0; 64]),
                validator: n.consensus.public(),
            })
            .collect();
        signatures.sort_by_key(|s| s.validator);
        let previous = (height > 1).then(|| Certificate {
            block: parent,
            height: height - 1,
            round: 0,
            signatures,
        });
        Made {
            height,
            time_ms: self.time_ms + STEP_MS,
            parent,
            previous,
            lanes: self.take_lanes(&parent),
            fork: None,
            left_out: Vec::new(),
        }
    }

    pub fn try_block(&mut self, made: Made) -> Result<BlockOutput, BlockError> {
        let mut host = self.host.clone();
        let output = apply_gated(&self.state, &made.input(self), &mut host, self.gates)?;
        self.host = host;
        self.state.apply(&output.writes);
        self.states.push(self.state.clone());
        self.time_ms = made.time_ms;
        for line in &output.receipts {
            match line {
                ReceiptLine::Entry(r) => {
                    self.receipts.insert(r.entry, r.clone());
                }
                ReceiptLine::Event(e) => self.events.push((made.height, e.clone())),
            }
        }
        self.made.push(made);
        Ok(output)
    }

    pub fn block(&mut self) -> BlockOutput {
        let made = self.draft();
        self.try_block(made).unwrap()
    }

    pub fn blocks(&mut self, n: u64) {
        for _ in 0..n {
            self.block();
        }
    }

    pub fn event(&self, name: &str) -> Option<&Event> {
        self.events
            .iter()
            .map(|(_, e)| e)
            .rfind(|e| e.event == name)
    }

    #[track_caller]
    pub fn applied(&self, entry: &Digest) {
        let receipt = &self.receipts[entry];
        assert_eq!(receipt.outcome, Outcome::Applied, "{receipt:?}");
    }

    #[track_caller]
    pub fn refused(&self, entry: &Digest, rule: &str) {
        let receipt = &self.receipts[entry];
        assert_eq!(receipt.outcome, Outcome::Rejected, "{receipt:?}");
        assert_eq!(receipt.rule.as_deref(), Some(rule), "{receipt:?}");
    }

    pub fn round(&self, id: &Digest) -> build::Round {
        query::round(&self.state, id).unwrap().unwrap()
    }

    pub fn proposal(&self, id: &Digest) -> upgrade::Proposal {
        query::proposal(&self.state, id).unwrap().unwrap()
    }

    pub fn slot(&self, name: &str) -> record::SlotRecord {
        query::slot(&self.state, name).unwrap().unwrap()
    }
}

pub fn nonce(node: usize) -> Nonce {
    Nonce::from_bytes(*Digest::of(&[b'n', node as u8]).as_bytes())
}
