//! What a peer remembers of messages: seen, offered, wanted. No I/O; time is passed in.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::conduct::Conduct;
use super::subscription::{Message, Subscriber};

/// How long a message is offered to peers that connect, and handed to those who ask.
const OFFER_TIME: Duration = Duration::from_secs(20);
/// Most bytes that are kept for that: seconds of a chain under full load, for which a board has memory. Who comes later
/// asks for lanes.
pub const MAX_OFFERED_BYTES: usize = 8 * 1024 * 1024;

/// How long an id is remembered, so that an echo is not taken for news.
const SEEN_TIME: Duration = Duration::from_secs(60);
/// Most ids remembered.
pub const MAX_SEEN: usize = 65_536;

/// Room for so many ids is kept when there are fewer: growing costs more than that.
const ROOM_KEPT: usize = 1024;

/// What a message is known by.
pub type Id = [u8; 32];

/// The book of one peer.
#[derive(Default)]
pub struct State {
    pub peers: Vec<PeerId>,
    pub subscribers: HashMap<String, Vec<Subscriber>>,
    /// When each id was first seen, and in which order.
    pub seen: HashMap<Id, Instant>,
    pub seen_order: VecDeque<Id>,
    pub offered: HashMap<Id, Arc<[u8]>>,
    pub offered_order: VecDeque<(Instant, Id)>,
    pub offered_bytes: usize,
    /// Messages that were asked for: whom, when, and who else has it.
    pub wanted: HashMap<Id, Wanted>,
    pub conduct: Conduct,
    /// Messages to offer once more; a task waits to do so unless this is empty.
    pub second_offers: Vec<Id>,
    /// A task forgets what is old.
    pub tidying: bool,
}

/// A message that was asked for.
pub struct Wanted {
    pub asked: Instant,
    pub of: PeerId,
    pub others: Vec<PeerId>,
}

impl State {
    /// Remembers an id; false if it was known.
    pub fn first_sight(&mut self, id: Id, now: Instant) -> bool {
        self.forget_seen(now, MAX_SEEN - 1);
        if self.seen.contains_key(&id) {
            return false;
        }
        self.seen.insert(id, now);
        self.seen_order.push_back(id);
        true
    }

    /// Forgets ids that are old, and the oldest above so many.
    fn forget_seen(&mut self, now: Instant, most: usize) {
        while let Some(oldest) = self.seen_order.front() {
            let expired = self
                .seen
                .get(oldest)
                .is_none_or(|at| now.duration_since(*at) > SEEN_TIME);
            if !expired && self.seen_order.len() <= most {
                break;
            }
            if let Some(id) = self.seen_order.pop_front() {
                self.seen.remove(&id);
            }
        }
    }

    /// Keeps a frame for those who ask for it in the next seconds.
    pub fn offer(&mut self, id: Id, frame: &Arc<[u8]>, now: Instant) {
        self.offered_bytes += frame.len();
        self.offered.insert(id, Arc::clone(frame));
        self.offered_order.push_back((now, id));
        self.expire_offers(now);
    }

    pub fn expire_offers(&mut self, now: Instant) {
        while let Some((at, id)) = self.offered_order.front().copied() {
            if self.offered_bytes <= MAX_OFFERED_BYTES && now.duration_since(at) <= OFFER_TIME {
                break;
            }
            self.offered_order.pop_front();
            if let Some(frame) = self.offered.remove(&id) {
                self.offered_bytes -= frame.len();
            }
        }
    }

    /// Forgets what is old also while no message comes, with the room that a busy minute needed. False when nothing is
    /// left to forget.
    pub fn tidy(&mut self, now: Instant) -> bool {
        self.forget_seen(now, MAX_SEEN);
        self.expire_offers(now);
        if has_room(self.seen.capacity(), self.seen.len()) {
            self.seen.shrink_to(ROOM_KEPT);
            self.seen_order.shrink_to(ROOM_KEPT);
        }
        if has_room(self.offered.capacity(), self.offered.len()) {
            self.offered.shrink_to(ROOM_KEPT);
            self.offered_order.shrink_to(ROOM_KEPT);
        }
        if has_room(self.wanted.capacity(), self.wanted.len()) {
            self.wanted.shrink_to(ROOM_KEPT);
        }
        !self.seen.is_empty() || !self.offered.is_empty()
    }

    /// Of the messages asked for in vain, asks the next peer who offered them.
    pub fn ask_others(
        &mut self,
        now: Instant,
        in_vain: impl Fn(&Wanted) -> bool,
    ) -> Vec<(PeerId, Id)> {
        let mut asks = Vec::new();
        for (id, wanted) in &mut self.wanted {
            if in_vain(wanted)
                && let Some(other) = wanted.others.pop()
            {
                wanted.asked = now;
                wanted.of = other;
                asks.push((other, *id));
            }
        }
        asks
    }

    pub fn deliver(&mut self, message: &Message) {
        let Some(subscribers) = self.subscribers.get_mut(&message.topic) else {
            return;
        };
        subscribers.retain(|subscriber| subscriber.deliver(message));
    }
}

/// Whether a table has far more room than it needs: a hash table has room for seven eighths of a power of two.
fn has_room(capacity: usize, used: usize) -> bool {
    capacity > 4 * used.max(ROOM_KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_remembered_up_to_a_bound() {
        let mut state = State::default();
        let now = Instant::now();
        let id = |number: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            id
        };
        for number in 0..MAX_SEEN + 10 {
            assert!(state.first_sight(id(number), now));
        }
        assert!(!state.first_sight(id(MAX_SEEN), now));
        assert!(state.seen.len() <= MAX_SEEN);
        assert!(state.first_sight(id(0), now), "the oldest is forgotten");
        let later = now + SEEN_TIME + Duration::from_secs(1);
        assert!(state.first_sight(id(MAX_SEEN), later), "and so is the old");
    }

    #[test]
    fn while_nothing_comes_everything_is_forgotten_with_its_room() {
        let mut state = State::default();
        let now = Instant::now();
        for number in 0..MAX_SEEN {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            state.first_sight(id, now);
            state.offer(id, &vec![7; 64].into(), now);
        }
        assert!(state.tidy(now), "nothing is old yet");
        assert!(state.seen.len() == MAX_SEEN && !state.offered.is_empty());
        assert!(state.tidy(now + OFFER_TIME + Duration::from_secs(1)));
        assert!(state.offered.is_empty() && state.offered_bytes == 0);
        assert!(state.offered.capacity() <= 4 * ROOM_KEPT);
        assert!(!state.tidy(now + SEEN_TIME + Duration::from_secs(1)));
        assert!(state.seen.is_empty() && state.seen_order.is_empty());
        assert!(state.seen.capacity() <= 4 * ROOM_KEPT);
        assert!(state.seen_order.capacity() <= 4 * ROOM_KEPT);
    }
}
