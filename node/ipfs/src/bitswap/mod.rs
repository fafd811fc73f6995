//! Bitswap 1.2.0, both sides: serving what the store holds, and wants that wait for answers.

pub mod serve;
pub mod wants;

use std::sync::Arc;

use cid::Cid;
use instar_chunks::MAX_BLOCK_BYTES;
use instar_chunks::block::{SHA2_256, cid_of};
use libp2p::PeerId;
use libp2p::swarm::{Stream, StreamProtocol};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};

use crate::config::SharedBlocks;
use crate::outbox::Outbox;
use crate::swarm::Command;
use crate::wire::Frames;
use crate::wire::bitswap::{Entry, MAX_FRAME_BYTES, Message, PresenceType, WantType, Wantlist};
use wants::Wants;

pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/bitswap/1.2.0");

/// Both sides of the protocol.
pub struct Bitswap {
    pub store: SharedBlocks,
    pub outbox: Outbox,
    pub wants: Arc<Wants>,
    /// Where to ask for others who may have something, if there is a DHT.
    pub routing: Option<mpsc::UnboundedSender<Command>>,
}

impl Bitswap {
    /// Reads one stream that a peer opened until it ends or breaks a rule.
    pub async fn read(self: Arc<Self>, peer: PeerId, mut frames: Frames<Stream>) {
        loop {
            let frame = match frames.next(MAX_FRAME_BYTES).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%peer, %error, "a bitswap stream broke off");
                    return;
                }
            };
            let message = match Message::read(&frame.bytes) {
                Ok(message) => message,
                Err(error) => {
                    tracing::debug!(%peer, %error, "not a bitswap message");
                    return;
                }
            };
            for block in message.payload {
                self.receive(peer, &block.prefix, block.data);
            }
            for presence in message.presences {
                if presence.kind == PresenceType::DontHave as i32
                    && let Ok(cid) = Cid::try_from(presence.cid.as_slice())
                {
                    self.wants.on_dont_have(peer, &cid);
                }
            }
            if let Some(wantlist) = message.wantlist {
                serve::answer(&self, peer, wantlist).await;
            }
        }
    }

    /// A block has no name on the wire: its address is computed from its bytes. So a wrong block
    /// is one that nobody asked for.
    fn receive(&self, peer: PeerId, prefix: &[u8], data: Vec<u8>) {
        let Some((codec, true)) = parse_prefix(prefix) else {
            self.wants
                .on_lie(peer, "it sent a block of a kind that nobody asked for");
            return;
        };
        if data.len() > MAX_BLOCK_BYTES {
            self.wants.on_lie(peer, "it sent a block over 2 MiB");
            return;
        }
        self.wants.on_block(peer, cid_of(codec, &data), data);
    }

    /// Has others looked for who have it. They appear among the connected peers. What comes says at the end of the lookup
    /// how many were found; its sender is gone where none began.
    pub fn seek(&self, cid: &Cid) -> oneshot::Receiver<usize> {
        let (done, found) = oneshot::channel();
        if let Some(routing) = &self.routing {
            // The loop ends only with the peer.
            let _ = routing.send(Command::Seek(*cid, done));
        }
        found
    }

    /// Asks a peer for blocks.
    pub fn ask(&self, peer: PeerId, cids: &[Cid], cancel: bool) -> bool {
        let entries = cids
            .iter()
            .map(|cid| Entry {
                block: cid.to_bytes(),
                priority: 1,
                cancel,
                want_type: WantType::Block as i32,
                send_dont_have: !cancel,
            })
            .collect();
        let message = Message {
            wantlist: Some(Wantlist {
                entries,
                full: false,
            }),
            ..Message::default()
        };
        self.outbox
            .try_send(peer, message.encode_to_vec().into())
            .is_ok()
    }
}

/// Codec, and whether the hash is a whole sha2-256; `None` if it isn't a prefix.
pub(crate) fn parse_prefix(prefix: &[u8]) -> Option<(u64, bool)> {
    let (version, rest) = unsigned_varint::decode::u64(prefix).ok()?;
    let (codec, rest) = unsigned_varint::decode::u64(rest).ok()?;
    let (hash, rest) = unsigned_varint::decode::u64(rest).ok()?;
    let (length, rest) = unsigned_varint::decode::u64(rest).ok()?;
    let usable = version <= 1 && hash == SHA2_256 && length == 32;
    rest.is_empty().then_some((codec, usable))
}

fn prefix_of(cid: &Cid) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(8);
    for part in [
        u64::from(cid.version()),
        cid.codec(),
        cid.hash().code(),
        u64::from(cid.hash().size()),
    ] {
        let mut buffer = unsigned_varint::encode::u64_buffer();
        prefix.extend_from_slice(unsigned_varint::encode::u64(part, &mut buffer));
    }
    prefix
}
