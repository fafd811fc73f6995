//! What the node tells consensus.

use std::path::PathBuf;
use std::time::Duration;

use instar_attest::{ChainId, SecretKey};
use multiaddr::Multiaddr;

/// How long a round waits, and for what. Each grows with the round by its `_delta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the proposal and its merge test.
    pub propose: Duration,
    /// Added to `propose` in each later round.
    pub propose_delta: Duration,
    /// For more prevotes, once two thirds are there without agreement.
    pub prevote: Duration,
    /// Added to `prevote` in each later round.
    pub prevote_delta: Duration,
    /// For more precommits, once two thirds are there without agreement.
    pub precommit: Duration,
    /// Added to `precommit` in each later round.
    pub precommit_delta: Duration,
    /// After this long without progress, votes are sent again.
    pub rebroadcast: Duration,
    /// How often a node tells its peers its height.
    pub status: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        // A dead proposer costs 0.7 s. The deltas let slow machines find a round that is long enough.
        Self {
            propose: Duration::from_millis(500),
            propose_delta: Duration::from_millis(250),
            prevote: Duration::from_millis(200),
            prevote_delta: Duration::from_millis(100),
            precommit: Duration::from_millis(200),
            precommit_delta: Duration::from_millis(100),
            rebroadcast: Duration::from_millis(1_500),
            status: Duration::from_millis(1_000),
        }
    }
}

/// Everything consensus needs to know at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// In every signed byte string.
    pub chain: ChainId,
    /// The consensus key. Its public half is the validator's identity; a node whose key is in no set follows.
    pub key: SecretKey,
    /// The secret that the swarm's own Ed25519 keys come from, one each start. They name the peer and sign nothing of the
    /// chain.
    pub network_seed: [u8; 32],
    /// Where to listen, such as `/ip4/127.0.0.1/tcp/27000`. Nothing else is opened.
    pub listen: Multiaddr,
    /// The peers to stay connected with: the addresses they listen on, without `/p2p/…`, since a peer's name is new at
    /// each start. No others are looked for.
    pub peers: Vec<Multiaddr>,
    /// For the write-ahead log and the undecided proposals.
    pub wal_dir: PathBuf,
    /// For the high-water mark; outside anything that a snapshot or a restore rolls back.
    pub marks_dir: PathBuf,
    /// This node's name in logs.
    pub moniker: String,
    /// Timeouts.
    pub timeouts: Timeouts,
}
