//! Says in the DHT what the store keeps: the roots of its pins.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use instar_chunks::BlockStore;
use instar_ipfs::Peer;

/// How often the pins are looked at for new ones. The peer repeats what it was told by itself.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Announces each root that is pinned, once, until the peer is dropped. Without a DHT nobody is told.
pub(crate) async fn pins(peer: Peer, store: Arc<BlockStore>) {
    let mut told = HashSet::new();
    loop {
        let pins = {
            let store = Arc::clone(&store);
            tokio::task::spawn_blocking(move || store.pins()).await
        };
        match pins {
            Ok(Ok(pins)) => {
                for (_, root) in pins {
                    if told.insert(root) {
                        peer.provide(&root);
                    }
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the pins can't be read, so none are announced")
            }
            Err(_) => return,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
