//! A peer on the data swarm hands a validator what no honest node sends: each is refused by name, the peer is not listened to
//! any more, and the chain goes on.

use std::sync::Arc;

use instar::client::Client;
use instar::demo::stage::{PATIENCE, Stage};
use instar::demo::traffic::account_key;
use instar::demo::{VALIDATORS, wait};
use instar_chunks::MemoryBlocks;
use instar_ipfs::{Peer, PeerConfig};
use instar_ledger::grammar::Kind;
use instar_ledger::{Entry, Oid, pack};
use serde_json::{Value, json};

const LANES_TOPIC: &str = "instar/lanes/v1";

pub fn hostile_peer() {
    super::with_chain(|_| {}, attack);
}

fn attack(stage: &mut Stage<'_>) {
    let client = stage.clients[0].clone();
    // Another one's: what a node hears of its own lane it knows already.
    let device = stage.clients[1]
        .status()
        .unwrap()
        .lane
        .lane
        .device
        .to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let peer = runtime.block_on(stranger(&client));
    for message in messages(&device) {
        runtime.block_on(async { peer.publish(LANES_TOPIC, &message).unwrap() });
    }
    wait::until("the node stops listening to the peer", PATIENCE, || {
        let metrics = client.find_bytes("/metrics")?.unwrap_or_default();
        let metrics = String::from_utf8(metrics)?;
        Ok(metrics.contains("instar_resting_peers 1\n").then_some(()))
    })
    .unwrap();
    let log = std::fs::read_to_string(stage.validators[0].log()).unwrap();
    for said in [
        "without a first line",
        "not a whole version 2 pack",
        "checksum does not hold",
        "only whole commits, trees and blobs",
        "would inflate to",
        "is not registered",
        "it is not listened to for a while",
    ] {
        assert!(log.contains(said), "{said:?} is not in the log:\n{log}");
    }
    // Nobody else is held to it, and the chain goes on.
    assert_eq!(stage.clients.len(), VALIDATORS);
    for client in &stage.clients[1..] {
        let metrics = client.find_bytes("/metrics").unwrap().unwrap_or_default();
        assert!(String::from_utf8_lossy(&metrics).contains("instar_resting_peers 0\n"));
    }
    let entry = Entry::sign(
        &stage.chain,
        &account_key(0),
        0,
        "note",
        json!({"said": "still here"}),
    );
    let entry = entry.unwrap();
    client.submit(&entry.to_line()).unwrap();
    let path = format!("/v1/receipts/{}?wait_ms=10000", entry.id());
    wait::until("an entry becomes final", PATIENCE, || {
        Ok(client.find::<Value>(&path)?.map(drop))
    })
    .unwrap();
}

/// A peer that nobody knows, connected to the first validator alone.
async fn stranger(client: &Client) -> Peer {
    let peers: Value = client.get("/v1/peers").unwrap();
    let address = peers[0]["data"].as_str().unwrap().parse().unwrap();
    let config = PeerConfig {
        seed: [9; 32],
        listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
        store: Arc::new(MemoryBlocks::default()),
        dht: None,
    };
    let peer = Peer::start(config).await.unwrap();
    peer.connect(address);
    let mut connected = peer.watch_connected();
    while connected.borrow_and_update().is_empty() {
        connected.changed().await.unwrap();
    }
    peer
}

/// Messages of lanes that are none.
fn messages(device: &str) -> Vec<Vec<u8>> {
    let head = Oid::from_bytes([1; 32]);
    let of = |device: &str, pack: &[u8]| {
        let lane = json!({"device": device, "incarnation": 1});
        let mut message = json!({"head": head, "lane": lane}).to_string().into_bytes();
        message.push(b'\n');
        message.extend_from_slice(pack);
        message
    };
    let blob = pack::write([(Kind::Blob, &b"nobody names this"[..])]);
    let mut torn = blob.clone();
    let last = torn.len() - 1;
    torn[last] ^= 1;
    // A blob that says that it has two gigabytes, and one that is a delta: the kind stands in bits 4 to 6.
    let mut bomb = blob.clone();
    bomb.splice(12..13, [0xb0 | (bomb[12] & 0x0f), 0xff, 0xff, 0xff, 0x7f]);
    let mut delta = blob.clone();
    delta[12] = 0xf0 | (delta[12] & 0x0f);
    vec![
        b"no line at all".to_vec(),
        b"{\"head\":\n".to_vec(),
        of(device, b"PACK"),
        of(device, &torn),
        of(device, &sealed(bomb)),
        of(device, &sealed(delta)),
        of(device, &blob),
        of(&"ab".repeat(32), &blob),
        vec![b'x'; 3 << 20],
        of(device, &vec![0; 1 << 20]),
        of(device, b""),
    ]
}

/// The same with a checksum that holds.
fn sealed(mut pack: Vec<u8>) -> Vec<u8> {
    pack.truncate(pack.len() - 32);
    let sum = instar_attest::Digest::of(&pack);
    pack.extend_from_slice(sum.as_bytes());
    pack
}
