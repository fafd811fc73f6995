//! The embedded IPFS peer and the data swarm.
//!
//! One libp2p peer a node, on the addresses that it was given and nowhere else: no mDNS, no
//! relay, no port mapping, and a DHT only where it is configured ([`dht`]). It speaks bitswap 1.2.0,
//! so that any IPFS implementation can fetch from it and be fetched from, and serves exactly what the node's one block store holds. Lane packs and
//! blocks travel over the same connections as short messages ([`gossip`]).
//!
//! Why bitswap is spoken here rather than by a library: one library keeps blocks only in a store
//! of its own, which would mean two copies on every disk; the other answers all wants of a peer in
//! one message, which exceeds its own limit as soon as a stock client asks for a file. Both take a
//! block's word for which peer lied. The protocol is three small protobuf messages.
//!
//! What this room doesn't know: what a message means, which DAGs matter, who is a validator.

pub mod config;

pub mod peer;

pub mod fetch;

pub mod sources;

pub mod pin;

pub mod delta;

pub mod dht;

pub mod gossip;

#[doc(hidden)]
pub mod fuzzing;

mod bitswap;
mod outbox;
mod streams;
mod swarm;
mod wire;

pub use config::{PeerConfig, peer_id_of};
pub use fetch::{FetchError, FetchOptions, FetchReport, Progress};
pub use gossip::{Fault, MAX_MESSAGE_BYTES, Message, PublishError, Subscription};
pub use libp2p::{Multiaddr, PeerId};
pub use peer::{Peer, PeerError};
pub use swarm::peer_in;
