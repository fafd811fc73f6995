//! Starts the engine and runs the loop until it is told to stop.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};

use crate::app::App;
use crate::app::sync::BATCH;
use crate::codec::{MAX_RESPONSE_BYTES, Wire};
use crate::config::Config;
use crate::context::{Address, Ctx, Members};
use crate::event::Event;
use crate::host::Host;
use crate::log::ProposalLog;
use crate::marks::{MarkError, Marks};
use crate::parts::Assembler;
use crate::signing::{Guarded, Strict};
use crate::work::WorkSignal;

/// How long the engine gets to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Rounds grow longer up to here.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

/// Why consensus ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The high-water mark can't be used, so nothing may be signed.
    #[error("the consensus key's high-water mark")]
    Marks(#[from] MarkError),
    /// The log of undecided proposals failed.
    #[error("the log of undecided proposals")]
    Log(#[source] io::Error),
    /// The engine did not start.
    #[error("the consensus engine did not start: {0}")]
    Engine(String),
    /// The network key is not usable.
    #[error("the network seed gives no key")]
    NetworkKey,
    /// The host skipped or repeated a height.
    #[error("height {decided} was decided, and the node wants to go on with {next}")]
    Next {
        /// The decided height.
        decided: u64,
        /// What the host answered.
        next: u64,
    },
    /// The engine finalized a height without deciding it.
    #[error("height {height} was finalized before it was decided")]
    Order {
        /// The height.
        height: u64,
    },
    /// The engine ended by itself; its log says why.
    #[error("the consensus engine stopped")]
    Stopped,
}

/// Runs consensus until `stop` becomes true, or until it can't go on.
pub async fn run<H: Host>(
    config: Config,
    host: H,
    work: WorkSignal,
    stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let (events, _) = mpsc::channel(1);
    run_with_events(config, host, work, events, stop).await
}

/// [`run`], and tells what happens. Events are lost when the channel is full.
pub async fn run_with_events<H: Host>(
    config: Config,
    mut host: H,
    work: WorkSignal,
    events: mpsc::Sender<Event>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let own = config.key.public();
    let marks = Marks::open(&config.marks_dir, own)?;
    let log = ProposalLog::open(&config.wal_dir).map_err(RunError::Log)?;
    let signer = Guarded::new(
        config.chain,
        config.key.clone(),
        Arc::new(Mutex::new(marks)),
    );
    let verifier = Strict {
        chain: config.chain,
    };
    let wire = Wire::default();
    let tips = Arc::clone(&wire.tips);
    let start = host.start().await;

    let (mut channels, mut engine) = open_engine(&config, &signer, &verifier, wire).await?;
    let mut engine_events = channels.events.subscribe();
    let mut app = App {
        host,
        own,
        signer,
        verifier,
        timeouts: linear(&config),
        network: channels.network.clone(),
        events,
        work: work.clone(),
        tips: Arc::clone(&tips),
        log,
        assembler: Assembler::new(config.chain),
        height: start.height,
        members: Members::from(&start.validators),
        running: false,
        next: None,
        held: None,
        active: 0,
        pending: BTreeMap::new(),
        growing: None,
        streams: 0,
    };
    let result = loop {
        tokio::select! {
            message = channels.consensus.recv() => match message {
                Some(message) => {
                    if let Err(error) = app.handle(message, &start).await {
                        break Err(error);
                    }
                }
                None => break Err(RunError::Stopped),
            },
            event = engine_events.recv() => match event {
                Ok(event) => app.observe(event),
                // What was missed is repeated by its sender, or replaced by a peer's status.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break Err(RunError::Stopped),
            },
            () = work.wait(), if app.held.is_some() => app.release(),
            () = tips.changed() => {
                app.look();
            }
            _ = stop.wait_for(|stop| *stop) => break Ok(()),
            _ = &mut engine.handle => break Err(RunError::Stopped),
        }
    };
    drop(channels);
    engine.actor.stop(None);
    if !engine.handle.is_finished() {
        let _ = tokio::time::timeout(END_TIMEOUT, &mut engine.handle).await;
    }
    result
}

fn linear(config: &Config) -> LinearTimeouts {
    let t = &config.timeouts;
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

async fn open_engine(
    config: &Config,
    signer: &Guarded,
    verifier: &Strict,
    wire: Wire,
) -> Result<(Channels<Ctx>, EngineHandle), RunError> {
    let own = config.key.public();
    let keypair =
        Keypair::ed25519_from_bytes(config.network_seed).map_err(|_| RunError::NetworkKey)?;
    let peer = keypair.public().to_peer_id().to_bytes();
    let engine = |e: &dyn std::fmt::Display| RunError::Engine(format!("{e:#}"));
    let proof = signer
        .sign_validator_proof(own.as_bytes().to_vec(), peer)
        .await;
    let proof = wire
        .encode(&proof.map_err(|e| engine(&e))?)
        .map_err(|e| engine(&e))?;
    let address = Address(own);
    let identity =
        NetworkIdentity::new_validator(config.moniker.clone(), keypair, address.to_string(), proof);
    let consensus = ConsensusContext::new_validator(
        address,
        Box::new(verifier.clone()),
        Box::new(signer.clone()),
    );
    start_engine(
        Ctx,
        engine_config(config),
        WalContext::new(config.wal_dir.join("consensus.wal"), wire.clone()),
        NetworkContext::new(identity, wire.clone()),
        consensus,
        SyncContext::new(wire),
        RequestContext::new(16),
    )
    .await
    .map_err(|e| engine(&e))
}
