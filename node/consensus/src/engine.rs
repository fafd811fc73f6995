//! How the engine is set up: its network, its timeouts, its identity.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;
use malachite_app::config::NodeConfig;
use malachite_app::types::Keypair;
use malachite_channel::{
    Channels, ConsensusContext, EngineHandle, NetworkContext, NetworkIdentity, RequestContext,
    SyncContext, WalContext, start_engine,
};
use malachite_codec::Codec as _;
use malachite_config::{
    ChannelNames, ConsensusConfig, DiscoveryConfig, P2pConfig, ProtocolNames, ValueSyncConfig,
};
use malachite_signing::Signer as _;
use malachite_types::LinearTimeouts;

use instar_attest::{Digest, PublicKey};

use crate::app::sync::BATCH;
use crate::codec::{MAX_RESPONSE_BYTES, Wire};
use crate::config::{Config, Timeouts};
use crate::context::{Address, Ctx};
use crate::run::RunError;
use crate::signing::{Guarded, Strict};

/// The engine's write-ahead log, in the folder of the configuration.
pub(crate) const WAL_NAME: &str = "consensus.wal";
/// How long another engine on this folder may take to end.
const WAL_TIMEOUT: Duration = Duration::from_secs(5);
const WAL_PAUSE: Duration = Duration::from_millis(20);
/// Rounds grow longer up to here.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);
/// The domain of the network key of one session.
const SESSION_DOMAIN: &str = "instar/network-session/v1";
/// An address that is in no set: no signature of a key of small order is ever accepted.
pub(crate) const NOBODY: [u8; 32] = [0; 32];

pub(crate) fn linear(t: &Timeouts) -> LinearTimeouts {
    LinearTimeouts {
        propose: t.propose,
        propose_delta: t.propose_delta,
        prevote: t.prevote,
        prevote_delta: t.prevote_delta,
        precommit: t.precommit,
        precommit_delta: t.precommit_delta,
        rebroadcast: t.rebroadcast,
        max_timeout: MAX_TIMEOUT,
    }
}

struct EngineConfig {
    moniker: String,
    consensus: ConsensusConfig,
    value_sync: ValueSyncConfig,
}

impl NodeConfig for EngineConfig {
    fn moniker(&self) -> &str {
        &self.moniker
    }

    fn consensus(&self) -> &ConsensusConfig {
        &self.consensus
    }

    fn consensus_mut(&mut self) -> &mut ConsensusConfig {
        &mut self.consensus
    }

    fn value_sync(&self) -> &ValueSyncConfig {
        &self.value_sync
    }

    fn value_sync_mut(&mut self) -> &mut ValueSyncConfig {
        &mut self.value_sync
    }
}

/// The swarm's names carry the kernel and the chain, so that two chains on one machine never share a topic.
fn engine_config(config: &Config) -> EngineConfig {
    let chain = &config.chain.to_hex()[..16];
    let name = |what: &str| format!("/instar/1/{chain}/{what}");
    let p2p = P2pConfig {
        listen_addr: config.listen.clone(),
        persistent_peers: config.peers.clone(),
        persistent_peers_only: false,
        discovery: DiscoveryConfig {
            enabled: false,
            // Validators of one machine share an address, and come back at once after a restart.
            max_connections_per_ip: 1024,
            ip_throttle_duration: Duration::ZERO,
            ..DiscoveryConfig::default()
        },
        rpc_max_size: ByteSize::b(MAX_RESPONSE_BYTES as u64 + 64 * 1024),
        pubsub_max_size: ByteSize::kib(512),
        protocol_names: ProtocolNames {
            consensus: name("consensus"),
            discovery_kad: name("kad"),
            discovery_regres: name("discovery"),
            sync: name("sync"),
            validator_proof: name("validator-proof"),
        },
        channel_names: ChannelNames {
            consensus: name("topic/consensus"),
            proposal_parts: name("topic/parts"),
            sync: name("topic/sync"),
            liveness: name("topic/liveness"),
        },
        ..P2pConfig::default()
    };
    EngineConfig {
        moniker: config.moniker.clone(),
        consensus: ConsensusConfig {
            p2p,
            ..ConsensusConfig::default()
        },
        value_sync: ValueSyncConfig {
            status_update_interval: config.timeouts.status,
            max_response_size: ByteSize::b(MAX_RESPONSE_BYTES as u64),
            batch_size: BATCH as usize,
            ..ValueSyncConfig::default()
        },
    }
}

/// Waits until nobody holds the write-ahead log: an engine that ended lets it go a little later, and one that finds it
/// held panics.
pub(crate) async fn wait_for_wal(config: &Config) -> Result<(), RunError> {
    let path = config.wal_dir.join(WAL_NAME);
    let end = Instant::now() + WAL_TIMEOUT;
    loop {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(RunError::Wal(error)),
        };
        match file.try_lock() {
            // Closing the file gives the lock back.
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(RunError::Wal(error)),
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                tokio::time::sleep(WAL_PAUSE).await;
            }
            Err(TryLockError::WouldBlock) => return Err(RunError::Busy { path }),
        }
    }
}

/// Every session has a network key of its own. A peer that still sees the connection of a session before (a machine
/// that lost power closes nothing) would take a second one of the same name for more of the same, and never tell it
/// what it subscribes to: the new session would hear everything and reach nobody.
fn session_seed(config: &Config) -> [u8; 32] {
    static SESSIONS: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let mut bytes = config.network_seed.to_vec();
    bytes.extend(now.to_be_bytes());
    bytes.extend(std::process::id().to_be_bytes());
    bytes.extend(SESSIONS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    *Digest::tagged(SESSION_DOMAIN, &bytes).as_bytes()
}

/// Starts the engine: with a signer as a validator, without one as somebody who only follows.
pub(crate) async fn open(
    config: &Config,
    signer: Option<&Guarded>,
    verifier: &Strict,
    wire: Wire,
) -> Result<(Channels<Ctx>, EngineHandle), RunError> {
    let seed = session_seed(config);
    let keypair = Keypair::ed25519_from_bytes(seed).map_err(|_| RunError::NetworkKey)?;
    let failed = |e: &dyn std::fmt::Display| RunError::Engine(format!("{e:#}"));
    let verifier = Box::new(verifier.clone());
    let moniker = config.moniker.clone();
    let (identity, consensus) = match signer {
        Some(signer) => {
            let own = config.key.public();
            let peer = keypair.public().to_peer_id().to_bytes();
            let proof = signer
                .sign_validator_proof(own.as_bytes().to_vec(), peer)
                .await;
            let proof = wire
                .encode(&proof.map_err(|e| failed(&e))?)
                .map_err(|e| failed(&e))?;
            let address = Address(own);
            let name = address.to_string();
            let identity = NetworkIdentity::new_validator(moniker, keypair, name, proof);
            let signer = Box::new(signer.clone());
            (
                identity,
                ConsensusContext::new_validator(address, verifier, signer),
            )
        }
        None => {
            let nobody = Address(PublicKey::from_bytes(NOBODY));
            let identity = NetworkIdentity::new(moniker, keypair, None);
            (identity, ConsensusContext::new_full_node(nobody, verifier))
        }
    };
    start_engine(
        Ctx,
        engine_config(config),
        WalContext::new(config.wal_dir.join(WAL_NAME), wire.clone()),
        NetworkContext::new(identity, wire.clone()),
        consensus,
        SyncContext::new(wire),
        RequestContext::new(16),
    )
    .await
    .map_err(|e| failed(&e))
}
