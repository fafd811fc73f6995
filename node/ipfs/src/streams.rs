//! A libp2p behaviour that opens and accepts plain streams, and loses none.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::UpgradeInfo;
use libp2p::core::{Endpoint, InboundUpgrade, OutboundUpgrade};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};

/// A stream that a peer opened.
#[derive(Debug)]
pub struct Incoming {
    pub peer: PeerId,
    pub protocol: StreamProtocol,
    pub stream: Stream,
}

/// Why a stream couldn't be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("not connected")]
    NotConnected,
    #[error("the peer doesn't speak the protocol")]
    Unsupported,
    #[error("the connection failed")]
    Failed,
}

type Reply = oneshot::Sender<Result<Stream, OpenError>>;

/// Asks the behaviour for streams, from any task.
#[derive(Clone, Debug)]
pub struct Opener {
    requests: mpsc::UnboundedSender<(PeerId, Open)>,
}

impl Opener {
    /// Opens a stream on the newest connection to `peer`.
    pub async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> Result<Stream, OpenError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send((peer, Open { protocol, reply }))
            .map_err(|_| OpenError::NotConnected)?;
        answer.await.unwrap_or(Err(OpenError::NotConnected))
    }
}

/// The behaviour. The streams that peers open come out of the receiver that [`Streams::new`]
/// returns with it; the swarm bounds how many one connection may hold.
#[derive(Debug)]
pub struct Streams {
    protocols: Vec<StreamProtocol>,
    incoming: mpsc::UnboundedSender<Incoming>,
    requests: mpsc::UnboundedReceiver<(PeerId, Open)>,
    connections: HashMap<PeerId, Vec<ConnectionId>>,
}

impl Streams {
    pub fn new(
        protocols: Vec<StreamProtocol>,
    ) -> (Self, Opener, mpsc::UnboundedReceiver<Incoming>) {
        let (incoming, accepted) = mpsc::unbounded_channel();
        let (asked, requests) = mpsc::unbounded_channel();
        let streams = Self {
            protocols,
            incoming,
            requests,
            connections: HashMap::new(),
        };
        (streams, Opener { requests: asked }, accepted)
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler {
            peer,
            protocols: self.protocols.clone(),
            incoming: self.incoming.clone(),
            open: Vec::new(),
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => self
                .connections
                .entry(established.peer_id)
                .or_default()
                .push(established.connection_id),
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(ids) = self.connections.get_mut(&closed.peer_id) {
                    ids.retain(|id| *id != closed.connection_id);
                    if ids.is_empty() {
                        self.connections.remove(&closed.peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        while let Poll::Ready(Some((peer, open))) = self.requests.poll_recv(cx) {
            let Some(connection) = self.connections.get(&peer).and_then(|ids| ids.last()) else {
                // Whoever asked may be gone; then nobody misses the answer.
                let _ = open.reply.send(Err(OpenError::NotConnected));
                continue;
            };
            return Poll::Ready(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(*connection),
                event: open,
            });
        }
        Poll::Pending
    }
}

/// A request to open a stream on one connection.
#[derive(Debug)]
pub struct Open {
    protocol: StreamProtocol,
    reply: Reply,
}

/// The part of the behaviour that lives with one connection.
#[derive(Debug)]
pub struct Handler {
    peer: PeerId,
    protocols: Vec<StreamProtocol>,
    incoming: mpsc::UnboundedSender<Incoming>,
    open: Vec<Open>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = AnyOf;
    type OutboundProtocol = AnyOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(AnyOf(self.protocols.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        // The data swarm is small and its connections stay.
        true
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<AnyOf, Reply, Infallible>> {
        // `on_behaviour_event` is always followed by a poll, so no waker is kept.
        match self.open.pop() {
            Some(Open { protocol, reply }) => {
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                    protocol: SubstreamProtocol::new(AnyOf(vec![protocol]), reply),
                })
            }
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Open) {
        self.open.push(event);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, AnyOf, AnyOf, (), Reply>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => {
                // An error means that the peer is shutting down.
                let _ = self.incoming.send(Incoming {
                    peer: self.peer,
                    protocol,
                    stream,
                });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _),
                info,
            }) => {
                let _ = info.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    libp2p::swarm::StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    _ => OpenError::Failed,
                };
                let _ = info.send(Err(error));
            }
            _ => {}
        }
    }
}

/// Negotiates one of several protocols and hands the bare stream on.
#[derive(Clone, Debug)]
pub struct AnyOf(Vec<StreamProtocol>);

impl UpgradeInfo for AnyOf {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for AnyOf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for AnyOf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
