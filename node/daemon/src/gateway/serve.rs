//! A block store on its own, served as a gateway and as a bitswap peer: no chain, no writes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use instar_chunks::BlockStore;
use instar_ipfs::dht::DhtConfig;
use instar_ipfs::{Multiaddr, Peer, PeerConfig};

use crate::announce;
use crate::deltas::{Between, Maker};

/// Where to serve.
pub struct ServeOptions {
    /// The store.
    pub store: Arc<BlockStore>,
    /// Where the gateway listens, if it does.
    pub http: Option<SocketAddr>,
    /// Where the peer listens, if it does.
    pub peer: Option<Multiaddr>,
    /// Seed of the peer's identity; a random one if none is given.
    pub seed: Option<[u8; 32]>,
    /// Makes deltas between what is pinned for anybody who asks, if given.
    pub deltas: Option<MakeDeltas>,
    /// The DHT in which the peer says what is pinned, if given.
    pub dht: Option<DhtConfig>,
}

/// How deltas are made for others.
pub struct MakeDeltas {
    /// Where they are kept.
    pub folder: PathBuf,
    /// The program that makes them: `instar`.
    pub program: PathBuf,
}

/// Where it is served: what a client has to know.
#[derive(Debug, Clone)]
pub struct Served {
    /// Base of the gateway.
    pub http: Option<String>,
    /// Addresses of the peer, with its id.
    pub peer: Vec<String>,
}

/// Why a store can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The deltas' folder.
    #[error("{path}: the folder for deltas can't be used")]
    Deltas {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// An address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Serves until the process is told to stop; `ready` is called once everything listens.
pub async fn serve(
    options: ServeOptions,
    ready: impl FnOnce(Served) + Send,
) -> Result<(), ServeError> {
    let listen = |address: String| {
        move |source: Box<dyn std::error::Error + Send + Sync>| ServeError::Listen {
            address,
            source,
        }
    };
    let mut served = Served {
        http: None,
        peer: Vec::new(),
    };
    let _peer = match options.peer {
        None => None,
        Some(address) => {
            let mut seed = [0; 32];
            match options.seed {
                Some(given) => seed = given,
                None => getrandom::fill(&mut seed)
                    .map_err(|e| listen(address.to_string())(e.to_string().into()))?,
            }
            let config = PeerConfig {
                seed,
                listen: address.clone(),
                store: options.store.clone(),
                dht: options.dht.clone(),
            };
            let peer = Peer::start(config)
                .await
                .map_err(|e| listen(address.to_string())(Box::new(e)))?;
            if let Some(MakeDeltas { folder, program }) = options.deltas {
                let store = options.store.clone();
                let maker = Maker::start(store, &folder, program, Between::Pinned);
                let maker = maker.map_err(|source| ServeError::Deltas {
                    path: folder.display().to_string(),
                    source,
                })?;
                peer.offer_deltas(Arc::new(maker));
            }
            if options.dht.is_some() {
                tokio::spawn(announce::pins(peer.clone(), options.store.clone()));
            }
            served.peer = peer.addresses().iter().map(ToString::to_string).collect();
            Some(peer)
        }
    };
    let gateway = match options.http {
        None => None,
        Some(address) => {
            let error = |e: std::io::Error| listen(address.to_string())(e.into());
            let listener = tokio::net::TcpListener::bind(address)
                .await
                .map_err(error)?;
            let bound = listener.local_addr().map_err(error)?;
            served.http = Some(format!("http://{bound}"));
            Some((listener, super::router(options.store)))
        }
    };
    ready(served);
    let stop = crate::run::terminated();
    match gateway {
        Some((listener, router)) => {
            tokio::select! {
                result = async { axum::serve(listener, router).await } => result.map_err(|e| ServeError::Listen {
                    address: "the gateway".into(),
                    source: e.into(),
                }),
                () = stop => Ok(()),
            }
        }
        None => {
            stop.await;
            Ok(())
        }
    }
}
