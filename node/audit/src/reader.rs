//! Reads blocks and what they merge, on all cores, ahead of the walk: exact bytes and every signature. None of it needs
//! the state, so blocks are read side by side and handed over in order.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use instar_attest::{ChainId, PublicKey};
use instar_ledger::grammar::{self, Signatures};
use instar_ledger::{Block, CertificateError, ForkRange, LaneCommit, LaneRange, Oid, Slice, fork};

use crate::history::History;
use crate::objects::Objects;
use crate::wrong::{At, Wrong};

/// Threads that read; more of them than this wait for the walk anyway.
const MAX_READERS: usize = 8;
/// Blocks that each reader may be ahead. A full block takes some tens of megabytes.
const AHEAD: u64 = 4;

/// A block with what it merges, all of it read exactly.
pub struct Read {
    /// The block.
    pub block: Block,
    /// The commits of each lane in merge order, each with the key that signed it.
    pub lanes: Vec<(LaneCommit, PublicKey)>,
    /// What it merges of a fork.
    pub slice: Option<Slice>,
    /// What became of the signatures of the certificate in it, which is the previous block's.
    pub previous: Result<(), CertificateError>,
}

/// Hands every block from `from` on to `take`, in order, until it fails. Below or at `trusted` no signature is verified.
pub fn read_in_order<E>(
    history: &History,
    from: u64,
    trusted: u64,
    mut take: impl FnMut(u64, Result<Read, Wrong>) -> Result<(), E>,
) -> Result<(), E> {
    let last = history.height();
    let readers = std::thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(MAX_READERS);
    let queue = Queue {
        state: Mutex::new(State {
            next: from,
            wanted: from,
            last,
            read: BTreeMap::new(),
            broken: false,
        }),
        changed: Condvar::new(),
        ahead: AHEAD * readers as u64,
    };
    // The ids are copied: the clone's handle in the history can't be shared between threads.
    let ids: Vec<Oid> = (from..=last).filter_map(|h| history.id(h)).collect();
    let chain = history.chain;
    std::thread::scope(|scope| {
        let _stop = Stop(&queue);
        for _ in 0..readers {
            let objects = history.objects.again();
            let (queue, ids) = (&queue, &ids);
            scope.spawn(move || {
                let _broken = Broken(queue);
                let mut objects = objects;
                while let Some(height) = queue.take() {
                    let id = ids[(height - from) as usize];
                    let signatures = match height <= trusted {
                        true => Signatures::Trusted,
                        false => Signatures::Check,
                    };
                    let read = match &mut objects {
                        Ok(objects) => read(objects, &chain, height, id, signatures),
                        Err(e) => Err(At::block("blocks", height, id).unread(e)),
                    };
                    queue.put(height, read);
                }
            });
        }
        for height in from..=last {
            take(height, queue.get(height))?;
        }
        Ok(())
    })
}

/// Blocks under way between readers and the walk.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    ahead: u64,
}

struct State {
    /// The next height that a reader takes.
    next: u64,
    /// The height that the walk waits for.
    wanted: u64,
    last: u64,
    read: BTreeMap<u64, Result<Read, Wrong>>,
    /// A reader panicked.
    broken: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<u64> {
        let mut state = self.lock();
        while state.next <= state.last && state.next >= state.wanted + self.ahead {
            state = self.wait(state);
        }
        let height = state.next;
        state.next += 1;
        (height <= state.last).then_some(height)
    }

    fn put(&self, height: u64, read: Result<Read, Wrong>) {
        self.lock().read.insert(height, read);
        self.changed.notify_all();
    }

    fn get(&self, height: u64) -> Result<Read, Wrong> {
        let mut state = self.lock();
        loop {
            if let Some(read) = state.read.remove(&height) {
                state.wanted = height + 1;
                self.changed.notify_all();
                return read;
            }
            assert!(!state.broken, "a reader of blocks panicked");
            state = self.wait(state);
        }
    }
}

/// Lets the readers end when the walk does, however it ends.
struct Stop<'a>(&'a Queue);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.lock().last = 0;
        self.0.changed.notify_all();
    }
}

/// Tells the walk when a reader panics, so that it does not wait for ever.
struct Broken<'a>(&'a Queue);

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().broken = true;
            self.0.changed.notify_all();
        }
    }
}

fn read(
    objects: &Objects,
    chain: &ChainId,
    height: u64,
    id: Oid,
    signatures: Signatures,
) -> Result<Read, Wrong> {
    let at = At::block("blocks", height, id);
    let block = grammar::read_block(id, chain, |id, kind| objects.read(id, kind))
        .map_err(|e| at.unread(&e))?;
    if block.header.height != height {
        let why = format!("its header says height {}", block.header.height);
        return Err(at.wrong("block-height", why));
    }
    let mut lanes = Vec::new();
    for range in &block.header.lanes {
        lanes.extend(lane(objects, chain, height, range, signatures)?);
    }
    let slice = block.header.forks.first();
    let slice = slice
        .map(|range| slice_of(objects, height, range, signatures))
        .transpose()?;
    let previous = match (&block.previous, signatures) {
        (Some(certificate), Signatures::Check) => certificate.verify_signatures(chain),
        _ => Ok(()),
    };
    Ok(Read {
        block,
        lanes,
        slice,
        previous,
    })
}

/// What a block merges of a fork: every byte, and the signatures of the fork's own.
fn slice_of(
    objects: &Objects,
    height: u64,
    range: &ForkRange,
    signatures: Signatures,
) -> Result<Slice, Wrong> {
    let what = format!(
        "blocks {} to {} of fork {}",
        range.from, range.to, range.chain
    );
    let at = At::new("fork-slices", what)
        .object(range.head)
        .height(height);
    fork::read_slice(range, signatures, |id, kind| objects.read(id, kind))
        .map_err(|e| at.unread(&e))
}

/// The commits that a block merges of one lane, oldest first.
fn lane(
    objects: &Objects,
    chain: &ChainId,
    height: u64,
    range: &LaneRange,
    signatures: Signatures,
) -> Result<Vec<(LaneCommit, PublicKey)>, Wrong> {
    let mut out = Vec::new();
    let mut id = range.head;
    // The number of commits is bounded by the grammar of headers.
    for seq in (range.from..=range.to).rev() {
        let at = At::new("lane-commits", format!("lane commit {id}"))
            .object(id)
            .height(height);
        let fetch = |id: &Oid, kind| objects.read(id, kind);
        let (commit, key) = grammar::read_lane_commit_with(id, chain, signatures, fetch)
            .map_err(|e| at.unread(&e))?;
        if commit.lane != range.lane() {
            let why = format!(
                "it belongs to lane {}, not to {}",
                commit.lane,
                range.lane()
            );
            return Err(at.wrong("other-lane", why));
        }
        if commit.seq != seq {
            let why = format!("it has sequence number {}, not {seq}", commit.seq);
            return Err(at.wrong("lane-sequence", why));
        }
        id = commit.parent;
        out.push((commit, key));
    }
    out.reverse();
    Ok(out)
}
