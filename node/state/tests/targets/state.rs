//! Any bytes as a chunk of a snapshot, or as a proof about the vectors' state.
//!
//! No fuzzer finds a root, so a chunk is checked against the one that it leads to. A proof stands behind its key, a newline,
//! the value's length in one byte (255 if the key is said to have none), and the value; it is checked against a root whose
//! state is known, so that a proof of anything else is a lie.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use instar_attest::Digest;
use instar_state::proof::{self, MAX_PROOF_BYTES};
use instar_state::snapshot::{self, ChunkError, MAX_CHUNK_BYTES};

/// The root of the vectors, and what its state holds.
static STATE: LazyLock<(Digest, BTreeMap<String, Vec<u8>>)> = LazyLock::new(|| {
    let vectors = include_str!("../vectors/proofs.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
    let root = vectors["root"].as_str().unwrap().parse().unwrap();
    let balances = (0..40u8).map(|i| {
        let key = format!("d/coin/balance/{}", Digest::of(&[i]));
        (key, format!("{}", u32::from(i) * 7).into_bytes())
    });
    let native = [
        ("n/head".to_owned(), b"{\"height\":0}".to_vec()),
        ("n/policy".to_owned(), vec![b'p'; 3000]),
    ];
    (root, balances.chain(native).collect())
});

/// Fails where a chunk holds more than its bytes say, or a proof shows what is not so. Says whether either was accepted.
pub fn run(data: &[u8]) -> bool {
    chunk(data) || proven(data)
}

fn chunk(data: &[u8]) -> bool {
    let nowhere = Digest::from_bytes([0; 32]);
    let Err(ChunkError::OtherRoot { got, .. }) = snapshot::check(&nowhere, data) else {
        return false;
    };
    let chunk = snapshot::check(&got, data).unwrap();
    assert!(data.len() <= MAX_CHUNK_BYTES);
    // Every byte is accounted for: the magic, the place, the siblings, the count, the leaves.
    let depth = usize::from(chunk.prefix().depth());
    let leaves = chunk
        .pairs()
        .map(|(key, value)| 6 + key.len() + value.len());
    let length = 16 + 2 + depth.div_ceil(8) + depth * 32 + 4 + leaves.sum::<usize>();
    assert_eq!(length, data.len());
    let keys: BTreeMap<&str, &[u8]> = chunk.pairs().collect();
    assert_eq!(keys.len(), chunk.pairs().count());
    // Another byte at the end is another value or another length.
    let mut other = data.to_vec();
    if let (Some(last), true) = (other.last_mut(), keys.values().any(|v| !v.is_empty())) {
        *last ^= 1;
        assert!(snapshot::check(&got, &other).is_err());
    }
    true
}

fn proven(data: &[u8]) -> bool {
    let (root, state) = &*STATE;
    let Some(end) = data.iter().position(|b| *b == b'\n') else {
        return false;
    };
    let Ok(key) = std::str::from_utf8(&data[..end]) else {
        return false;
    };
    let Some((length, rest)) = data[end + 1..].split_first() else {
        return false;
    };
    let (value, proof) = match length {
        255 => (None, rest),
        length => {
            let (value, proof) = rest.split_at(usize::from(*length).min(rest.len()));
            (Some(value), proof)
        }
    };
    if proof::check(root, key, value, proof).is_err() {
        return false;
    }
    assert!(proof.len() <= MAX_PROOF_BYTES);
    assert_eq!(
        state.get(key).map(Vec::as_slice),
        value,
        "a lie about {key}"
    );
    true
}
