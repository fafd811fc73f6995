//! What a peer is started with.

use std::fmt;
use std::sync::Arc;

use crate::dht::DhtConfig;
use instar_chunks::Blocks;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};

/// The node's one block store, as the peer sees it.
pub type SharedBlocks = Arc<dyn Blocks + Send + Sync>;

/// Identity, address and store of a peer.
#[derive(Clone)]
pub struct PeerConfig {
    /// Seed of the Ed25519 key behind the peer id. It signs nothing but connections.
    pub seed: [u8; 32],
    /// The one address to listen on, e.g. `/ip4/127.0.0.1/tcp/0`.
    pub listen: Multiaddr,
    /// What is served, and where fetched blocks go.
    pub store: SharedBlocks,
    /// The DHT to find content in, and to say in what this peer has; none by default.
    pub dht: Option<DhtConfig>,
}

impl fmt::Debug for PeerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The seed is a secret.
        f.debug_struct("PeerConfig")
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// The peer id that a seed gives, so that addresses can be written down before a peer runs.
pub fn peer_id_of(seed: &[u8; 32]) -> PeerId {
    keypair(seed).public().to_peer_id()
}

pub(crate) fn keypair(seed: &[u8; 32]) -> Keypair {
    // The constructor wipes what it is given, hence the copy.
    let mut bytes = *seed;
    Keypair::ed25519_from_bytes(&mut bytes).expect("every 32 bytes are an Ed25519 seed")
}
