//! Short messages to everybody: lane packs, entries, certificates.
//!
//! A publisher pushes the whole message to every peer it is connected to, and names them. Whoever
//! gets it for the first time and finds it good tells its other peers that it has it, and they ask
//! for it if they lack it; so a message crosses each line once, gets through a swarm that isn't
//! fully meshed, and what is bad goes no further than to the neighbours of whoever made it.
//! The same offer is made to everybody a second later, and to a peer that connects, for messages of
//! the last seconds: who was away for a moment misses nothing. A message is as trustworthy as its
//! content: what must be authentic is signed inside.

mod conduct;
mod state;
mod subscription;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::swarm::{Stream, StreamProtocol};
use prost::Message as _;
use sha2::{Digest, Sha256};

pub use self::conduct::Fault;
use self::state::{Id, MAX_SEEN, State, Wanted};
use self::subscription::Subscriber;
pub use self::subscription::{MAX_UNREAD_BYTES, Message, Subscription};
use crate::outbox::Outbox;
use crate::wire::Frames;
use crate::wire::gossip::{Frame, Push};

pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/instar/gossip/1");

/// Largest message: a lane pack is up to 2 MiB, a block with what it merges a little more.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Longest topic.
pub const MAX_TOPIC_BYTES: usize = 128;

/// Most peers that a publisher names; it has no more.
const MAX_REACH: usize = 256;

/// A message, its topic, the peers named and what protobuf puts around them.
const MAX_FRAME_BYTES: usize = MAX_MESSAGE_BYTES + 64 * MAX_REACH + 1024;

/// A want is asked of another peer after this time without an answer.
const WANT_TIMEOUT: Duration = Duration::from_secs(2);

/// A message is offered to everybody once more after this time: a publisher may have died before it
/// had pushed to all whom it named, and a line may have broken under a frame.
const SECOND_OFFER_DELAY: Duration = Duration::from_secs(1);

/// Most ids in one frame.
const MAX_IDS_PER_FRAME: usize = 1024;

/// How often what is old is forgotten while there is any.
const TIDY_EVERY: Duration = Duration::from_secs(5);

const NONCE_BYTES: usize = 16;

/// Why a message can't be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Over [`MAX_MESSAGE_BYTES`].
    #[error("a message of {bytes} bytes is over the limit of {MAX_MESSAGE_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The topic is empty or over [`MAX_TOPIC_BYTES`].
    #[error("a topic has 1 to {MAX_TOPIC_BYTES} bytes")]
    Topic,
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

pub(crate) struct Gossip {
    outbox: Outbox,
    state: Mutex<State>,
}

fn id_of(push: &Push) -> Id {
    let mut hash = Sha256::new();
    hash.update(b"instar/gossip/v1\0");
    hash.update(&push.nonce);
    hash.update(push.topic.as_bytes());
    hash.update([0]);
    hash.update(&push.data);
    hash.finalize().into()
}

impl Gossip {
    pub fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn subscribe(&self, topic: &str) -> Subscription {
        let (subscriber, subscription) = Subscriber::new();
        let mut state = self.lock();
        let subscribers = state.subscribers.entry(topic.to_owned()).or_default();
        subscribers.push(subscriber);
        subscription
    }

    /// Ends all subscriptions.
    pub fn close(&self) {
        self.lock().subscribers.clear();
    }

    /// Pushes a message to every connected peer; says to how many.
    pub fn publish(self: &Arc<Self>, topic: &str, data: &[u8]) -> Result<usize, PublishError> {
        if data.len() > MAX_MESSAGE_BYTES {
            return Err(PublishError::TooLarge { bytes: data.len() });
        }
        if topic.is_empty() || topic.len() > MAX_TOPIC_BYTES {
            return Err(PublishError::Topic);
        }
        let mut nonce = vec![0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| PublishError::Random)?;
        let now = Instant::now();
        let (peers, id, frame) = {
            let mut state = self.lock();
            let peers = state.peers.clone();
            let push = Push {
                topic: topic.to_owned(),
                nonce,
                data: data.to_vec(),
                reach: peers.iter().map(|peer| peer.to_bytes()).collect(),
            };
            let id = id_of(&push);
            let frame: Arc<[u8]> = Frame {
                push: Some(push),
                ..Frame::default()
            }
            .encode_to_vec()
            .into();
            // Under one lock with the list of peers: who connects meanwhile gets the offer.
            state.first_sight(id, now);
            state.offer(id, &frame, now);
            (peers, id, frame)
        };
        self.tidy_later();
        self.offer_again(id);
        let mut sent = 0;
        for peer in peers {
            match self.outbox.try_send(peer, Arc::clone(&frame)) {
                Ok(()) => sent += 1,
                Err(error) => {
                    tracing::warn!(%peer, %error, topic, "a message was not sent");
                    // An offer may still fit, and nobody else will make one.
                    let have = vec![id.to_vec()];
                    self.send(
                        peer,
                        Frame {
                            have,
                            ..Frame::default()
                        },
                    );
                }
            }
        }
        Ok(sent)
    }

    pub fn on_connected(&self, peer: PeerId) {
        let ids: Vec<Vec<u8>> = {
            let mut state = self.lock();
            if !state.peers.contains(&peer) {
                state.peers.push(peer);
            }
            state.expire_offers(Instant::now());
            let newest = state.offered_order.iter().rev().take(MAX_IDS_PER_FRAME);
            newest.map(|(_, id)| id.to_vec()).collect()
        };
        if !ids.is_empty() {
            self.send(
                peer,
                Frame {
                    have: ids,
                    ..Frame::default()
                },
            );
        }
    }

    pub fn on_disconnected(&self, peer: PeerId) {
        self.outbox.drop_peer(&peer);
        let asks = {
            let mut state = self.lock();
            state.peers.retain(|known| *known != peer);
            for wanted in state.wanted.values_mut() {
                wanted.others.retain(|other| *other != peer);
            }
            let asks = state.ask_others(Instant::now(), |wanted| wanted.of == peer);
            // What nobody else offered may be offered again by anybody.
            state.wanted.retain(|_, wanted| wanted.of != peer);
            asks
        };
        self.want(asks);
    }

    /// Offers a message to every peer after [`SECOND_OFFER_DELAY`]; who has it ignores that.
    fn offer_again(self: &Arc<Self>, id: Id) {
        let mut state = self.lock();
        state.second_offers.push(id);
        if state.second_offers.len() > 1 {
            return;
        }
        drop(state);
        let gossip = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(SECOND_OFFER_DELAY).await;
            let Some(gossip) = gossip.upgrade() else {
                return;
            };
            let (peers, ids) = {
                let mut state = gossip.lock();
                (
                    state.peers.clone(),
                    std::mem::take(&mut state.second_offers),
                )
            };
            for ids in ids.chunks(MAX_IDS_PER_FRAME) {
                let have: Vec<Vec<u8>> = ids.iter().map(|id| id.to_vec()).collect();
                for peer in &peers {
                    let have = have.clone();
                    gossip.send(
                        *peer,
                        Frame {
                            have,
                            ..Frame::default()
                        },
                    );
                }
            }
        });
    }

    /// Forgets what is old until nothing is left. To be called after something was noted.
    fn tidy_later(self: &Arc<Self>) {
        if std::mem::replace(&mut self.lock().tidying, true) {
            return;
        }
        let gossip = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                let Some(gossip) = gossip.upgrade() else {
                    return;
                };
                let mut state = gossip.lock();
                if !state.tidy(Instant::now()) {
                    state.tidying = false;
                    return;
                }
            }
        });
    }

    fn want(&self, asks: Vec<(PeerId, Id)>) {
        for (peer, id) in asks {
            let want = vec![id.to_vec()];
            self.send(
                peer,
                Frame {
                    want,
                    ..Frame::default()
                },
            );
        }
    }

    fn send(&self, peer: PeerId, frame: Frame) {
        // A queue that is full belongs to a peer that is far behind; it gets offers again later.
        let _ = self.outbox.try_send(peer, frame.encode_to_vec().into());
    }

    /// Reads one stream that a peer opened until it ends or breaks a rule.
    pub async fn read(self: Arc<Self>, peer: PeerId, mut frames: Frames<Stream>) {
        loop {
            let held = match frames.next(MAX_FRAME_BYTES).await {
                Ok(Some(held)) => held,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%peer, %error, "a gossip stream broke off");
                    return;
                }
            };
            let frame = match Frame::read(&held.bytes) {
                Ok(frame) => frame,
                Err(error) => {
                    tracing::warn!(%peer, %error, "not a gossip frame");
                    self.fault(peer, Fault::Forged);
                    return;
                }
            };
            if self.lock().conduct.rests(&peer, Instant::now()) {
                return;
            }
            if let Some(push) = frame.push {
                self.on_push(peer, push);
            }
            self.on_have(peer, &frame.have);
            self.on_want(peer, &frame.want);
        }
    }

    fn on_push(self: &Arc<Self>, peer: PeerId, push: Push) {
        if push.data.len() > MAX_MESSAGE_BYTES
            || push.nonce.len() != NONCE_BYTES
            || push.topic.is_empty()
            || push.topic.len() > MAX_TOPIC_BYTES
        {
            tracing::warn!(%peer, "a gossip message breaks the limits");
            self.fault(peer, Fault::Forged);
            return;
        }
        let id = id_of(&push);
        let now = Instant::now();
        let mut state = self.lock();
        state.wanted.remove(&id);
        if state.conduct.rests(&peer, now) || !state.first_sight(id, now) {
            return;
        }
        drop(state);
        self.tidy_later();
        let Push {
            topic,
            nonce,
            data: bytes,
            reach,
        } = push;
        self.lock().deliver(&Message {
            peer,
            bytes,
            id,
            topic,
            nonce,
            reach,
        });
    }

    /// Offers a message that was found good to those whom its publisher did not reach.
    pub fn pass_on(self: &Arc<Self>, message: Message) {
        let Message {
            peer,
            bytes,
            id,
            topic,
            nonce,
            reach,
        } = message;
        let reached: HashSet<PeerId> = reach
            .iter()
            .take(MAX_REACH)
            .filter_map(|peer| PeerId::from_bytes(peer).ok())
            .collect();
        let push = Push {
            topic,
            nonce,
            data: bytes,
            reach,
        };
        let frame = Frame {
            push: Some(push),
            ..Frame::default()
        };
        let others: Vec<PeerId> = {
            let mut state = self.lock();
            state.offer(id, &frame.encode_to_vec().into(), Instant::now());
            let others = state.peers.iter().copied();
            others
                .filter(|other| *other != peer && !reached.contains(other))
                .collect()
        };
        self.offer_again(id);
        for other in others {
            let have = vec![id.to_vec()];
            self.send(
                other,
                Frame {
                    have,
                    ..Frame::default()
                },
            );
        }
    }

    /// Holds against a peer what it handed over.
    pub fn fault(&self, peer: PeerId, fault: Fault) {
        if self.lock().conduct.fault(peer, fault, Instant::now()) {
            tracing::warn!(%peer, ?fault, "a peer hands over what no honest one does; it is not listened to for a while");
        }
    }

    /// How many peers are not listened to now.
    pub fn resting(&self) -> usize {
        self.lock().conduct.resting(Instant::now())
    }

    fn on_have(&self, peer: PeerId, ids: &[Vec<u8>]) {
        let now = Instant::now();
        let mut want = Vec::new();
        let mut late: Vec<(PeerId, Id)> = Vec::new();
        {
            let mut state = self.lock();
            for id in ids.iter().take(MAX_IDS_PER_FRAME) {
                let Ok(id) = Id::try_from(id.as_slice()) else {
                    continue;
                };
                if state.seen.contains_key(&id) {
                    continue;
                }
                if let Some(wanted) = state.wanted.get_mut(&id)
                    && now.duration_since(wanted.asked) < WANT_TIMEOUT
                {
                    wanted.others.push(peer);
                    continue;
                }
                if state.wanted.len() >= MAX_SEEN {
                    state.wanted.clear();
                }
                let wanted = Wanted {
                    asked: now,
                    of: peer,
                    others: Vec::new(),
                };
                state.wanted.insert(id, wanted);
                want.push(id.to_vec());
            }
            late.extend(state.ask_others(now, |wanted| {
                now.duration_since(wanted.asked) >= WANT_TIMEOUT
            }));
        }
        if !want.is_empty() {
            self.send(
                peer,
                Frame {
                    want,
                    ..Frame::default()
                },
            );
        }
        self.want(late);
    }

    fn on_want(&self, peer: PeerId, ids: &[Vec<u8>]) {
        for id in ids.iter().take(MAX_IDS_PER_FRAME) {
            let Ok(id) = Id::try_from(id.as_slice()) else {
                continue;
            };
            let frame = self.lock().offered.get(&id).map(Arc::clone);
            if let Some(frame) = frame {
                // As with any frame: a full queue means that it asks again later.
                let _ = self.outbox.try_send(peer, frame);
            }
        }
    }
}

#[cfg(test)]
mod tests;
