//! The peer: start, connect, fetch, publish, stop.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use futures::StreamExt;
use instar_chunks::Limits;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::bitswap::wants::Wants;
use crate::bitswap::{self, Bitswap};
use crate::config::{PeerConfig, peer_id_of};
use crate::delta::{self, Ask, AskError, Asked, DeltaExchange, Deltas};
use crate::fetch::{self, FetchError, FetchOptions, FetchReport};
use crate::gossip::{self, Fault, Gossip, Message, PublishError, Subscription};
use crate::outbox::Outbox;
use crate::streams::{Incoming, Streams};
use crate::swarm::{self, Change, Command, Driver};
use crate::wire::Gate;

/// How long the operating system may take to open the listening socket.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a peer can't start.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The transport can't be set up.
    #[error("the transport can't be set up")]
    Transport(#[source] Box<dyn Error + Send + Sync>),
    /// The address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A running peer. Clones are handles to the same one; it stops when the last is dropped or on
/// [`Peer::shutdown`].
#[derive(Clone)]
pub struct Peer {
    shared: Arc<Shared>,
}

struct Shared {
    id: PeerId,
    addresses: Vec<Multiaddr>,
    commands: mpsc::UnboundedSender<Command>,
    connected: watch::Receiver<Vec<PeerId>>,
    bitswap: Arc<Bitswap>,
    gossip: Arc<Gossip>,
    deltas: Arc<DeltaExchange>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer({})", self.shared.id)
    }
}

impl Peer {
    /// Starts a peer; it listens when this returns.
    pub async fn start(config: PeerConfig) -> Result<Self, PeerError> {
        let (streams, opener, accepted) =
            Streams::new(vec![bitswap::PROTOCOL, gossip::PROTOCOL, delta::PROTOCOL]);
        let mut swarm = swarm::build(&config.seed, streams, config.dht.as_ref())?;
        let addresses = listen(&mut swarm, &config.listen).await?;
        let (commands, received) = mpsc::unbounded_channel();
        let bitswap = Arc::new(Bitswap {
            store: config.store,
            routing: config.dht.is_some().then(|| commands.clone()),
            outbox: Outbox::new(bitswap::PROTOCOL, opener.clone()),
            wants: Arc::new(Wants::default()),
        });
        let gossip = Arc::new(Gossip::new(Outbox::new(gossip::PROTOCOL, opener.clone())));
        let deltas = Arc::new(DeltaExchange::new(opener));
        let gate = Arc::new(Gate::new());
        let (connected_now, connected) = watch::channel(Vec::new());
        let on_change = {
            let (bitswap, gossip) = (Arc::clone(&bitswap), Arc::clone(&gossip));
            let gate = Arc::clone(&gate);
            move |change| match change {
                Change::Connected(peer) => gossip.on_connected(peer),
                Change::Disconnected(peer) => {
                    gate.drop_peer(&peer);
                    gossip.on_disconnected(peer);
                    bitswap.outbox.drop_peer(&peer);
                    bitswap.wants.on_disconnect(peer);
                }
            }
        };
        let driver = Driver::new(swarm, received, connected_now, Box::new(on_change));
        let tasks = vec![
            tokio::spawn(driver.run()),
            tokio::spawn(accept(
                accepted,
                gate,
                Arc::clone(&bitswap),
                Arc::clone(&gossip),
                Arc::clone(&deltas),
            )),
        ];
        let id = peer_id_of(&config.seed);
        let addresses = addresses
            .into_iter()
            .map(|address| address.with(Protocol::P2p(id)))
            .collect();
        Ok(Self {
            shared: Arc::new(Shared {
                id,
                addresses,
                commands,
                connected,
                bitswap,
                gossip,
                deltas,
                tasks,
            }),
        })
    }

    /// Who this peer is.
    pub fn id(&self) -> PeerId {
        self.shared.id
    }

    /// Where it listens, each address with its id (`/ip4/127.0.0.1/tcp/4001/p2p/12D3…`).
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.shared.addresses
    }

    /// Single blocks from connected peers.
    pub fn session(&self) -> fetch::PeerSession {
        fetch::PeerSession::new(&self.shared.bitswap, self.shared.connected.clone())
    }

    /// Connects to `address` and stays connected: whenever the connection is lost it is made
    /// again, with growing waits of at most two seconds. Returns at once.
    pub fn connect(&self, address: Multiaddr) {
        // The loop ends only with the peer.
        let _ = self.shared.commands.send(Command::Keep(address));
    }

    /// Doesn't dial `address` again. A connection that stands is left alone.
    pub fn forget(&self, address: Multiaddr) {
        let _ = self.shared.commands.send(Command::Forget(address));
    }

    /// Looks in the DHT for peers who have `cid`, and connects to them as they are found. Says at the end how many there
    /// were: none without a DHT.
    pub async fn seek(&self, cid: &Cid) -> usize {
        self.shared.bitswap.seek(cid).await.unwrap_or(0)
    }

    /// Says in the DHT that this peer has `cid`, now and again every half day as long as it runs.
    pub fn provide(&self, cid: &Cid) {
        let _ = self.shared.commands.send(Command::Provide(*cid));
    }

    /// Who is connected now.
    pub fn connected(&self) -> Vec<PeerId> {
        self.shared.connected.borrow().clone()
    }

    /// Follows who is connected: the list changes with every peer that comes or goes.
    pub fn watch_connected(&self) -> watch::Receiver<Vec<PeerId>> {
        self.shared.connected.clone()
    }

    /// Fetches the DAG below `root` into the store, within `limits`. Blocks that the store holds
    /// are not fetched again.
    pub async fn fetch(&self, root: &Cid, limits: &Limits) -> Result<FetchReport, FetchError> {
        let options = FetchOptions {
            limits: *limits,
            ..FetchOptions::default()
        };
        self.fetch_with(root, options).await
    }

    /// Fetches with a progress callback and an own patience.
    pub async fn fetch_with(
        &self,
        root: &Cid,
        options: FetchOptions<'_>,
    ) -> Result<FetchReport, FetchError> {
        let connected = self.shared.connected.clone();
        fetch::fetch(&self.shared.bitswap, connected, root, options).await
    }

    /// Answers questions for deltas from `deltas` from now on; the first who is given counts.
    pub fn offer_deltas(&self, deltas: Arc<dyn Deltas>) {
        self.shared.deltas.offer(deltas);
    }

    /// Asks one peer for a delta, which goes into the file `into`. Nothing about it is known to be true.
    pub async fn ask_delta(
        &self,
        peer: PeerId,
        ask: Ask,
        into: &std::fs::File,
    ) -> Result<Asked, AskError> {
        self.shared.deltas.ask(peer, ask, into).await
    }

    /// Pushes a message to every connected peer and returns to how many. With nobody connected it
    /// is offered to those who connect within the next seconds.
    pub fn publish(&self, topic: &str, bytes: &[u8]) -> Result<usize, PublishError> {
        self.shared.gossip.publish(topic, bytes)
    }

    /// Offers a message that came to those who may not have it. Who subscribes does this with each that is good.
    pub fn pass_on(&self, message: Message) {
        self.shared.gossip.pass_on(message);
    }

    /// Holds against a peer what it handed over; with too much of it, it is not listened to for a while.
    pub fn fault(&self, peer: PeerId, fault: Fault) {
        self.shared.gossip.fault(peer, fault);
    }

    /// How many peers are not listened to now.
    pub fn resting(&self) -> usize {
        self.shared.gossip.resting()
    }

    /// The messages that others publish on `topic` from now on; not the own ones.
    pub fn subscribe(&self, topic: &str) -> Subscription {
        self.shared.gossip.subscribe(topic)
    }

    /// Closes the listener and all connections, ends all subscriptions, and returns when that is
    /// done.
    pub async fn shutdown(&self) {
        let (done, closed) = oneshot::channel();
        if self.shared.commands.send(Command::Shutdown(done)).is_ok() {
            let _ = closed.await;
        }
        self.shared.gossip.close();
    }
}

pub(crate) async fn listen(
    swarm: &mut libp2p::Swarm<swarm::Behaviour>,
    address: &Multiaddr,
) -> Result<Vec<Multiaddr>, PeerError> {
    let failed = |source| PeerError::Listen {
        address: address.clone(),
        source,
    };
    let listener = swarm
        .listen_on(address.clone())
        .map_err(|e| failed(e.into()))?;
    let opened = tokio::time::timeout(LISTEN_TIMEOUT, async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, .. } if listener_id == listener => {
                    return Ok(());
                }
                SwarmEvent::ListenerClosed {
                    listener_id,
                    reason,
                    ..
                } if listener_id == listener => {
                    return Err(match reason {
                        Ok(()) => "the listener closed".into(),
                        Err(error) => error.into(),
                    });
                }
                _ => {}
            }
        }
    })
    .await;
    match opened {
        Ok(Ok(())) => Ok(swarm.listeners().cloned().collect()),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed("it took too long".into())),
    }
}

/// Gives each stream that a peer opens a reader of its own. How many streams there can be is
/// bounded by the transport, and what they hold by the gate.
async fn accept(
    mut accepted: mpsc::UnboundedReceiver<Incoming>,
    gate: Arc<Gate>,
    bitswap: Arc<Bitswap>,
    gossip: Arc<Gossip>,
    deltas: Arc<DeltaExchange>,
) {
    let mut readers = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            incoming = accepted.recv() => {
                let Some(Incoming { peer, protocol, stream }) = incoming else {
                    return;
                };
                let frames = gate.frames(peer, stream);
                if protocol == bitswap::PROTOCOL {
                    readers.spawn(Arc::clone(&bitswap).read(peer, frames));
                } else if protocol == delta::PROTOCOL {
                    readers.spawn(Arc::clone(&deltas).answer(peer, frames));
                } else {
                    readers.spawn(Arc::clone(&gossip).read(peer, frames));
                }
            }
            // Finished readers are reaped as they end.
            Some(_) = readers.join_next() => {}
        }
    }
}
