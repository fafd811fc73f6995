//! Starting a node: the one place where all adapters meet.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use instar_attest::{Digest, Purpose, SecretKey};
use instar_chunks::BlockStore;
use instar_consensus::WorkSignal;
use instar_ipfs::{Multiaddr, Peer, PeerConfig};
use instar_runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::core::Core;
use crate::core::open::OpenError;
use crate::deltas::{Between, Maker};
use crate::home::{Home, HomeError};
use crate::node::{MAX_QUEUE, Node, Shared};
use crate::snapshots::{self, Snapshots};
use crate::watchdog::{self, Signs};
use crate::{announce, api, follow, fresh, gossip, host, prune, supervised, trim, upgrade};

/// What a node is started with.
pub struct NodeOptions {
    /// Its home folder.
    pub home: PathBuf,
    /// The codename compiled into the program.
    pub codename: String,
}

/// Why a node did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The home or one of its stores.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The HTTP API could not listen.
    #[error("the HTTP API can't listen on {address}: {why}")]
    Listen {
        /// The address in `node.json`.
        address: String,
        /// Why.
        why: String,
    },
    /// The data swarm.
    #[error("the data swarm: {0}")]
    Data(String),
    /// The watchdog's thread.
    #[error("the watchdog did not start")]
    Watchdog(#[source] std::io::Error),
    /// Consensus ended.
    #[error("consensus: {0}")]
    Consensus(String),
}

impl From<HomeError> for NodeError {
    fn from(e: HomeError) -> Self {
        Self::Open(e.into())
    }
}

/// A seed for a network identity: derived from a key, so that a peer id stays, and of no use for signing anything else.
fn network_seed(key: &SecretKey, purpose: &str) -> [u8; 32] {
    *Digest::tagged(
        &format!("instar/network-identity/v1/{purpose}"),
        &*key.expose_seed(),
    )
    .as_bytes()
}

/// How many files a node may have open: each follower holds a connection, and may hold it for days.
const MAX_OPEN_FILES: u64 = 65_536;

/// Takes what the system gives without asking anybody: shells hand down a limit of a thousand, for programs of another time.
fn allow_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = hard.min(MAX_OPEN_FILES).max(soft);
        // Refused, it stays as it was.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
    }
}

/// Runs a node until it is told to stop.
pub async fn run(options: NodeOptions) -> Result<(), NodeError> {
    trim::bound();
    allow_open_files();
    let home = Home::new(options.home);
    home.create()?;
    let config = home.config()?;
    let token = home.token()?;
    let blocks =
        Arc::new(BlockStore::open(&home.blocks()).map_err(|e| NodeError::Data(e.to_string()))?);
    let runtime = Runtime::new(&home.images(), Arc::clone(&blocks))
        .map_err(|e| NodeError::Data(e.to_string()))?;
    let core = Core::open(&home, runtime, config.states_kept)?;
    if let Some(dht) = &config.dht {
        dht.check()
            .map_err(|e| NodeError::Data(format!("node.json: dht: {e}")))?;
    }
    let signer = home.key(Purpose::Consensus)?;
    let peer = Peer::start(PeerConfig {
        seed: network_seed(&signer, "data"),
        listen: config
            .data
            .parse()
            .map_err(|e| NodeError::Data(format!("{}: {e}", config.data)))?,
        store: blocks.clone(),
        dht: config.dht.clone(),
    })
    .await
    .map_err(|e| NodeError::Data(e.to_string()))?;
    for other in &config.peers {
        let address: Multiaddr = other
            .data
            .parse()
            .map_err(|e| NodeError::Data(format!("{}: {e}", other.data)))?;
        peer.connect(address);
    }
    let program = std::env::current_exe().map_err(|e| NodeError::Data(e.to_string()))?;
    let deltas = Maker::start(blocks.clone(), &home.deltas(), program, Between::Releases)
        .map_err(|e| NodeError::Data(format!("{}: {e}", home.deltas().display())))?;
    peer.offer_deltas(Arc::new(deltas));
    let snapshots = Snapshots::open(&home, &blocks)
        .map_err(|e| NodeError::Data(format!("{}: {e}", home.snapshots().display())))?;
    let (lane, queue) = mpsc::channel(MAX_QUEUE);
    let first_height = core.head().height;
    let (height, _) = watch::channel(first_height);
    let (stop, mut stopped) = watch::channel(false);
    let node: Shared = Arc::new(Node {
        chain: core.chain(),
        git: instar_ledger::http::UploadPack::new(&home.ledger()),
        state: core.state(),
        snapshots,
        answers: Default::default(),
        codename: options.codename,
        token,
        blocks,
        peer,
        work: WorkSignal::new(),
        first_height,
        height,
        lane,
        supervision: Mutex::default(),
        stop,
        fresh: Default::default(),
        signer,
        metrics: Arc::clone(&core.metrics),
        signs: Signs::default(),
        home,
        config,
        core: Mutex::new(core),
    });
    let listener = tokio::net::TcpListener::bind(node.config.http)
        .await
        .map_err(|e| NodeError::Listen {
            address: node.config.http.to_string(),
            why: e.to_string(),
        })?;
    tracing::info!(chain = %node.chain, height = node.height(), http = %node.config.http, "node starts");

    watchdog::watch(&node).map_err(NodeError::Watchdog)?;
    let _reporter = supervised::report_health(&node);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(gossip::lane_loop(Arc::clone(&node), queue));
    tasks.spawn(gossip::receive_loop(Arc::clone(&node)));
    tasks.spawn(gossip::again_loop(Arc::clone(&node)));
    tasks.spawn(upgrade::upgrade_loop(Arc::clone(&node)));
    tasks.spawn(fresh::ask_loop(Arc::clone(&node)));
    if node.config.dht.is_some() {
        tasks.spawn(announce::pins(node.peer.clone(), Arc::clone(&node.blocks)));
    }
    tasks.spawn(snapshots::snapshot_loop(Arc::clone(&node)));
    tasks.spawn(watchdog::turn(Arc::clone(&node)));
    tasks.spawn(prune::prune_loop(Arc::clone(&node)));
    tasks.spawn(trim::trim_loop());
    let (events, told) = mpsc::channel(watchdog::MAX_EVENTS);
    tasks.spawn(watchdog::count(Arc::clone(&node), told));
    let router = api::router(Arc::clone(&node));
    tasks.spawn(async move {
        if let Err(e) = axum::serve(listener, router).await {
            tracing::error!(error = %e, "the HTTP API ended");
        }
    });
    let consensus = consensus_config(&node)?;
    let work = node.work.clone();
    let engine = async {
        follow::until_validator(&node).await;
        node.signs.engine_begins();
        instar_consensus::run(
            consensus,
            host::NodeHost(Arc::clone(&node)),
            work,
            events,
            node.stop.subscribe(),
        )
        .await
    };
    let ended = tokio::select! {
        result = engine => result.map_err(|e| NodeError::Consensus(e.to_string())),
        () = terminated() => Ok(()),
        _ = stopped.wait_for(|s| *s) => Ok(()),
        Some(_) = tasks.join_next() => Err(NodeError::Consensus("one of the node's loops ended".into())),
    };
    node.stop.send_replace(true);
    // The lock is taken once more, so that nothing is in the middle of a write when the process ends.
    node.with_core(|core| core.dapps().shutdown()).await;
    ended
}

pub(crate) async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut term) => {
            tokio::select! {
                _ = term.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(_) => std::future::pending().await,
    }
}

fn consensus_config(node: &Shared) -> Result<instar_consensus::Config, NodeError> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|e| NodeError::Consensus(format!("{text}: {e}")))
    };
    Ok(instar_consensus::Config {
        chain: node.chain,
        key: node.signer.clone(),
        network_seed: network_seed(&node.signer, "consensus"),
        listen: parse(&node.config.consensus)?,
        peers: node
            .config
            .peers
            .iter()
            .map(|p| parse(&p.consensus))
            .collect::<Result<_, _>>()?,
        wal_dir: node.home.wal(),
        marks_dir: node.home.marks(),
        moniker: node.config.name.clone(),
        timeouts: Default::default(),
    })
}
