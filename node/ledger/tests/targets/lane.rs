//! Any bytes as what a device says in its lane: the commit, the payload in it, its armour, the entries beside it, evidence
//! against it. Each has one spelling, and what only lacks a signature is accepted once it is signed.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use instar_attest::{ChainId, SecretKey, json};
use instar_ledger::equivocation::Evidence;
use instar_ledger::grammar::{self, GrammarError, Kind, LanePayload, SignedLaneCommit};
use instar_ledger::lane::{Lane, MAX_ENTRIES_A_COMMIT, MAX_ENTRIES_BYTES};
use instar_ledger::sshsig::SshSig;
use instar_ledger::{Entry, MAX_ENTRY_BYTES, Oid};

/// Evidence fits an entry.
const MAX_EVIDENCE_BYTES: usize = MAX_ENTRY_BYTES;

/// Fails where something has two spellings. Says whether one of the decoders accepted the bytes.
pub fn run(data: &[u8]) -> bool {
    let chain = chain_in(data);
    // Each is tried: none takes what another one does.
    let accepted = [
        commit(data, &chain),
        payload(data, &chain),
        entries(data),
        evidence(data, &chain),
        armour(data),
    ];
    let _ = grammar::parents(data);
    let _ = grammar::is_genesis(data);
    assert!(accepted.iter().filter(|taken| **taken).count() <= 1);
    accepted.contains(&true)
}

/// The chain that the bytes say they are of: a commit's trailer, or an entry's field.
fn chain_in(data: &[u8]) -> ChainId {
    let behind = |word: &[u8]| {
        let at = data.windows(word.len()).position(|w| w == word)?;
        let hex = data.get(at + word.len()..)?.get(..64)?;
        std::str::from_utf8(hex).ok()?.parse().ok()
    };
    // Evidence holds payloads as text in JSON, with `\n` in two letters.
    let words: [&[u8]; 3] = [b"\nChain: ", b"\\nChain: ", b"\"chain\":\""];
    let chain = words.iter().find_map(|word| behind(word));
    chain.unwrap_or(ChainId::from_bytes([0; 32]))
}

fn commit(data: &[u8], chain: &ChainId) -> bool {
    let Ok(commit) = SignedLaneCommit::from_bytes(data, chain) else {
        return false;
    };
    assert_eq!(commit.to_bytes(), data);
    assert_eq!(commit.id(), Oid::of_object("commit", data));
    assert_eq!(grammar::parents(data).unwrap(), [commit.payload.parent]);
    true
}

fn payload(data: &[u8], chain: &ChainId) -> bool {
    let Ok(payload) = LanePayload::from_bytes(data, chain) else {
        return false;
    };
    assert_eq!(payload.to_bytes(), data);
    assert!((1..=MAX_ENTRIES_A_COMMIT).contains(&payload.entries));
    assert_eq!(payload.lane.to_string().parse::<Lane>(), Ok(payload.lane));
    let signed = payload.sign(&SecretKey::from_seed(&[7; 32])).unwrap();
    let bytes = signed.to_bytes();
    let read = SignedLaneCommit::from_bytes(&bytes, chain).unwrap();
    assert_eq!(read, signed);
    // Its tree is not there, and a commit is nothing without it.
    let nothing = |id: &Oid, _: Kind| match *id == read.id() {
        true => Ok(bytes.clone()),
        false => Err(GrammarError::Contradiction("not there")),
    };
    assert!(grammar::read_lane_commit(read.id(), chain, nothing).is_err());
    true
}

fn entries(data: &[u8]) -> bool {
    let Ok(entries) = grammar::read_entries(data, &chain_in(data)) else {
        return false;
    };
    assert!(data.len() <= MAX_ENTRIES_BYTES && entries.len() <= MAX_ENTRIES_A_COMMIT);
    assert_eq!(grammar::entries_jsonl(&entries).unwrap(), data);
    let lines = data.split(|b| *b == b'\n');
    let bound = |(entry, line): (&Entry, &[u8])| entry.to_line().as_bytes() == line;
    assert!(entries.iter().zip(lines).all(bound));
    true
}

fn evidence(data: &[u8], chain: &ChainId) -> bool {
    let Ok(evidence) = json::from_slice::<Evidence>(data, MAX_EVIDENCE_BYTES) else {
        return false;
    };
    assert_eq!(json::to_vec(&evidence).unwrap(), data);
    if let Ok(proven) = evidence.check(chain) {
        let texts = [&evidence.a, &evidence.b].map(|signed| signed.payload.as_bytes());
        assert!(texts[0] < texts[1]);
        for text in texts {
            let payload = LanePayload::from_bytes(text, chain).unwrap();
            assert_eq!((payload.lane, payload.seq), (proven.lane, proven.seq));
        }
    }
    true
}

fn armour(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let Ok(sig) = SshSig::from_armour(text) else {
        return false;
    };
    assert_eq!(sig.to_armour(), text);
    true
}
