//! Any bytes as what a dapp says: a line of its conversation, or its manifest.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use instar_runtime::{ABI, Manifest, fuzzing};

/// Fails where what was understood is over a bound of receipts, or a manifest has changed when it was written. Says whether
/// the bytes were understood.
pub fn run(data: &[u8]) -> bool {
    let said = fuzzing::line(data);
    let Ok(manifest) = Manifest::parse(data) else {
        return said;
    };
    assert!(!said, "a line that is a manifest too");
    assert_eq!(manifest.abi, ABI);
    assert!(manifest.command[0].starts_with('/'));

    let written = serde_json::to_vec(&manifest).unwrap();
    assert_eq!(Manifest::parse(&written).as_ref(), Ok(&manifest));
    true
}
