//! Which blocks are waited for, by whom, and which peers were asked for them.

use std::collections::{HashMap, HashSet};
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
    /// Also what was asked and given up, until it is answered: a late block is no lie.
    asked: HashMap<PeerId, HashSet<Cid>>,
}

/// Asked blocks that one peer may leave unanswered before the oldest memory of them goes.
const MAX_ASKED_PER_PEER: usize = 8192;

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
        let mut book = self.lock();
        let asked = book.asked.entry(peer).or_default();
        if asked.len() >= MAX_ASKED_PER_PEER {
            asked.clear();
        }
        asked.insert(cid);
    }

    pub fn on_block(&self, peer: PeerId, cid: Cid, data: Vec<u8>) {
        let mut book = self.lock();
        let asked = book.asked.entry(peer).or_default();
        if asked.remove(&cid) {
            book.tell(&cid, &Answer::Block(peer, Arc::new(data)));
        } else if !asked.is_empty() {
            drop(book);
            self.on_lie(
                peer,
                "it sent a block with another hash than any that was asked for",
            );
        }
        // Otherwise nothing was asked of it: the block is dropped and nobody waits.
    }

    pub fn on_dont_have(&self, peer: PeerId, cid: &Cid) {
        let mut book = self.lock();
        if book
            .asked
            .get_mut(&peer)
            .is_some_and(|asked| asked.remove(cid))
        {
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
        for cid in book.asked.remove(&peer).unwrap_or_default() {
            book.tell(&cid, &Answer::Lost(peer, why));
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
