//! Any bytes as a certificate, and behind a newline, which no canonical JSON holds, a validator set to check it against.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use instar_attest::{ChainId, json};
use instar_ledger::validators::{MAX_VALIDATORS, ValidatorSet};
use instar_ledger::{Certificate, CertificateError};

/// What the daemon and the command line allow for a set: see [`MAX_VALIDATORS`].
const MAX_SET_BYTES: usize = 64 * 1024;

/// Fails where a certificate is written otherwise than it came, or certifies without more than two thirds. Says whether
/// both parts were accepted.
pub fn run(data: &[u8]) -> bool {
    let mut parts = data.splitn(2, |b| *b == b'\n');
    let certificate = parts.next().and_then(certificate);
    let set = parts.next().map(set);
    let (Some(certificate), Some(Some(set))) = (&certificate, &set) else {
        return certificate.is_some() && set.is_none();
    };
    let chain = ChainId::from_bytes([0xC4; 32]);
    let power = certificate.verify_power(set);
    if power.is_ok() {
        let signers: BTreeSet<_> = certificate.signatures.iter().map(|s| s.validator).collect();
        // Everybody counts once, and strangers not at all.
        assert_eq!(signers.len(), certificate.signatures.len());
        assert!(signers.iter().all(|key| set.power_of(key).is_some()));
        let signed: u128 = set
            .iter()
            .filter(|v| signers.contains(&v.key))
            .map(|v| u128::from(v.power))
            .sum();
        let total: u128 = set.iter().map(|v| u128::from(v.power)).sum();
        assert!(signed * 3 > total * 2);
    }
    match certificate.verify(&chain, set) {
        Ok(()) => assert!(power.is_ok() && certificate.verify_signatures(&chain).is_ok()),
        Err(CertificateError::Signature { .. }) => assert!(power.is_ok()),
        Err(_) => assert!(power.is_err()),
    }
    true
}

fn certificate(bytes: &[u8]) -> Option<Certificate> {
    let read = Certificate::from_bytes(bytes).ok()?;
    assert_eq!(read.to_bytes().unwrap(), bytes);
    Some(read)
}

fn set(bytes: &[u8]) -> Option<ValidatorSet> {
    let read: ValidatorSet = json::from_slice(bytes, MAX_SET_BYTES).ok()?;
    assert_eq!(json::to_vec(&read).unwrap(), bytes);
    assert!((1..=MAX_VALIDATORS).contains(&read.len()));
    assert!(read.as_slice().windows(2).all(|w| w[0].key < w[1].key));
    Some(read)
}
