//! Any bytes as final blocks that a node hands over: what is accepted is written again as it came.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use instar_ledger::certificate::MAX_CERTIFICATE_BYTES;
use instar_ledger::pack;
use instar_ledger::sync::{self, MAX_SYNC_BLOCKS, MAX_SYNC_BYTES};

/// Fails where an answer changes or is more than came in. Says whether it was accepted.
pub fn run(data: &[u8]) -> bool {
    let Ok(blocks) = sync::read(data) else {
        return false;
    };
    assert!(data.len() <= MAX_SYNC_BYTES && blocks.len() <= MAX_SYNC_BLOCKS);
    let mut again = Vec::new();
    for block in &blocks {
        let certificate = block.certificate.to_bytes().unwrap();
        assert!(certificate.len() <= MAX_CERTIFICATE_BYTES);
        assert!(sync::push(&mut again, &certificate, &block.pack));
        let _ = pack::read(&block.pack, MAX_SYNC_BYTES);
    }
    assert_eq!(again, data);
    true
}
