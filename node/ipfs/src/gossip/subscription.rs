//! The reading end: messages of one topic, a bounded amount unread.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use libp2p::PeerId;
use tokio::sync::mpsc;

use super::state::Id;

/// What a subscriber may leave unread. Beyond that new messages are dropped for it, and said so.
pub const MAX_UNREAD_BYTES: usize = 64 * 1024 * 1024;

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The neighbour who handed it over; not always who wrote it.
    pub peer: PeerId,
    /// What was published.
    pub bytes: Vec<u8>,
    pub(super) id: Id,
    pub(super) topic: String,
    pub(super) nonce: Vec<u8>,
    /// To whom its publisher pushed it.
    pub(super) reach: Vec<Vec<u8>>,
}

/// The messages of one topic, in the order of their arrival; a [`futures::Stream`].
#[derive(Debug)]
pub struct Subscription {
    pub(super) messages: mpsc::UnboundedReceiver<Message>,
    unread: Arc<AtomicUsize>,
}

impl Subscription {
    /// The next message; `None` once the peer has shut down.
    pub async fn recv(&mut self) -> Option<Message> {
        std::future::poll_fn(|cx| self.poll_message(cx)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let next = self.messages.poll_recv(cx);
        if let Poll::Ready(Some(message)) = &next {
            self.unread
                .fetch_sub(message.bytes.len(), Ordering::Relaxed);
        }
        next
    }
}

impl futures::Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.poll_message(cx)
    }
}

/// The writing end.
pub(super) struct Subscriber {
    messages: mpsc::UnboundedSender<Message>,
    unread: Arc<AtomicUsize>,
}

impl Subscriber {
    /// Both ends of a new subscription.
    pub fn new() -> (Self, Subscription) {
        let (sender, messages) = mpsc::unbounded_channel();
        let unread = Arc::new(AtomicUsize::new(0));
        let subscriber = Self {
            messages: sender,
            unread: Arc::clone(&unread),
        };
        (subscriber, Subscription { messages, unread })
    }

    /// Hands a message over, or drops it if too much is unread; false if nobody reads any more.
    pub fn deliver(&self, message: &Message) -> bool {
        let topic = &message.topic;
        let bytes = message.bytes.len();
        let unread = self.unread.load(Ordering::Relaxed);
        if unread + bytes > MAX_UNREAD_BYTES {
            tracing::warn!(
                topic,
                unread,
                "a subscriber is too slow; a message is dropped"
            );
            return !self.messages.is_closed();
        }
        self.unread.fetch_add(bytes, Ordering::Relaxed);
        self.messages.send(message.clone()).is_ok()
    }
}
