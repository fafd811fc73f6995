//! Fetches a DAG from several kinds of sources at once, trusting none of them: other peers over
//! bitswap, HTTP gateways, Kubo nodes, archives.
//!
//! Each block is hashed before it is used. A source that sends something else is dropped and named,
//! so is one that fails or dawdles again and again; what it was asked for goes to the others. What
//! came is kept in the local store as it comes, so that a fetch that broke off goes on from there.

mod archive;
mod board;
pub(crate) mod http;
mod swarm;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cid::Cid;
use instar_chunks::block::{canonical, verify};
use instar_chunks::{BlockError, Blocks, DagError, Limits};

pub use archive::CarSource;
use board::Board;
pub use http::{Gateway, Kubo};
pub use swarm::SwarmSource;

/// Failures in a row after which a source is dropped.
const MAX_FAILURES: u32 = 3;
/// A block that takes longer is asked of another source as well.
const SLOW: Duration = Duration::from_secs(4);
/// Times that a source may be overtaken like that before it is dropped.
const MAX_OVERTAKEN: u32 = 3;
/// Fetched bytes that are made durable together.
const FLUSH_BYTES: usize = 4 * 1024 * 1024;

/// Why a source didn't answer. It may be asked again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// An archive as it comes in.
pub type Stream = Box<dyn std::io::Read + Send>;

/// Somebody who may have blocks. Nothing it says is believed.
pub trait Source: Send + Sync {
    /// What it is called in reports.
    fn name(&self) -> String;
    /// How many blocks to ask for at a time.
    fn parallel(&self) -> usize;
    /// The block, or `None` if it says that it doesn't have it. Waits a bounded time.
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, SourceError>;
    /// All of a DAG as one archive, if it can give that.
    fn stream(&self, root: &Cid) -> Option<Result<Stream, SourceError>> {
        let _ = root;
        None
    }
    /// Whom it had to stop asking, and why: those who lied, those who dawdled.
    fn liars(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What became of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// What it is called.
    pub name: String,
    /// Blocks that it gave and that were used.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why it is not asked any more.
    pub dropped: Option<String>,
}

/// What a fetch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MixedReport {
    /// Distinct blocks of the DAG.
    pub blocks: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that were not there before.
    pub fetched_blocks: u64,
    /// Bytes of those.
    pub fetched_bytes: u64,
    /// The sources, in the order given.
    pub sources: Vec<SourceReport>,
}

/// Why a DAG couldn't be fetched. What had come stays in the store.
#[derive(Debug, thiserror::Error)]
pub enum MixedError {
    /// Nobody who is still believed has a block.
    #[error("nobody has block {missing}, which {root} needs; {}", said(sources))]
    Nowhere {
        /// The DAG.
        root: Box<Cid>,
        /// The block.
        missing: Box<Cid>,
        /// What became of the sources.
        sources: Vec<SourceReport>,
    },
    /// The DAG is malformed or over a limit.
    #[error("the DAG {root} is refused")]
    Dag {
        /// The DAG.
        root: Box<Cid>,
        /// What is wrong with it.
        source: Box<DagError>,
    },
    /// The local store failed.
    #[error("the block store failed while {root} was fetched")]
    Store {
        /// The DAG.
        root: Box<Cid>,
        /// How.
        source: Box<BlockError>,
    },
}

fn said(sources: &[SourceReport]) -> String {
    if sources.is_empty() {
        return "no source was named: use --gateway, --peer, --kubo, --car or --node".into();
    }
    let each = sources.iter().map(|source| match &source.dropped {
        Some(why) => format!("{}: dropped, {why}", source.name),
        None => format!("{}: doesn't have it", source.name),
    });
    each.collect::<Vec<_>>().join("; ")
}

/// Brings everything below `root` into `store`, from there and from `sources`.
pub fn fetch_mixed(
    store: &(dyn Blocks + Sync),
    sources: &[Box<dyn Source>],
    root: &Cid,
    limits: &Limits,
    progress: &(dyn Fn(usize, u64) + Sync),
) -> Result<MixedReport, MixedError> {
    let _lease = store.lease();
    let board = Board::new(store, sources, root, limits)?;
    // With a single source an archive saves a question for each block. With several, each block
    // comes from whoever is free.
    if let [source] = sources {
        board.drain(source.as_ref(), progress)?;
    }
    std::thread::scope(|scope| {
        if sources.is_empty() {
            scope.spawn(|| board.work(None, progress));
        }
        for (number, source) in sources.iter().enumerate() {
            for _ in 0..source.parallel().max(1) {
                let board = &board;
                scope.spawn(move || board.work(Some((number, source.as_ref())), progress));
            }
        }
    });
    board.finish()
}

/// A store that asks the sources for what it doesn't hold, one block at a time: for following a path
/// into a folder without fetching the rest of it.
pub struct Fetching<'a> {
    store: &'a (dyn Blocks + Sync),
    sources: &'a [Box<dyn Source>],
    liars: Mutex<Vec<(usize, String)>>,
}

impl<'a> Fetching<'a> {
    /// Blocks from `store`, else from `sources`.
    pub fn new(store: &'a (dyn Blocks + Sync), sources: &'a [Box<dyn Source>]) -> Self {
        Self {
            store,
            sources,
            liars: Mutex::default(),
        }
    }

    /// Sources that sent something else than they were asked for.
    pub fn liars(&self) -> Vec<String> {
        let liars = self.liars.lock().unwrap_or_else(PoisonError::into_inner);
        liars.iter().map(|(_, said)| said.clone()).collect()
    }
}

impl Blocks for Fetching<'_> {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, BlockError> {
        let cid = canonical(cid)?;
        match self.store.get(&cid) {
            Ok(Some(held)) => return Ok(Some(held)),
            Ok(None) | Err(BlockError::Corrupt { .. }) => {}
            Err(other) => return Err(other),
        }
        for (number, source) in self.sources.iter().enumerate() {
            let known = |liars: &Vec<(usize, String)>| liars.iter().any(|(n, _)| *n == number);
            if known(&self.liars.lock().unwrap_or_else(PoisonError::into_inner)) {
                continue;
            }
            let Ok(Some(bytes)) = source.get(&cid) else {
                continue;
            };
            match verify(&cid, &bytes) {
                Ok(()) => {
                    self.store.put(&cid, &bytes)?;
                    return Ok(Some(bytes));
                }
                Err(error) => {
                    let mut liars = self.liars.lock().unwrap_or_else(PoisonError::into_inner);
                    liars.push((number, format!("{}: {error}", source.name())));
                }
            }
        }
        Ok(None)
    }

    fn has(&self, cid: &Cid) -> Result<bool, BlockError> {
        self.store.has(cid)
    }

    fn put(&self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
        self.store.put(cid, bytes)
    }
}
