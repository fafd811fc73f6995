//! The libp2p swarm and the loop that drives it: connections, and dialling again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use cid::Cid;
use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, identify, kad, noise, ping, tcp, yamux};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::config::keypair;
use crate::dht::{self, DhtConfig, Met};
use crate::peer::PeerError;
use crate::streams::Streams;

/// What identify tells other IPFS implementations.
const AGENT: &str = concat!("instar/", env!("CARGO_PKG_VERSION"));

/// Silence after which a peer is asked whether it still lives. A closed connection is noticed at
/// once; this is for cables that were pulled.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// First wait before a lost peer is dialled again; it doubles up to [`MAX_REDIAL_DELAY`].
const MIN_REDIAL_DELAY: Duration = Duration::from_millis(100);
/// Longest wait between two dials: a peer that returns is found within this time.
const MAX_REDIAL_DELAY: Duration = Duration::from_secs(2);

/// Most peers connected at a time; more are hung up on.
const MAX_PEERS: usize = 256;

/// Streams of one connection that may be open at a time; the connection is cut beyond that. Stock
/// clients open one for each message, some fifty at once.
const MAX_STREAMS_PER_CONNECTION: usize = 256;

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub streams: Streams,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    dht: Toggle<kad::Behaviour<kad::store::MemoryStore>>,
}

pub fn build(
    seed: &[u8; 32],
    streams: Streams,
    dht: Option<&DhtConfig>,
) -> Result<Swarm<Behaviour>, PeerError> {
    let key = keypair(seed);
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            || {
                let mut yamux = yamux::Config::default();
                yamux.set_max_num_streams(MAX_STREAMS_PER_CONNECTION);
                yamux
            },
        )
        .map_err(|e| PeerError::Transport(e.into()))?
        .with_behaviour(|key| Behaviour {
            streams,
            identify: identify::Behaviour::new(
                identify::Config::new("ipfs/0.1.0".into(), key.public())
                    .with_agent_version(AGENT.into()),
            ),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
            dht: dht::behaviour(dht, key.public().to_peer_id()),
        })
        .map_err(|e| PeerError::Transport(e.into()))?
        // Connections stay as long as both ends live; see `Streams`.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    Ok(swarm)
}

/// What the peer's handle asks of the loop.
#[derive(Debug)]
pub enum Command {
    /// Connect to this address, and again whenever the connection is lost.
    Keep(Multiaddr),
    /// Don't dial this address again.
    Forget(Multiaddr),
    /// Look in the DHT for peers who have this, and connect to them; say at the end how many were found.
    Seek(Cid, oneshot::Sender<usize>),
    /// Say in the DHT that this is here.
    Provide(Cid),
    /// Close everything.
    Shutdown(oneshot::Sender<()>),
}

/// A change that others in the crate react to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Connected(PeerId),
    Disconnected(PeerId),
}

/// An address that is to stay connected.
#[derive(Debug)]
struct Target {
    /// Who answers there, as soon as it is known.
    peer: Option<PeerId>,
    delay: Duration,
    /// When to dial next, unless the peer is connected.
    due: Instant,
}

pub struct Driver {
    pub swarm: Swarm<Behaviour>,
    pub commands: mpsc::UnboundedReceiver<Command>,
    pub connected: watch::Sender<Vec<PeerId>>,
    pub on_change: Box<dyn Fn(Change) + Send + Sync>,
    targets: HashMap<Multiaddr, Target>,
    met: Met,
    /// Lookups that run, with what each has found so far and who waits for its end.
    lookups: HashMap<kad::QueryId, (HashSet<PeerId>, oneshot::Sender<usize>)>,
}

impl Driver {
    pub fn new(
        swarm: Swarm<Behaviour>,
        commands: mpsc::UnboundedReceiver<Command>,
        connected: watch::Sender<Vec<PeerId>>,
        on_change: Box<dyn Fn(Change) + Send + Sync>,
    ) -> Self {
        Self {
            swarm,
            commands,
            connected,
            on_change,
            targets: HashMap::new(),
            met: Met::default(),
            lookups: HashMap::new(),
        }
    }

    /// Runs until told to stop or until every handle is gone.
    pub async fn run(mut self) {
        loop {
            let wake = self.dial_what_is_due();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Keep(address)) => self.keep(address),
                    Some(Command::Forget(address)) => {
                        self.targets.remove(&address);
                    }
                    // Where no lookup begins, whoever waits sees the sender go.
                    Some(Command::Seek(cid, done)) => {
                        let kad = self.swarm.behaviour_mut().dht.as_mut();
                        if let Some(id) = kad.and_then(|kad| dht::seek(kad, &cid)) {
                            tracing::debug!(%cid, "looking for providers");
                            self.lookups.insert(id, (HashSet::new(), done));
                        }
                    }
                    Some(Command::Provide(cid)) => {
                        if let Some(kad) = self.swarm.behaviour_mut().dht.as_mut() {
                            dht::provide(kad, &cid);
                        }
                    }
                    Some(Command::Shutdown(done)) => {
                        // Dropping the swarm closes the listener and every connection.
                        drop(self.swarm);
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
                () = sleep => {}
            }
        }
    }

    fn keep(&mut self, address: Multiaddr) {
        let peer = peer_in(&address);
        if peer == Some(*self.swarm.local_peer_id()) {
            return;
        }
        self.targets.entry(address).or_insert_with(|| Target {
            peer,
            delay: MIN_REDIAL_DELAY,
            due: Instant::now(),
        });
    }

    /// Dials every target whose time has come; says when the next one is due.
    fn dial_what_is_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for (address, target) in &mut self.targets {
            if target
                .peer
                .is_some_and(|peer| self.swarm.is_connected(&peer))
            {
                target.delay = MIN_REDIAL_DELAY;
                continue;
            }
            if target.due <= now {
                // A port of its own for each dial: a reused one is blocked for a while after the
                // other end died.
                let options = match target.peer {
                    Some(peer) => DialOpts::peer_id(peer)
                        .condition(PeerCondition::DisconnectedAndNotDialing)
                        .addresses(vec![address.clone()])
                        .allocate_new_port()
                        .build(),
                    None => DialOpts::unknown_peer_id()
                        .address(address.clone())
                        .allocate_new_port()
                        .build(),
                };
                // Failing to start a dial is the same as failing to connect: try again later.
                let _ = self.swarm.dial(options);
                target.due = now + target.delay;
                target.delay = (target.delay * 2).min(MAX_REDIAL_DELAY);
            }
            next = Some(next.map_or(target.due, |at| at.min(target.due)));
        }
        next
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                endpoint,
                num_established,
                connection_id,
                ..
            } => {
                if self.swarm.connected_peers().count() > MAX_PEERS {
                    self.swarm.close_connection(connection_id);
                    return;
                }
                if let ConnectedPoint::Dialer { address, .. } = &endpoint {
                    for (wanted, target) in &mut self.targets {
                        if target.peer.is_none() && bare(wanted) == bare(address) {
                            target.peer = Some(peer_id);
                        }
                    }
                }
                let told_of = self.targets.values().any(|t| t.peer == Some(peer_id));
                if endpoint.is_listener() || told_of {
                    // Whoever comes by itself is a peer, even one that a lookup has passed before.
                    if self.met.no_passer(&peer_id) || num_established.get() == 1 {
                        self.connected(peer_id);
                    }
                } else if num_established.get() == 1 && !self.met.on_dialled(peer_id) {
                    self.connected(peer_id);
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established: 0,
                ..
            } => {
                tracing::debug!(peer = %peer_id, "disconnected");
                for target in self.targets.values_mut() {
                    if target.peer == Some(peer_id) {
                        target.delay = MIN_REDIAL_DELAY;
                        target.due = Instant::now() + MIN_REDIAL_DELAY;
                    }
                }
                if !self.met.no_passer(&peer_id) {
                    self.publish_connected();
                    (self.on_change)(Change::Disconnected(peer_id));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                if let Some(kad) = self.swarm.behaviour_mut().dht.as_mut() {
                    dht::on_member(kad, peer_id, &info.protocols, info.listen_addrs);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Dht(event)) => self.on_dht(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                connection,
                result: Err(ping::Failure::Timeout),
                ..
            })) => {
                self.swarm.close_connection(connection);
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                tracing::warn!(?reason, "the listener closed");
            }
            _ => {}
        }
    }

    fn on_dht(&mut self, event: kad::Event) {
        let local = *self.swarm.local_peer_id();
        let Some(kad) = self.swarm.behaviour_mut().dht.as_mut() else {
            return;
        };
        let found = dht::on_event(kad, event);
        let idle = kad.iter_queries().next().is_none();
        let mut providers = HashSet::new();
        if let Some(found) = found {
            providers = found.providers;
            providers.remove(&local);
            if let Some((all, _)) = self.lookups.get_mut(&found.lookup) {
                all.extend(&providers);
            }
            if found.over
                && let Some((all, done)) = self.lookups.remove(&found.lookup)
            {
                // Nobody has to wait for it.
                let _ = done.send(all.len());
            }
        }
        for provider in providers {
            let (was_passer, gone) = self.met.on_provider(provider);
            if was_passer {
                self.connected(provider);
            } else if !self.swarm.is_connected(&provider) {
                // Its addresses are known as long as the lookup runs.
                let _ = self.swarm.dial(
                    DialOpts::peer_id(provider)
                        .condition(PeerCondition::DisconnectedAndNotDialing)
                        .build(),
                );
            }
            let told_of = |peer| self.targets.values().any(|t| t.peer == Some(peer));
            if let Some(peer) = gone.filter(|peer| !told_of(*peer)) {
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
        if idle {
            let passers: Vec<PeerId> = self.met.passers().collect();
            for peer in passers {
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
    }

    fn connected(&mut self, peer: PeerId) {
        tracing::debug!(%peer, "connected");
        self.publish_connected();
        (self.on_change)(Change::Connected(peer));
    }

    fn publish_connected(&mut self) {
        let mut peers: Vec<PeerId> = self
            .swarm
            .connected_peers()
            .filter(|peer| !self.met.is_passer(peer))
            .copied()
            .collect();
        peers.sort();
        self.connected.send_replace(peers);
    }
}

/// The peer id that an address names.
pub fn peer_in(address: &Multiaddr) -> Option<PeerId> {
    address.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    })
}

fn bare(address: &Multiaddr) -> Multiaddr {
    address
        .iter()
        .filter(|part| !matches!(part, Protocol::P2p(_)))
        .collect()
}
