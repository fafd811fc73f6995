//! A fork that comes back, as two nodes see it: one has the fork's history in its home and brings it, to the other it comes
//! with the blocks. And one that nobody can merge.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use instar_attest::{ChainId, Purpose, SecretKey, keyfile};
use instar_chain::govern::ops::{ForkMerge, MotionVote, Propose};
use instar_chain::govern::{Change, GovernOp};
use instar_chain::ops::Ballot;
use instar_chain::{Policy, SlotPolicy, query};
use instar_chunks::BlockStore;
use instar_ledger::grammar::{self, Kind, LanePayload, Object};
use instar_ledger::light::SignedHeader;
use instar_ledger::store::OpenOptions;
use instar_ledger::{
    BlockDraft, Certificate, CommitSignature, DeviceId, Entry, ForkPart, Genesis, GenesisFork,
    GenesisValidator, Header, Keys, Lane, LaneCommit, LaneRange, Oid, Outcome, Receipt,
    ReceiptLine, Store, receipt,
};
use instar_node::core::Core;
use instar_node::core::open::create;
use instar_node::home::{Home, STATES_KEPT};
use instar_runtime::Runtime;
use serde_json::json;

const TIME_S: u64 = 1_795_262_400;

/// The only validator of the mother, a node that follows, and the fork's history.
struct World {
    dir: tempfile::TempDir,
    chain: ChainId,
    genesis: Genesis,
    ann: Core,
    bob: Core,
    nonce: u64,
}

fn keys(home: &Home) -> Keys {
    home.create().unwrap();
    let [account, builder, consensus, lane] = [
        Purpose::Account,
        Purpose::Builder,
        Purpose::Consensus,
        Purpose::Lane,
    ]
    .map(|purpose| {
        let file = home.key_file(purpose);
        keyfile::generate(&file, purpose).unwrap().public()
    });
    Keys {
        account,
        builder,
        consensus,
        lane,
    }
}

fn open(home: &Home) -> Core {
    let blocks = Arc::new(BlockStore::open(&home.blocks()).unwrap());
    let runtime = Runtime::new(&home.images(), blocks).unwrap();
    Core::open(home, runtime, STATES_KEPT).unwrap()
}

fn certificate(chain: &ChainId, height: u64, block: Oid, key: &SecretKey) -> Certificate {
    let mut certificate = Certificate {
        block,
        height,
        round: 0,
        signatures: Vec::new(),
    };
    certificate.signatures = vec![CommitSignature {
        sig: key.sign(&certificate.signed_bytes(chain)),
        validator: key.public(),
    }];
    certificate
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let slot = SlotPolicy {
            builders: 1,
            ..SlotPolicy::default()
        };
        let policy = Policy {
            dapps: slot.clone(),
            node: slot,
            ..Policy::default()
        };
        let [ann, bob] = ["ann", "bob"].map(|name| Home::new(dir.path().join(name)));
        let genesis = Genesis {
            accounts: Default::default(),
            chain_name: "mother".into(),
            dapps: Vec::new(),
            fork: None,
            kernel: 1,
            operators: Vec::new(),
            policy: serde_json::to_value(policy).unwrap(),
            protocol: 1,
            releases: Vec::new(),
            time_ms: TIME_S * 1000,
            validators: vec![GenesisValidator {
                keys: keys(&ann),
                name: "ann".into(),
                operator: "ann-ltd".into(),
                power: 1,
            }],
        };
        keys(&bob);
        let chain = create(&ann, &genesis).unwrap();
        create(&bob, &genesis).unwrap();
        let mut world = Self {
            chain,
            genesis,
            ann: open(&ann),
            bob: open(&bob),
            dir,
            nonce: 0,
        };
        world.block(&[]);
        world.block(&[]);
        world
    }

    fn home(&self, name: &str) -> Home {
        Home::new(self.dir.path().join(name))
    }

    fn key(&self, purpose: Purpose) -> SecretKey {
        self.home("ann").key(purpose).unwrap()
    }

    fn govern(&mut self, op: &GovernOp) -> Entry {
        let key = self.key(Purpose::Account);
        let entry = Entry::sign(&self.chain, &key, self.nonce, "govern", op.to_value()).unwrap();
        self.nonce += 1;
        entry
    }

    /// Ann proposes and decides, bob follows; what the block merges of forks.
    fn block(&mut self, entries: &[Entry]) -> Header {
        if !entries.is_empty() {
            self.ann.append(entries, TIME_S).unwrap();
        }
        let height = self.ann.head().height + 1;
        let (block, pack) = self.ann.propose(0, (TIME_S + height) * 1000).unwrap();
        let certificate = certificate(&self.chain, height, block, &self.key(Purpose::Consensus));
        self.ann.decided(&certificate, None).unwrap();
        self.bob.follow(&certificate, &pack).unwrap();
        assert_eq!(self.bob.head().block, block);
        self.ann.ledger().header(&block).unwrap()
    }

    /// A motion that the fork be merged passes, and the next block is that of its effect.
    fn passes(&mut self, op: ForkMerge) {
        let change = Change::ForkMerge(Box::new(op));
        let propose = self.govern(&GovernOp::Propose(Propose {
            change,
            delay: 1,
            reason: None,
        }));
        let vote = self.govern(&GovernOp::Vote(MotionVote {
            motion: propose.id(),
            reason: None,
            vote: Ballot::Yes,
        }));
        self.block(&[propose, vote]);
        self.block(&[]);
        let due = query::forks_due(&self.ann.state().view().unwrap()).unwrap();
        assert_eq!(due.len(), 1, "it took effect");
    }

    fn fork(&mut self) -> Fork {
        self.ann.flush().unwrap();
        let secret = SecretKey::from_seed(&[5; 32]);
        let mut genesis = self.genesis.clone();
        genesis.chain_name = "fork".into();
        genesis.time_ms = (TIME_S + 1_000) * 1000;
        let keys = &mut genesis.validators[0].keys;
        (keys.consensus, keys.lane) = (secret.public(), secret.public());
        genesis.fork = Some(GenesisFork {
            dapps: vec![],
            header: self.ann.ledger().signed_header(1).unwrap().unwrap(),
        });
        let options = OpenOptions {
            lane_mark: Some(self.dir.path().join("fork.mark")),
            mother: Some(self.home("ann").ledger()),
        };
        let path = self.dir.path().join("fork.git");
        let (mut store, chain) = Store::create_with(&path, &genesis, &options).unwrap();
        let lane = Lane {
            device: DeviceId::of(&secret.public()),
            incarnation: 1,
        };
        store.begin_incarnation(&lane).unwrap();
        Fork {
            store,
            chain,
            secret,
            lane,
        }
    }

    /// The fork's history as `chain merge-fork` leaves it in ann's home.
    fn fetched(&self, fork: &Fork) {
        let to = self.home("ann").fork_history(&fork.chain);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let args = ["clone", "--quiet", "--bare", "--no-local"];
        let status = Command::new("git")
            .args(args)
            .arg(fork.store.path())
            .arg(&to)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

struct Fork {
    store: Store,
    chain: ChainId,
    secret: SecretKey,
    lane: Lane,
}

impl Fork {
    fn entry(&self, nonce: u64) -> Entry {
        Entry::sign(&self.chain, &self.secret, nonce, "notes", json!({})).unwrap()
    }

    /// A block that merges this commit.
    fn draft(&self, commit: &LaneCommit) -> BlockDraft {
        let (height, parent) = self.store.head();
        let receipts = vec![ReceiptLine::Entry(Receipt {
            chain: None,
            detail: None,
            entry: commit.entries[0].id(),
            index: 0,
            lane: self.lane,
            outcome: Outcome::Applied,
            output: None,
            rule: None,
            seq: commit.seq,
        })];
        let root = instar_attest::Digest::of(b"root");
        BlockDraft {
            header: Header {
                chain: self.chain,
                dapps: Default::default(),
                forks: vec![],
                height: height + 1,
                kernel: 1,
                lanes: vec![LaneRange {
                    device: self.lane.device,
                    from: commit.seq,
                    head: commit.id,
                    incarnation: 1,
                    to: commit.seq,
                }],
                left_out: vec![],
                parent,
                proposer: self.secret.public(),
                protocol: 1,
                receipts: receipt::digest(&receipts).unwrap(),
                state_root: root,
                time_ms: self.store.genesis().time_ms + height + 1,
                validators: self.store.genesis().validator_set().unwrap().digest(),
            },
            receipts,
            previous: self.store.tip_certificate().cloned(),
        }
    }

    fn grow(&mut self) {
        let entry = self.entry(self.store.head().0);
        let commit = self
            .store
            .append_lane(&self.secret, &self.lane, &[entry], TIME_S)
            .unwrap();
        let draft = self.draft(&commit);
        let block = self.store.write_block(&draft).unwrap();
        let certificate = certificate(&self.chain, draft.header.height, block, &self.secret);
        self.store.finalize(&block, &certificate).unwrap();
        self.store.flush().unwrap();
    }

    fn merge(&self, header: SignedHeader, parts: Vec<ForkPart>) -> ForkMerge {
        ForkMerge {
            chain: self.chain,
            changes: vec![],
            genesis: self.store.genesis().clone(),
            header,
            parts,
        }
    }

    fn part(&self, height: u64) -> ForkPart {
        let id = self.store.block_at(height).unwrap();
        ForkPart { height, id }
    }
}

#[test]
fn a_node_with_the_forks_history_brings_it() {
    let mut world = World::new();
    let mut fork = world.fork();
    (0..3).for_each(|_| fork.grow());
    let now_ms = (TIME_S + 500) * 1000;
    assert!(!world.ann.has_work(now_ms).unwrap());
    let header = fork.store.signed_header(3).unwrap().unwrap();
    world.passes(fork.merge(header, vec![fork.part(2), fork.part(3)]));
    // Nobody has it yet: blocks are made, without it.
    assert!(world.ann.has_work(now_ms).unwrap());
    assert!(world.bob.has_work(now_ms).unwrap(), "everybody waits");
    assert_eq!(world.block(&[]).forks, []);
    world.fetched(&fork);
    let first = world.block(&[]).forks;
    assert_eq!((first[0].from, first[0].to), (1, 2));
    assert_eq!(first[0].head, fork.part(2).id);
    let second = world.block(&[]).forks;
    assert_eq!((second[0].from, second[0].to), (3, 3));
    assert_eq!(world.block(&[]).forks, []);
    assert!(!world.ann.has_work(now_ms).unwrap());
    for core in [&world.ann, &world.bob] {
        let all = query::forks(&core.state().view().unwrap()).unwrap();
        assert_eq!(
            (all[&fork.chain].height, all[&fork.chain].parts.len()),
            (3, 0)
        );
        assert_eq!(core.ledger().slice(&first[0]).unwrap().entries.len(), 2);
    }
    // After a restart it stands where it stood, and bob hands on what he never fetched.
    let home = world.home("bob");
    let World { bob, .. } = world;
    let head = bob.head().block;
    drop(bob);
    let bob = open(&home);
    assert_eq!(bob.head().block, head);
    let height = bob.head().height;
    assert!(bob.synced_block(height - 2).unwrap().is_some());
}

/// Puts an object into a repository with stock git.
fn put(folder: &Path, object: &Object) {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["hash-object", "-w", "--stdin", "-t", object.kind.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&object.bytes)
        .unwrap();
    assert!(child.wait().unwrap().success());
}

/// Attack: the fork's validators certified an entry that its author never signed, and the motion passed all the same.
#[test]
fn a_slice_that_can_t_be_merged_keeps_nobody_from_proposing() {
    let mut world = World::new();
    let fork = world.fork();
    let mut entry = fork.entry(0);
    entry.sig = fork.entry(9).sig;
    let blob = Object::new(
        Kind::Blob,
        grammar::entries_jsonl(std::slice::from_ref(&entry)).unwrap(),
    );
    let tree = grammar::single_file_tree("entries.jsonl", &blob);
    let payload = LanePayload {
        chain: fork.chain,
        entries: 1,
        lane: fork.lane,
        parent: fork.chain.into(),
        seq: 1,
        time_s: TIME_S,
        tree: tree.id,
    };
    let commit = Object::new(Kind::Commit, payload.sign(&fork.secret).unwrap().to_bytes());
    let draft = fork.draft(&LaneCommit {
        id: commit.id,
        lane: fork.lane,
        seq: 1,
        parent: fork.chain.into(),
        time_s: TIME_S,
        entries: vec![entry],
    });
    let files = grammar::block_tree(&draft).unwrap();
    let bytes = grammar::block_commit(&files[0].id, &draft.header, &draft.receipts);
    let block = Object::new(Kind::Commit, bytes);
    let head = block.id;
    world.fetched(&fork);
    let history = world.home("ann").fork_history(&fork.chain);
    let receipts = files[2].id;
    for object in [commit, tree, blob, block].iter().chain(&files) {
        put(&history, object);
    }
    assert!(instar_ledger::store::has_commit(&history, &head));
    let header = SignedHeader {
        certificate: certificate(&fork.chain, 1, head, &fork.secret),
        entries: 1,
        header: draft.header,
        previous: None,
        receipts,
    };
    let part = ForkPart {
        height: 1,
        id: head,
    };
    world.passes(fork.merge(header, vec![part]));
    for _ in 0..2 {
        assert_eq!(world.block(&[]).forks, []);
    }
    let due = query::forks_due(&world.ann.state().view().unwrap()).unwrap();
    assert!(!world.ann.ledger().has_slice(&due[0].range));
}
