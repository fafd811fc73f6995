//! The vectors of protocol 1: blocks with what they come to. A change here is another protocol.

use std::collections::BTreeMap;
use std::path::PathBuf;

use instar_attest::{Digest, json};
use instar_ledger::{Certificate, Entry, Genesis, Lane, LaneCommit, Oid, receipt};
use serde::{Deserialize, Serialize};

use super::rollout::whole_rollout;
use super::upgrades::{ready_all, vote_all};
use super::world::*;
use crate::fake::FakeHost;
use crate::{BlockInput, MemoryState, apply_block, genesis_writes};

/// What the file has of one lane commit.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Commit {
    entries: Vec<Entry>,
    id: Oid,
    lane: Lane,
    parent: Oid,
    seq: u64,
}

/// What the file has of one block.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    height: u64,
    lanes: Vec<Commit>,
    left_out: Vec<String>,
    parent: Oid,
    previous: Option<Certificate>,
    /// SHA-256 of `receipts.jsonl`.
    receipts: Digest,
    /// SHA-256 of the canonical JSON of an object with the SHA-256 of each value in the state, by key.
    state: Digest,
    time_ms: u64,
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/protocol-1.jsonl")
}

fn digest(state: &MemoryState) -> Digest {
    let values: BTreeMap<&str, Digest> = state.iter().map(|(k, v)| (k, Digest::of(v))).collect();
    Digest::of(&json::to_vec(&values).unwrap())
}

fn lanes(block: &Block) -> Vec<LaneCommit> {
    let one = |c: &Commit| LaneCommit {
        id: c.id,
        lane: c.lane,
        seq: c.seq,
        parent: c.parent,
        time_s: 0,
        entries: c.entries.clone(),
    };
    block.lanes.iter().map(one).collect()
}

#[test]
fn the_vectors_come_to_what_they_say() {
    if std::env::var_os(WRITE).is_some() {
        write_the_vectors();
    }
    let text = std::fs::read_to_string(path()).unwrap();
    let mut lines = text.lines();
    let first = lines.next().unwrap();
    let genesis = Genesis::from_bytes(first.as_bytes()).unwrap();
    let chain = chain_of(&genesis);
    let mut state = MemoryState::default();
    state.apply(&genesis_writes(&genesis, &chain).unwrap());
    let mut host = FakeHost::of_node(0);
    let mut count = 0;
    for line in lines {
        let block: Block = json::from_slice(line.as_bytes(), 1 << 20).unwrap();
        let lanes = lanes(&block);
        for entry in lanes.iter().flat_map(|c| &c.entries) {
            assert_eq!(
                &Entry::parse(entry.to_line().as_bytes(), &chain).unwrap(),
                entry
            );
        }
        let input = BlockInput {
            chain,
            height: block.height,
            time_ms: block.time_ms,
            parent: block.parent,
            proposer: genesis.validators[0].keys.consensus,
            previous: block.previous.as_ref(),
            lanes: &lanes,
            fork: None,
            left_out: &block.left_out,
        };
        let output = apply_block(&state, &input, &mut host).unwrap();
        state.apply(&output.writes);
        let lines = receipt::to_jsonl(&output.receipts).unwrap();
        let text = String::from_utf8_lossy(&lines);
        assert_eq!(
            Digest::of(&lines),
            block.receipts,
            "receipts of height {}:\n{text}",
            block.height
        );
        assert_eq!(
            digest(&state),
            block.state,
            "state after height {}",
            block.height
        );
        count += 1;
    }
    assert!(count > 30, "{count} blocks are no story");
}

/// A new protocol needs new vectors: they are written, on purpose and by hand, where this variable is set.
const WRITE: &str = "INSTAR_WRITE_VECTORS";

fn write_the_vectors() {
    let mut w = World::new();
    let refused = w.open("dapps/coin", 2);
    w.build_all(&refused, &[(3, b"bad")]);
    w.propose(&refused);
    let round = w.agreed("dapps/coin", 3);
    w.say(
        1,
        &secret("payer"),
        "coin",
        serde_json::json!({"put": {"paid": "1"}}),
    );
    let proposal = w.propose(&round);
    vote_all(&mut w, &proposal);
    ready_all(&mut w, &proposal, [b"r", b"r", b"r", b"s"]);
    w.blocks(3);
    let differs = w.agreed("dapps/coin", 4);
    let proposal = w.propose(&differs);
    vote_all(&mut w, &proposal);
    ready_all(&mut w, &proposal, [b"1", b"2", b"3", b"4"]);
    let w = whole_rollout(w);
    let mut text = String::from_utf8(w.genesis.to_bytes().unwrap()).unwrap() + "\n";
    for (made, state) in w.made.iter().zip(&w.states[1..]) {
        let mut host = FakeHost::of_node(0);
        let before = &w.states[made.height as usize - 1];
        let output = apply_block(before, &made.input(&w), &mut host).unwrap();
        let commit = |c: &LaneCommit| Commit {
            entries: c.entries.clone(),
            id: c.id,
            lane: c.lane,
            parent: c.parent,
            seq: c.seq,
        };
        let block = Block {
            height: made.height,
            lanes: made.lanes.iter().map(commit).collect(),
            left_out: made.left_out.clone(),
            parent: made.parent,
            previous: made.previous.clone(),
            receipts: receipt::digest(&output.receipts).unwrap(),
            state: digest(state),
            time_ms: made.time_ms,
        };
        text += &(json::to_string(&block).unwrap() + "\n");
    }
    std::fs::write(path(), text).unwrap();
}
