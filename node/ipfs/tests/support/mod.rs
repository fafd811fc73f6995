//! Peers on loopback, each with a store of its own.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use instar_chunks::{BlockStore, Cid, Profile, add_file};
use instar_ipfs::dht::DhtConfig;
use instar_ipfs::{Multiaddr, Peer, PeerConfig};

pub struct Node {
    pub peer: Peer,
    pub store: Arc<BlockStore>,
    pub seed: [u8; 32],
    pub dir: tempfile::TempDir,
}

impl Node {
    pub async fn start(seed: u8) -> Self {
        Self::start_in(seed, None).await
    }

    /// A node that takes part in a DHT, if one is given.
    pub async fn start_in(seed: u8, dht: Option<DhtConfig>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(BlockStore::open(&dir.path().join("blocks")).unwrap());
        let seed = [seed; 32];
        let listen = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        let peer = peer(seed, listen, &store, dht).await;
        Self {
            peer,
            store,
            seed,
            dir,
        }
    }

    pub fn address(&self) -> Multiaddr {
        self.peer.addresses()[0].clone()
    }

    pub fn add(&self, content: &[u8]) -> Cid {
        let mut batch = self.store.batch();
        let cid = add_file(
            Profile::InstarCdcV1,
            &mut &content[..],
            &mut |cid, block| batch.put(cid, block),
        )
        .unwrap()
        .cid;
        batch.commit().unwrap();
        cid
    }
}

pub async fn peer(
    seed: [u8; 32],
    listen: Multiaddr,
    store: &Arc<BlockStore>,
    dht: Option<DhtConfig>,
) -> Peer {
    let store = Arc::clone(store);
    Peer::start(PeerConfig {
        seed,
        listen,
        store,
        dht,
    })
    .await
    .unwrap()
}

/// `count` peers, each told the addresses of all others.
pub async fn mesh(count: u8) -> Vec<Node> {
    let mut nodes = Vec::new();
    for seed in 1..=count {
        nodes.push(Node::start(seed).await);
    }
    for one in &nodes {
        for other in &nodes {
            one.peer.connect(other.address());
        }
    }
    for node in &nodes {
        connected(&node.peer, usize::from(count) - 1).await;
    }
    nodes
}

pub async fn connected(peer: &Peer, count: usize) {
    until("peers to connect", || peer.connected().len() == count).await;
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "waited for {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}
