//! Any bytes as the canonical line of an entry: what is accepted has one spelling, on one chain, and what only lacks its
//! author's signature is accepted once it is signed.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use instar_attest::{ChainId, SecretKey, json};
use instar_ledger::entry::{Entry, EntryError, MAX_ENTRY_BYTES};
use instar_ledger::grammar::{entries_jsonl, read_entries};

/// Fails on anything but an entry that is written as it came, or a named error. Says whether it was accepted.
pub fn run(data: &[u8]) -> bool {
    let nowhere = ChainId::from_bytes([0; 32]);
    let Ok(entry) = json::from_slice::<Entry>(data, MAX_ENTRY_BYTES) else {
        assert!(Entry::parse(data, &nowhere).is_err());
        return false;
    };
    let chain = entry.chain;
    assert_eq!(entry.to_line().as_bytes(), data);
    if chain != nowhere {
        let elsewhere = Entry::parse(data, &nowhere);
        assert!(matches!(elsewhere, Err(EntryError::OtherChain { .. })));
    }
    let parsed = Entry::parse(data, &chain);
    let signed = resigned(&entry);
    // A key and a signature have the same length in every entry, so that nothing but the signature can be wrong with it.
    match &parsed {
        Ok(read) => assert_eq!(*read, entry),
        Err(EntryError::Signature(_)) => assert!(signed.is_some()),
        Err(_) => assert!(signed.is_none()),
    }
    if let Some(signed) = signed {
        let line = signed.to_line();
        let read = Entry::parse(line.as_bytes(), &chain).unwrap();
        assert_eq!((&read, read.id()), (&signed, signed.id()));
        let file = entries_jsonl(&[signed.clone(), signed.clone()]).unwrap();
        assert_eq!(read_entries(&file, &chain).unwrap(), [read, signed]);
    }
    parsed.is_ok()
}

/// The same, said by somebody whose key is at hand.
fn resigned(entry: &Entry) -> Option<Entry> {
    let key = SecretKey::from_seed(&[7; 32]);
    let body = entry.body.clone();
    Entry::sign(&entry.chain, &key, entry.nonce, &entry.topic, body).ok()
}
