//! What the threads of one fetch share: what is wanted, who was asked, what became of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cid::Cid;
use instar_chunks::block::{canonical, verify};
use instar_chunks::car::CarReader;
use instar_chunks::{BlockError, Blocks, Limits, Walk};

use super::{
    FLUSH_BYTES, MAX_FAILURES, MAX_OVERTAKEN, MixedError, MixedReport, SLOW, Source, SourceError,
    SourceReport,
};

/// Waits for work to turn up no longer than this before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Wait before a source that failed is asked again, for each failure in a row.
const AFTER_FAILURE: Duration = Duration::from_millis(300);

pub(super) struct Board<'a> {
    store: &'a (dyn Blocks + Sync),
    root: Cid,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    walk: Walk,
    /// Not held here, and nobody is being asked.
    queue: VecDeque<Cid>,
    /// Being looked for: who is being asked since when.
    asked: HashMap<Cid, Vec<(Option<usize>, Instant)>>,
    /// Who said that it doesn't have a block.
    absent: HashMap<Cid, HashSet<usize>>,
    sources: Vec<SourceState>,
    unsaved: Vec<(Cid, Vec<u8>)>,
    unsaved_bytes: usize,
    visited: usize,
    fetched: (u64, u64),
    over: Option<Result<(), MixedError>>,
}

#[derive(Default)]
struct SourceState {
    report: SourceReport,
    failures: u32,
    overtaken: u32,
}

/// What a thread is to do next.
enum Job {
    /// Look in the local store first.
    Fresh(Cid),
    /// It isn't there.
    Ask(Cid),
}

impl<'a> Board<'a> {
    pub fn new(
        store: &'a (dyn Blocks + Sync),
        sources: &[Box<dyn Source>],
        root: &Cid,
        limits: &Limits,
    ) -> Result<Self, MixedError> {
        let refused = |source| MixedError::Dag {
            root: Box::new(*root),
            source: Box::new(source),
        };
        let canonical = canonical(root).map_err(|e| refused(e.into()))?;
        let walk = Walk::new(&canonical, *limits).map_err(refused)?;
        let sources = sources
            .iter()
            .map(|source| SourceState {
                report: SourceReport {
                    name: source.name(),
                    ..SourceReport::default()
                },
                ..SourceState::default()
            })
            .collect();
        Ok(Self {
            store,
            root: *root,
            state: Mutex::new(State {
                walk,
                queue: VecDeque::new(),
                asked: HashMap::new(),
                absent: HashMap::new(),
                sources,
                unsaved: Vec::new(),
                unsaved_bytes: 0,
                visited: 0,
                fetched: (0, 0),
                over: None,
            }),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked ends the whole fetch with it; the scope says so.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works for one source (or, without one, from the local store alone) until the fetch is over.
    pub fn work(
        &self,
        source: Option<(usize, &dyn Source)>,
        progress: &(dyn Fn(usize, u64) + Sync),
    ) {
        while let Some(job) = self.next_job(source.map(|(number, _)| number)) {
            let cid = match job {
                Job::Ask(cid) => cid,
                Job::Fresh(cid) => match self.store.get(&cid) {
                    Ok(Some(bytes)) => {
                        self.arrived(&cid, bytes, None, progress);
                        continue;
                    }
                    // A copy that went bad is fetched again and replaced.
                    Ok(None) | Err(BlockError::Corrupt { .. }) => cid,
                    Err(error) => {
                        self.stop(self.store_failed(error));
                        return;
                    }
                },
            };
            let Some((number, source)) = source else {
                self.absent(&cid, None);
                continue;
            };
            let wait = match source.get(&cid) {
                Ok(Some(bytes)) => match verify(&cid, &bytes) {
                    Ok(()) => {
                        self.arrived(&cid, bytes, Some(number), progress);
                        None
                    }
                    Err(lie) => {
                        self.drop_source(number, &cid, &format!("it lied: {lie}"));
                        None
                    }
                },
                Ok(None) => {
                    self.absent(&cid, Some(number));
                    None
                }
                Err(error) => self.failed(number, &cid, &error),
            };
            if let Some(wait) = wait {
                std::thread::sleep(wait);
            }
        }
    }

    fn next_job(&self, number: Option<usize>) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.over.is_some() {
                return None;
            }
            if let Some(number) = number
                && state.sources[number].report.dropped.is_some()
            {
                return None;
            }
            let now = Instant::now();
            let declined = |state: &State, cid: &Cid| {
                number.is_some_and(|n| state.absent.get(cid).is_some_and(|who| who.contains(&n)))
            };
            let queued = state.queue.iter().position(|cid| !declined(&state, cid));
            if let Some(cid) = queued.and_then(|at| state.queue.remove(at)) {
                state.asked.entry(cid).or_default().push((number, now));
                return Some(Job::Ask(cid));
            }
            if let Some(cid) = state.walk.next_wanted() {
                state.asked.entry(cid).or_default().push((number, now));
                return Some(Job::Fresh(cid));
            }
            // Nothing new: help with what takes somebody else too long.
            let late = state.asked.iter().find(|(cid, who)| {
                !declined(&state, cid)
                    && who.iter().all(|(other, _)| *other != number)
                    && who
                        .iter()
                        .all(|(_, since)| now.duration_since(*since) > SLOW)
            });
            if let Some(cid) = late.map(|(cid, _)| *cid) {
                state.asked.entry(cid).or_default().push((number, now));
                return Some(Job::Ask(cid));
            }
            (state, _) = self
                .changed
                .wait_timeout(state, LOOK_AGAIN)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn store_failed(&self, source: BlockError) -> MixedError {
        MixedError::Store {
            root: Box::new(self.root),
            source: Box::new(source),
        }
    }

    fn stop(&self, error: MixedError) {
        let mut state = self.lock();
        if state.over.is_none() {
            state.over = Some(Err(error));
        }
        self.changed.notify_all();
    }

    /// Takes a checked block; `number` says who sent it, if it wasn't here already.
    fn arrived(
        &self,
        cid: &Cid,
        bytes: Vec<u8>,
        number: Option<usize>,
        progress: &(dyn Fn(usize, u64) + Sync),
    ) {
        let mut state = self.lock();
        let Some(who) = state.asked.remove(cid) else {
            // Somebody else was faster.
            return;
        };
        if let Some(number) = number {
            for (other, since) in who {
                if let Some(other) = other.filter(|other| *other != number)
                    && since.elapsed() > SLOW
                {
                    state.overtaken(other);
                }
            }
            let source = &mut state.sources[number];
            source.failures = 0;
            source.report.blocks += 1;
            source.report.bytes += bytes.len() as u64;
        }
        if let Err(source) = state.walk.visit(cid, &bytes) {
            drop(state);
            self.stop(MixedError::Dag {
                root: Box::new(self.root),
                source: Box::new(source),
            });
            return;
        }
        state.absent.remove(cid);
        state.visited += 1;
        if number.is_some() {
            state.fetched.0 += 1;
            state.fetched.1 += bytes.len() as u64;
            state.unsaved_bytes += bytes.len();
            state.unsaved.push((*cid, bytes));
        }
        progress(state.visited, state.walk.bytes());
        if state.walk.is_done() && state.queue.is_empty() && state.over.is_none() {
            state.over = Some(Ok(()));
        }
        let full = state.unsaved_bytes >= FLUSH_BYTES;
        self.changed.notify_all();
        let save = match full {
            true => {
                state.unsaved_bytes = 0;
                std::mem::take(&mut state.unsaved)
            }
            false => Vec::new(),
        };
        drop(state);
        if let Err(error) = self.store.put_many(&save) {
            self.stop(self.store_failed(error));
        }
    }

    fn absent(&self, cid: &Cid, number: Option<usize>) {
        let mut state = self.lock();
        if let Some(number) = number {
            state.sources[number].failures = 0;
            state.absent.entry(*cid).or_default().insert(number);
        }
        self.give_back(&mut state, cid, number);
    }

    fn failed(&self, number: usize, cid: &Cid, error: &SourceError) -> Option<Duration> {
        let mut state = self.lock();
        let source = &mut state.sources[number];
        source.failures += 1;
        let failures = source.failures;
        if failures >= MAX_FAILURES {
            source
                .report
                .dropped
                .get_or_insert_with(|| format!("it failed {failures} times: {error}"));
        }
        self.give_back(&mut state, cid, Some(number));
        (failures < MAX_FAILURES).then(|| AFTER_FAILURE * failures)
    }

    fn drop_source(&self, number: usize, cid: &Cid, why: &str) {
        let mut state = self.lock();
        let report = &mut state.sources[number].report;
        report.dropped.get_or_insert_with(|| why.to_owned());
        self.give_back(&mut state, cid, Some(number));
    }

    /// The block is still wanted, unless nobody is left who may have it.
    fn give_back(&self, state: &mut State, cid: &Cid, number: Option<usize>) {
        let Some(who) = state.asked.get_mut(cid) else {
            return;
        };
        who.retain(|(other, _)| *other != number);
        if who.is_empty() {
            state.asked.remove(cid);
            state.queue.push_back(*cid);
        }
        let nobody = |cid: &Cid| {
            state.sources.iter().enumerate().all(|(number, source)| {
                source.report.dropped.is_some()
                    || state
                        .absent
                        .get(cid)
                        .is_some_and(|who| who.contains(&number))
            })
        };
        let lost = state.queue.iter().find(|cid| nobody(cid)).copied();
        if let Some(missing) = lost
            && state.over.is_none()
        {
            state.over = Some(Err(MixedError::Nowhere {
                root: Box::new(self.root),
                missing: Box::new(missing),
                sources: Vec::new(),
            }));
        }
        self.changed.notify_all();
    }

    /// Takes what it can from one archive. Whatever goes wrong, the rest comes block by block.
    pub fn drain(
        &self,
        source: &dyn Source,
        progress: &(dyn Fn(usize, u64) + Sync),
    ) -> Result<(), MixedError> {
        match self.store.has(&self.root) {
            // Part of it is here: an archive would bring that again.
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(self.store_failed(error)),
        }
        let Some(Ok(stream)) = source.stream(&self.root) else {
            return Ok(());
        };
        let Ok(mut car) = CarReader::new(std::io::BufReader::new(stream)) else {
            return Ok(());
        };
        loop {
            // Everything that is known to be wanted may come now; nothing else is kept, so that an
            // archive can't fill the disk with what nobody asked for.
            self.expect_all();
            match car.next_block() {
                Ok(Some((cid, bytes))) => {
                    let cid = canonical(&cid).map_err(|e| self.store_failed(e))?;
                    if !self.lock().asked.contains_key(&cid) {
                        // A block again, or one too many.
                        continue;
                    }
                    self.arrived(&cid, bytes, Some(0), progress);
                }
                Ok(None) => break,
                Err(instar_chunks::car::CarError::Block { source, .. }) => {
                    let mut state = self.lock();
                    state.sources[0].report.dropped = Some(format!("it lied: {source}"));
                    break;
                }
                Err(_) => break,
            }
            if self.lock().over.is_some() {
                break;
            }
        }
        // What didn't come goes through the queue.
        let mut state = self.lock();
        let rest: Vec<Cid> = state.asked.drain().map(|(cid, _)| cid).collect();
        state.queue.extend(rest);
        if state.sources[0].report.dropped.is_some()
            && state.over.is_none()
            && let Some(missing) = state.queue.front().copied()
        {
            state.over = Some(Err(MixedError::Nowhere {
                root: Box::new(self.root),
                missing: Box::new(missing),
                sources: Vec::new(),
            }));
        }
        Ok(())
    }

    fn expect_all(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        while let Some(cid) = state.walk.next_wanted() {
            state.asked.entry(cid).or_default().push((Some(0), now));
        }
    }

    /// Keeps what is not kept yet, and says how it went.
    pub fn finish(self) -> Result<MixedReport, MixedError> {
        let mut state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let saved = self.store.put_many(&std::mem::take(&mut state.unsaved));
        let sources: Vec<SourceReport> = state.sources.into_iter().map(|s| s.report).collect();
        match state.over {
            Some(Err(MixedError::Nowhere { root, missing, .. })) => {
                return Err(MixedError::Nowhere {
                    root,
                    missing,
                    sources,
                });
            }
            Some(Err(error)) => return Err(error),
            Some(Ok(())) => {}
            // The root carries itself, or every thread ended because its source was dropped.
            None if state.walk.is_done() => {}
            None => {
                return Err(MixedError::Nowhere {
                    root: Box::new(self.root),
                    missing: Box::new(state.queue.front().copied().unwrap_or(self.root)),
                    sources,
                });
            }
        }
        saved.map_err(|source| MixedError::Store {
            root: Box::new(self.root),
            source: Box::new(source),
        })?;
        Ok(MixedReport {
            blocks: state.walk.blocks(),
            bytes: state.walk.bytes(),
            fetched_blocks: state.fetched.0,
            fetched_bytes: state.fetched.1,
            sources,
        })
    }
}

impl State {
    fn overtaken(&mut self, number: usize) {
        // The last one left is waited for, however slow.
        let left = self
            .sources
            .iter()
            .filter(|s| s.report.dropped.is_none())
            .count();
        let source = &mut self.sources[number];
        source.overtaken += 1;
        if source.overtaken >= MAX_OVERTAKEN && left > 1 {
            source
                .report
                .dropped
                .get_or_insert_with(|| "it was too slow".to_owned());
        }
    }
}
