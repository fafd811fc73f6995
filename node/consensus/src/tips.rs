//! How far the peers say they are.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use malachite_app::types::PeerId;
use tokio::sync::Notify;

/// Peers whose height is remembered. A validator has far fewer.
const MAX_PEERS: usize = 1024;

/// The newest height that each peer named. A claim, not a proof: it is a reason to look, and nothing more.
#[derive(Debug, Default)]
pub(crate) struct Tips {
    heights: Mutex<BTreeMap<PeerId, u64>>,
    changed: Notify,
}

impl Tips {
    pub(crate) fn note(&self, peer: PeerId, height: u64) {
        let mut heights = self.heights.lock().unwrap_or_else(PoisonError::into_inner);
        if heights.len() >= MAX_PEERS && !heights.contains_key(&peer) {
            return;
        }
        if heights.insert(peer, height) != Some(height) {
            self.changed.notify_one();
        }
    }

    /// The highest claim.
    pub(crate) fn highest(&self) -> u64 {
        let heights = self.heights.lock().unwrap_or_else(PoisonError::into_inner);
        heights.values().copied().max().unwrap_or(0)
    }

    /// Waits for a claim that is new.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
