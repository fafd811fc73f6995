//! Lanes as a node sees them: one that says two things at one place, and its own after its marks were lost.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use instar_attest::{ChainId, Purpose, SecretKey, keyfile};
use instar_chain::{Policy, SlotPolicy};
use instar_chunks::BlockStore;
use instar_ledger::grammar::{
    ENTRIES_FILE, Kind, LanePayload, Object, entries_jsonl, single_file_tree,
};
use instar_ledger::{
    Certificate, CommitSignature, DeviceId, Entry, Genesis, GenesisValidator, Keys, Lane, Oid, pack,
};
use instar_node::core::open::create;
use instar_node::core::{Core, LaneMessage};
use instar_node::home::{Home, STATES_KEPT};
use instar_runtime::Runtime;

const PURPOSES: [Purpose; 4] = [
    Purpose::Account,
    Purpose::Builder,
    Purpose::Consensus,
    Purpose::Lane,
];
const TIME_S: u64 = 1_795_262_400;

struct World {
    dir: tempfile::TempDir,
    genesis: Genesis,
    chain: ChainId,
}

fn home(dir: &Path, name: &str) -> Home {
    Home::new(dir.join(name))
}

fn keys(home: &Home) -> Keys {
    home.create().unwrap();
    let [account, builder, consensus, lane] = PURPOSES.map(|purpose| {
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
        let validators = ["ann", "bob"].map(|name| GenesisValidator {
            keys: keys(&home(dir.path(), name)),
            name: name.into(),
            operator: format!("{name}-ltd"),
            power: 1,
        });
        let genesis = Genesis {
            accounts: Default::default(),
            chain_name: "lanes".into(),
            dapps: Vec::new(),
            fork: None,
            kernel: 1,
            operators: Vec::new(),
            policy: serde_json::to_value(policy).unwrap(),
            protocol: 1,
            releases: Vec::new(),
            time_ms: TIME_S * 1000,
            validators: validators.to_vec(),
        };
        let chain = create(&home(dir.path(), "ann"), &genesis).unwrap();
        Self {
            dir,
            genesis,
            chain,
        }
    }

    fn open(&self) -> Core {
        let home = home(self.dir.path(), "ann");
        let blocks = Arc::new(BlockStore::open(&home.blocks()).unwrap());
        Core::open(
            &home,
            Runtime::new(&home.images(), blocks).unwrap(),
            STATES_KEPT,
        )
        .unwrap()
    }

    fn key(&self, name: &str, purpose: Purpose) -> SecretKey {
        home(self.dir.path(), name).key(purpose).unwrap()
    }

    fn entry(&self, nonce: u64) -> Entry {
        let key = SecretKey::from_seed(&[7; 32]);
        Entry::sign(&self.chain, &key, nonce, "coin", serde_json::json!({})).unwrap()
    }

    /// A commit of bob's lane, as a message that gossip would bring.
    fn commit(&self, parent: Oid, seq: u64, entry: &Entry) -> (Oid, Vec<u8>) {
        self.commit_of(1, parent, seq, entry)
    }

    fn commit_of(&self, who: usize, parent: Oid, seq: u64, entry: &Entry) -> (Oid, Vec<u8>) {
        let blob = Object::new(
            Kind::Blob,
            entries_jsonl(std::slice::from_ref(entry)).unwrap(),
        );
        let tree = single_file_tree(ENTRIES_FILE, &blob);
        let lane = Lane {
            device: DeviceId::of(&self.genesis.validators[who].keys.lane),
            incarnation: 1,
        };
        let payload = LanePayload {
            chain: self.chain,
            entries: 1,
            lane,
            parent,
            seq,
            time_s: TIME_S,
            tree: tree.id,
        };
        let signed = payload
            .sign(&self.key(&self.genesis.validators[who].name, Purpose::Lane))
            .unwrap();
        let commit = Object::new(Kind::Commit, signed.to_bytes());
        let head = commit.id;
        let objects = [commit, tree, blob];
        let mut message = instar_attest::json::to_vec(&LaneMessage { head, lane }).unwrap();
        message.push(b'\n');
        message.extend(pack::write(
            objects.iter().map(|o| (o.kind, o.bytes.as_slice())),
        ));
        (head, message)
    }
}

/// The evidence in the own lane's unmerged end.
fn accusations(core: &Core) -> usize {
    let account = core.account();
    let said = core.pending_by(&account).collect::<Vec<_>>();
    said.iter()
        .filter(|e| e.topic == "govern" && e.body["op"] == "evidence")
        .count()
}

#[test]
fn two_payloads_for_one_place_become_evidence_once() {
    let world = World::new();
    let mut core = world.open();
    let genesis = Oid::from(world.chain);
    let (first, message) = world.commit(genesis, 1, &world.entry(0));
    assert!(core.receive_lane(&message).unwrap());
    let (_, second) = world.commit(first, 2, &world.entry(1));
    assert!(core.receive_lane(&second).unwrap());
    assert_eq!((core.pending(), accusations(&core)), (2, 0));
    // The same again is no news, and nobody's fault.
    assert!(!core.receive_lane(&second).unwrap());

    // A shorter lane with another first commit: what is here stays.
    let (_, other) = world.commit(genesis, 1, &world.entry(5));
    let refused = core.receive_lane(&other).unwrap_err().to_string();
    assert!(refused.contains("says two things"), "{refused}");
    assert_eq!((core.pending(), accusations(&core)), (3, 1));
    let (_, third) = world.commit(genesis, 1, &world.entry(6));
    assert!(core.receive_lane(&third).is_err());
    assert_eq!(accusations(&core), 1, "it is said once");

    // The node takes it to the trunk with everything else: the block that it would propose quarantines the lane.
    drop(core);
    let mut core = world.open();
    assert_eq!(accusations(&core), 1);
    assert!(core.receive_lane(&other).is_err());
    assert_eq!(accusations(&core), 1, "nor said again after a restart");
    core.propose(0, TIME_S * 1000 + 1).unwrap();
}

#[test]
fn a_device_whose_mark_is_gone_or_copied_opens_another_incarnation() {
    let world = World::new();
    let marks = home(world.dir.path(), "ann").marks();
    let lane_of = |core: &Core| {
        core.ledger()
            .lane_heads()
            .into_iter()
            .map(|(lane, ..)| lane.incarnation)
            .max()
    };
    let mut core = world.open();
    core.append(&[world.entry(0)], TIME_S).unwrap().unwrap();
    assert_eq!(lane_of(&core), Some(1));
    drop(core);
    // A restart changes nothing.
    let mut core = world.open();
    core.append(&[world.entry(1)], TIME_S).unwrap().unwrap();
    assert_eq!(lane_of(&core), Some(1));
    drop(core);

    std::fs::remove_dir_all(&marks).unwrap();
    std::fs::create_dir(&marks).unwrap();
    let mut core = world.open();
    core.append(&[world.entry(2)], TIME_S).unwrap().unwrap();
    let second = lane_of(&core).unwrap();
    assert!(second > 1);
    drop(core);

    std::fs::write(marks.join("lane"), b"torn").unwrap();
    let mut core = world.open();
    core.append(&[world.entry(3)], TIME_S).unwrap().unwrap();
    let third = lane_of(&core).unwrap();
    assert!(third > second);
    // All of them are merged: nothing that was appended is lost.
    assert_eq!(core.pending(), 4);
    core.propose(0, TIME_S * 1000 + 1).unwrap();
}

#[test]
fn a_peer_that_has_more_of_the_own_lane_betrays_a_restored_home() {
    let world = World::new();
    let mut core = world.open();
    core.append(&[world.entry(0)], TIME_S).unwrap().unwrap();
    let (lane, head, _) = core.ledger().lane_heads()[0];
    // Its own message coming back is no news.
    let message = core.lane_message(&lane).unwrap().unwrap();
    assert!(!core.receive_lane(&message).unwrap());
    core.append(&[world.entry(1)], TIME_S).unwrap().unwrap();
    assert_eq!(core.ledger().lane_heads().len(), 1);

    // What this device signed before its disk went back in time.
    let (_, before) = world.commit_of(0, head, 2, &world.entry(9));
    assert!(!core.receive_lane(&before).unwrap());
    core.append(&[world.entry(2)], TIME_S).unwrap().unwrap();
    let lanes = core.ledger().lane_heads();
    assert!(
        lanes
            .iter()
            .any(|(l, ..)| l.device == lane.device && l.incarnation > 1)
    );
}

/// A power cut between the write-ahead log, which has everything that decides, and the commit. After it the engine
/// decides again, and if the block had come by value sync, nobody has its payload but the ledger.
#[test]
fn a_block_that_an_earlier_process_tested_is_made_final_without_its_payload() {
    let world = World::new();
    let mut core = world.open();
    core.append(&[world.entry(0)], TIME_S).unwrap();
    let (block, _) = core.propose(0, (TIME_S + 1) * 1000).unwrap();
    drop(core);
    let mut certificate = Certificate {
        block,
        height: 1,
        round: 0,
        signatures: Vec::new(),
    };
    let bytes = certificate.signed_bytes(&world.chain);
    certificate.signatures = ["ann", "bob"]
        .map(|name| world.key(name, Purpose::Consensus))
        .map(|key| CommitSignature {
            sig: key.sign(&bytes),
            validator: key.public(),
        })
        .to_vec();
    certificate.signatures.sort_by_key(|s| s.validator);
    let mut core = world.open();
    assert_eq!(core.head().height, 0);
    core.decided(&certificate, None).unwrap();
    assert_eq!((core.head().height, core.head().block), (1, block));
}
