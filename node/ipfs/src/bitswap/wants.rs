//! Which blocks are waited for, by whom, and which peers were asked for them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cid::Cid;
use libp2p::PeerId;
use tokio::sync::mpsc;

/// What a peer said about a block that is waited for.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The block, checked: its address was computed from it.
    Block(PeerId, Arc<Vec<u8>>),
    /// It doesn't hold it.
    DontHave(PeerId),
    /// It sent something else, or it is gone.
    Lost(PeerId, &'static str),
}

/// The same book for all fetches of a peer.
#[derive(Debug, Default)]
pub struct Wants {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    next_waiter: u64,
    waiters: HashMap<Cid, Vec<(u64, mpsc::UnboundedSender<Answer>)>>,
    asked: HashMap<PeerId, Asked>,
}

/// What one peer was asked for, how often, and has not sent. A want that was given up or answered
/// with "don't have" stays in here: a peer may remember it and send the block late, which is no lie.
#[derive(Debug, Default)]
struct Asked {
    counts: HashMap<Cid, u32>,
    /// What it has sent lately. Peers send a block twice, when it was asked for in two ways: that is no lie either.
    sent: VecDeque<Cid>,
    /// Something was forgotten, so that an unknown block proves nothing any more.
    forgot: bool,
}

/// Asked blocks that one peer may leave unanswered before they are forgotten.
const MAX_ASKED_PER_PEER: usize = 8192;

/// Blocks that one peer has sent and that are remembered.
const MAX_SENT_PER_PEER: usize = 2048;

impl Asked {
    fn note(&mut self, cid: Cid) {
        if self.counts.len() >= MAX_ASKED_PER_PEER {
            self.counts.clear();
            self.forgot = true;
        }
        *self.counts.entry(cid).or_default() += 1;
    }

    /// Takes one answer off; false if none was due.
    fn settle(&mut self, cid: &Cid) -> bool {
        let Some(count) = self.counts.get_mut(cid) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(cid);
            if self.sent.len() >= MAX_SENT_PER_PEER {
                self.sent.pop_front();
            }
            self.sent.push_back(*cid);
        }
        true
    }
}

impl Book {
    fn tell(&self, cid: &Cid, answer: &Answer) {
        for (_, waiter) in self.waiters.get(cid).into_iter().flatten() {
            // A waiter that is gone needs no answer.
            let _ = waiter.send(answer.clone());
        }
    }
}

impl Wants {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a block until the waiter is dropped.
    pub fn wait(self: &Arc<Self>, cid: Cid) -> Waiter {
        let (sender, answers) = mpsc::unbounded_channel();
        let mut book = self.lock();
        let number = book.next_waiter;
        book.next_waiter += 1;
        book.waiters.entry(cid).or_default().push((number, sender));
        Waiter {
            wants: Arc::clone(self),
            cid,
            number,
            answers,
        }
    }

    /// Notes that `peer` is being asked for `cid`.
    pub fn note_asked(&self, peer: PeerId, cid: Cid) {
        self.lock().asked.entry(peer).or_default().note(cid);
    }

    pub fn on_block(&self, peer: PeerId, cid: Cid, data: Vec<u8>) {
        let mut book = self.lock();
        let Some(asked) = book.asked.get_mut(&peer) else {
            // Nothing was asked of it: the block is dropped and nobody waits.
            return;
        };
        if asked.settle(&cid) {
            book.tell(&cid, &Answer::Block(peer, Arc::new(data)));
        } else if !asked.forgot && !asked.counts.is_empty() && !asked.sent.contains(&cid) {
            drop(book);
            self.on_lie(
                peer,
                "it sent a block with another hash than any that was asked for",
            );
        }
    }

    pub fn on_dont_have(&self, peer: PeerId, cid: &Cid) {
        let book = self.lock();
        let asked = book.asked.get(&peer);
        if asked.is_some_and(|asked| asked.counts.contains_key(cid)) {
            book.tell(cid, &Answer::DontHave(peer));
        }
    }

    /// Everything that the peer was asked for has to come from elsewhere.
    pub fn on_lie(&self, peer: PeerId, why: &'static str) {
        tracing::warn!(%peer, why, "a peer is not believed any more");
        self.lose(peer, why);
    }

    pub fn on_disconnect(&self, peer: PeerId) {
        self.lose(peer, "");
    }

    fn lose(&self, peer: PeerId, why: &'static str) {
        let mut book = self.lock();
        let asked = book.asked.remove(&peer).unwrap_or_default();
        for cid in asked.counts.keys() {
            book.tell(cid, &Answer::Lost(peer, why));
        }
    }
}

/// Waits for one block.
#[derive(Debug)]
pub struct Waiter {
    wants: Arc<Wants>,
    cid: Cid,
    number: u64,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Waiter {
    /// The next answer from any peer.
    pub async fn answer(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            // The sender stands in the book as long as this lives.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut book = self.wants.lock();
        if let Some(waiters) = book.waiters.get_mut(&self.cid) {
            waiters.retain(|(number, _)| *number != self.number);
            if waiters.is_empty() {
                book.waiters.remove(&self.cid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use instar_chunks::block::{RAW, cid_of};

    use super::*;

    fn next(waiter: &mut Waiter) -> Option<Answer> {
        waiter.answers.try_recv().ok()
    }

    #[test]
    fn a_slow_peer_that_answers_twice_is_no_liar() {
        let wants = Arc::new(Wants::default());
        let peer = PeerId::random();
        let (a, b) = (cid_of(RAW, b"a"), cid_of(RAW, b"b"));
        let (mut wait_a, mut wait_b) = (wants.wait(a), wants.wait(b));
        wants.note_asked(peer, a);
        wants.note_asked(peer, b);
        // Too slow: asked again, and both questions are answered.
        wants.note_asked(peer, a);
        wants.on_block(peer, a, b"a".to_vec());
        wants.on_block(peer, a, b"a".to_vec());
        assert!(matches!(next(&mut wait_a), Some(Answer::Block(..))));
        assert!(next(&mut wait_b).is_none(), "nothing was held against it");
        // Asked once and sent once more: it was asked for.
        wants.on_block(peer, a, b"a".to_vec());
        assert!(next(&mut wait_b).is_none(), "nothing was held against it");
        // "Don't have", and then it has: a peer may remember what was wanted.
        wants.on_dont_have(peer, &b);
        wants.on_block(peer, b, b"b".to_vec());
        assert!(matches!(next(&mut wait_b), Some(Answer::DontHave(_))));
        assert!(matches!(next(&mut wait_b), Some(Answer::Block(..))));
    }

    #[test]
    fn a_block_that_nobody_asked_for_while_others_are_due_is_a_lie() {
        let wants = Arc::new(Wants::default());
        let (liar, stranger) = (PeerId::random(), PeerId::random());
        let a = cid_of(RAW, b"a");
        let mut waiter = wants.wait(a);
        wants.note_asked(liar, a);
        wants.on_block(stranger, cid_of(RAW, b"x"), b"x".to_vec());
        assert!(
            next(&mut waiter).is_none(),
            "a stranger's block moves nobody"
        );
        wants.on_block(liar, cid_of(RAW, b"x"), b"x".to_vec());
        assert!(
            matches!(next(&mut waiter), Some(Answer::Lost(peer, why)) if peer == liar && !why.is_empty())
        );
    }
}
