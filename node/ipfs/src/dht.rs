//! Content routing over the Kademlia DHT of IPFS: who has what, asked of strangers. Off unless it is configured; the
//! peers of the chain are always asked first.
//!
//! What strangers say is a hint and nothing more: a provider is dialled, and every block that it sends is hashed. The
//! peers that a lookup passes on its way are no peers of this node: nothing is published to them, and they are hung up
//! on afterwards.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::time::Duration;

use cid::Cid;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig, RecordStore};
use libp2p::kad::{
    self, GetProvidersOk, InboundRequest, Mode, ProviderRecord, QueryId, QueryResult, RecordKey,
    StoreInserts,
};
use libp2p::swarm::StreamProtocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::swarm::peer_in;

/// How long one lookup may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Lookups that run at a time; more are refused until one ends.
const MAX_LOOKUPS: usize = 16;
/// Providers that are dialled and kept; the one that was found first goes when there are more.
const MAX_PROVIDERS: usize = 32;
/// Content that this node says it has, and that others tell it about when it serves.
const MAX_PROVIDED: usize = 1024;
/// Providers of one content that are remembered for others.
const MAX_PROVIDERS_OF_ONE: usize = 16;
/// Addresses of a provider that are remembered for others, and the bytes of one.
const MAX_ADDRESSES: usize = 8;
const MAX_ADDRESS_BYTES: usize = 256;
/// A request or an answer has at most so many bytes: what other implementations take.
const MAX_PACKET_BYTES: usize = 16 * 1024;

/// Which DHT: two that never meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DhtNetwork {
    /// The public one, `/ipfs/kad/1.0.0`: its members are at public addresses.
    #[default]
    Public,
    /// The one of a local network, `/ipfs/lan/kad/1.0.0`.
    Lan,
}

impl DhtNetwork {
    fn protocol(self) -> StreamProtocol {
        match self {
            Self::Public => StreamProtocol::new("/ipfs/kad/1.0.0"),
            Self::Lan => StreamProtocol::new("/ipfs/lan/kad/1.0.0"),
        }
    }
}

/// How to take part in a DHT.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DhtConfig {
    /// Members to start from, each with its peer id: `/ip4/203.0.113.7/tcp/4001/p2p/12D3…`. There is no default: whom to
    /// ask first is the operator's choice.
    pub bootstrap: Vec<Multiaddr>,
    /// Which DHT.
    #[serde(default)]
    pub network: DhtNetwork,
    /// Answer others too, which is for nodes at a public address that are always there.
    #[serde(default)]
    pub serve: bool,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum DhtConfigError {
    /// Nobody to start from, and nobody who would come.
    #[error("the DHT has no member to start from; name one with its peer id (…/p2p/12D3…)")]
    Nobody,
    /// An address without a peer id.
    #[error("{0} does not end in the peer's id (…/p2p/12D3…)")]
    NoPeer(Multiaddr),
}

impl DhtConfig {
    /// Checks it.
    pub fn check(&self) -> Result<(), DhtConfigError> {
        if self.bootstrap.is_empty() && !self.serve {
            return Err(DhtConfigError::Nobody);
        }
        match self.bootstrap.iter().find(|a| peer_in(a).is_none()) {
            Some(address) => Err(DhtConfigError::NoPeer(address.clone())),
            None => Ok(()),
        }
    }
}

type Kad = kad::Behaviour<MemoryStore>;

/// The behaviour, if it is configured.
pub(crate) fn behaviour(config: Option<&DhtConfig>, local: PeerId) -> Toggle<Kad> {
    let built = config.map(|config| {
        let store = MemoryStoreConfig {
            // Records other than of providers are nobody's business here.
            max_records: 0,
            max_value_bytes: 0,
            max_providers_per_key: MAX_PROVIDERS_OF_ONE,
            max_provided_keys: MAX_PROVIDED,
        };
        let mut kad = kad::Config::new(config.network.protocol());
        kad.set_query_timeout(LOOKUP_TIMEOUT)
            .set_max_packet_size(MAX_PACKET_BYTES)
            .set_record_filtering(StoreInserts::FilterBoth)
            .set_replication_factor(NonZeroUsize::new(20).expect("it is not zero"));
        let store = MemoryStore::with_config(local, store);
        let mut behaviour = Kad::with_config(local, store, kad);
        behaviour.set_mode(Some(if config.serve {
            Mode::Server
        } else {
            Mode::Client
        }));
        for address in &config.bootstrap {
            if let Some(peer) = peer_in(address).filter(|peer| *peer != local) {
                behaviour.add_address(&peer, address.clone());
            }
        }
        // Nobody is known yet where nobody was named: a server waits for others.
        let _ = behaviour.bootstrap();
        behaviour
    });
    Toggle::from(built)
}

/// The name of content in the DHT: its multihash.
fn key(cid: &Cid) -> RecordKey {
    RecordKey::new(&cid.hash().to_bytes())
}

/// Looks for providers, unless too many lookups run.
pub(crate) fn seek(kad: &mut Kad, cid: &Cid) -> Option<QueryId> {
    let room = kad.iter_queries().count() < MAX_LOOKUPS;
    room.then(|| kad.get_providers(key(cid)))
}

/// Says to the DHT that this node has it, now and every half day.
pub(crate) fn provide(kad: &mut Kad, cid: &Cid) {
    if let Err(error) = kad.start_providing(key(cid)) {
        tracing::warn!(%cid, %error, "this node can't say that it has it: {MAX_PROVIDED} are announced already");
    }
}

/// A peer that said that it is a member, and where it listens.
pub(crate) fn on_member(
    kad: &mut Kad,
    peer: PeerId,
    protocols: &[StreamProtocol],
    listen: Vec<Multiaddr>,
) {
    if !protocols.iter().any(|p| kad.protocol_names().contains(p)) {
        return;
    }
    for address in listen.into_iter().filter(fits).take(MAX_ADDRESSES) {
        kad.add_address(&peer, address);
    }
}

/// What came of a lookup.
pub(crate) struct Found {
    pub(crate) lookup: QueryId,
    /// Peers who are said to have it.
    pub(crate) providers: HashSet<PeerId>,
    /// Nothing more will come.
    pub(crate) over: bool,
}

/// What follows from an event.
pub(crate) fn on_event(kad: &mut Kad, event: kad::Event) -> Option<Found> {
    match event {
        kad::Event::OutboundQueryProgressed {
            id,
            result: QueryResult::GetProviders(result),
            step,
            ..
        } => Some(Found {
            lookup: id,
            providers: match result {
                Ok(GetProvidersOk::FoundProviders { providers, .. }) => providers,
                Ok(GetProvidersOk::FinishedWithNoAdditionalRecord { .. }) | Err(_) => {
                    HashSet::new()
                }
            },
            over: step.last,
        }),
        kad::Event::InboundRequest {
            request:
                InboundRequest::AddProvider {
                    record: Some(record),
                },
        } => {
            remember(kad, record);
            None
        }
        _ => None,
    }
}

/// Keeps for others what a provider says of itself.
fn remember(kad: &mut Kad, mut record: ProviderRecord) {
    record.addresses.retain(fits);
    record.addresses.truncate(MAX_ADDRESSES);
    if let Err(error) = kad.store_mut().add_provider(record) {
        tracing::debug!(%error, "a provider is not remembered");
    }
}

fn fits(address: &Multiaddr) -> bool {
    address.len() <= MAX_ADDRESS_BYTES
}

/// Whom the DHT has led to.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Providers, the newest last: peers like others, as long as they are in here.
    providers: VecDeque<PeerId>,
    /// Connected on the way of a lookup, and nobody that anything else is done with.
    passers: HashSet<PeerId>,
}

impl Met {
    /// Notes a connection that this node made, and not to anybody that it was told of. Says whether it is a passer's.
    pub(crate) fn on_dialled(&mut self, peer: PeerId) -> bool {
        let passer = !self.providers.contains(&peer);
        if passer {
            self.passers.insert(peer);
        }
        passer
    }

    /// Notes a provider. Says whether it was a passer until now, and who has to go for it.
    pub(crate) fn on_provider(&mut self, peer: PeerId) -> (bool, Option<PeerId>) {
        let was_passer = self.passers.remove(&peer);
        if self.providers.contains(&peer) {
            return (was_passer, None);
        }
        self.providers.push_back(peer);
        let over = self.providers.len() > MAX_PROVIDERS;
        (
            was_passer,
            over.then(|| self.providers.pop_front()).flatten(),
        )
    }

    /// Whether nothing but a lookup passed there.
    pub(crate) fn is_passer(&self, peer: &PeerId) -> bool {
        self.passers.contains(peer)
    }

    /// Forgets a passer, who is gone or became a peer in another way. Says whether it was one.
    pub(crate) fn no_passer(&mut self, peer: &PeerId) -> bool {
        self.passers.remove(peer)
    }

    /// All passers.
    pub(crate) fn passers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.passers.iter().copied()
    }
}
