//! Asks the connected peers for a delta, and believes what comes by its address alone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use instar_chunks::import::{Content, ImportOptions};
use instar_chunks::{BlockStore, Blocks, Cid, Limits, export};
use instar_delta::release::apply_release;
use instar_ipfs::delta::{Ask, Asked, PIECE_PATIENCE};
use instar_ipfs::{FetchOptions, Peer, PeerId};
use tokio::time::Instant;

use super::cost::missing_bytes;

/// Blocks that cost less are fetched without asking anybody: the questions would take as long.
pub const MIN_WORTH_BYTES: u64 = 256 << 10;
/// No larger delta is taken, whatever the blocks would cost.
const MAX_DELTA_BYTES: u64 = 256 << 20;
/// Peers that are asked, and offers that are tried before the blocks are fetched.
const MAX_ASKED: usize = 16;
const MAX_TRIES: usize = 3;
/// How long the nodes of the new DAG may not come; they are small.
const NODES_STALL: Duration = Duration::from_secs(15);
/// Between two questions whether it is made by now.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What is old.
#[derive(Clone, Debug)]
pub enum Old {
    /// It lies on disk, as a file or folder.
    Path(PathBuf),
    /// The store holds it whole.
    Held,
}

/// A wish for `want` by somebody who has `have`.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Address of the old one.
    pub have: Cid,
    /// Where it is.
    pub old: Old,
    /// Address of the new one.
    pub want: Cid,
    /// How long a peer may take to make the delta. With none, only one that is there already is taken.
    pub patience: Duration,
    /// How long a piece of it may take to come.
    pub piece: Duration,
    /// Folder on a file system with room for the old one, the delta and the new one.
    pub scratch: PathBuf,
}

impl Wish {
    /// A wish without patience.
    pub fn new(have: Cid, old: Old, want: Cid, scratch: &Path) -> Self {
        Self {
            have,
            old,
            want,
            patience: Duration::ZERO,
            piece: PIECE_PATIENCE,
            scratch: scratch.to_owned(),
        }
    }
}

/// A delta that led to what was wanted; all blocks of it are in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// Who gave it.
    pub peer: PeerId,
    /// Its bytes.
    pub bytes: u64,
    /// What the blocks would have cost.
    pub instead_of: u64,
}

/// What became of a wish. Without [`Got`] the blocks are to be fetched.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The delta, if one led there.
    pub got: Option<Got>,
    /// Why none did.
    pub why_not: String,
    /// Peers whose answer was no good, and why.
    pub refused: Vec<(PeerId, String)>,
}

impl Outcome {
    fn not(mut self, why: impl Into<String>) -> Self {
        self.why_not = why.into();
        self
    }
}

/// Brings all of `wish.want` into `store` by a delta, if a connected peer gives one that is smaller than the blocks.
pub async fn obtain(peer: &Peer, store: &Arc<BlockStore>, wish: &Wish, limits: &Limits) -> Outcome {
    let mut outcome = Outcome::default();
    let _lease = store.lease();
    let nodes = FetchOptions {
        limits: *limits,
        stall: NODES_STALL,
        nodes_only: true,
        progress: None,
    };
    if let Err(error) = peer.fetch_with(&wish.want, nodes).await {
        return outcome.not(error.to_string());
    }
    let counted = {
        let (store, want, limits) = (Arc::clone(store), wish.want, *limits);
        tokio::task::spawn_blocking(move || missing_bytes(&*store, &want, &limits)).await
    };
    let instead_of = match counted {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return outcome.not(error.to_string()),
        Err(error) => return outcome.not(error.to_string()),
    };
    if instead_of < MIN_WORTH_BYTES {
        return outcome.not(format!(
            "the blocks that are missing have {instead_of} bytes"
        ));
    }
    let scratch = match tempfile::Builder::new()
        .prefix(".instar-delta-")
        .tempdir_in(&wish.scratch)
    {
        Ok(scratch) => scratch,
        Err(error) => return outcome.not(format!("{}: {error}", wish.scratch.display())),
    };
    let offers = offers(peer, wish, instead_of.min(MAX_DELTA_BYTES), scratch.path()).await;
    if offers.is_empty() {
        return outcome.not(format!("no peer has one under {instead_of} bytes"));
    }
    let job = Arc::new(Job {
        store: Arc::clone(store),
        wish: wish.clone(),
        limits: *limits,
        scratch,
    });
    let old = {
        let job = Arc::clone(&job);
        tokio::task::spawn_blocking(move || job.old()).await
    };
    let old = match old.map_err(|e| e.to_string()).flatten() {
        Ok(old) => old,
        Err(why) => return outcome.not(why),
    };
    for (bytes, from) in offers.into_iter().take(MAX_TRIES) {
        match take(peer, &job, &old, from, bytes).await {
            Ok(()) => {
                outcome.got = Some(Got {
                    peer: from,
                    bytes,
                    instead_of,
                });
                return outcome;
            }
            Err(why) => outcome.refused.push((from, why)),
        }
    }
    outcome.not("none of the deltas that were offered led there")
}

/// Who has a delta of less than `below` bytes, the smallest first. With patience those who make one are waited for.
async fn offers(peer: &Peer, wish: &Wish, below: u64, scratch: &Path) -> Vec<(u64, PeerId)> {
    let deadline = Instant::now() + wish.patience;
    // Nothing is written to it: sizes alone are asked for.
    let Ok(nothing) = File::create(scratch.join("nothing")) else {
        return Vec::new();
    };
    let ask = Ask {
        have: wish.have,
        want: wish.want,
        max_bytes: 0,
        make: !wish.patience.is_zero(),
        patience: wish.piece,
    };
    loop {
        let peers: Vec<PeerId> = peer.connected().into_iter().take(MAX_ASKED).collect();
        let asked = peers.iter().map(|to| peer.ask_delta(*to, ask, &nothing));
        let answers = join_all(asked).await;
        let mut offers = Vec::new();
        let mut making = false;
        for (from, answer) in peers.iter().zip(answers) {
            match answer {
                Ok(Asked::Larger(bytes)) if bytes < below => offers.push((bytes, *from)),
                Ok(Asked::Making) => making = true,
                Ok(_) => {}
                Err(error) => tracing::debug!(%from, %error, "no answer about a delta"),
            }
        }
        offers.sort();
        if !offers.is_empty() || !making || Instant::now() >= deadline {
            return offers;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// What the attempts of one wish share.
struct Job {
    store: Arc<BlockStore>,
    wish: Wish,
    limits: Limits,
    scratch: tempfile::TempDir,
}

impl Job {
    /// The old one as it lies on disk.
    fn old(&self) -> Result<PathBuf, String> {
        match &self.wish.old {
            Old::Path(path) => Ok(path.clone()),
            Old::Held => {
                let old = self.scratch.path().join("old");
                export(&*self.store, &self.wish.have, None, &old, &self.limits)
                    .map_err(|e| format!("the old one can't be written out: {}", chain(e)))?;
                Ok(old)
            }
        }
    }

    /// Applies a delta beside everything else; only if the wanted address came out of it, it goes into the store.
    fn apply(&self, old: &Path, object: &File) -> Result<(), String> {
        let new = self.scratch.path().join("new");
        let want = &self.wish.want;
        apply_release(old, object, Some(want), &new).map_err(chain)?;
        let made = self
            .store
            .import(Content::Path(&new), &ImportOptions::default(), None)
            .map_err(chain)?;
        match made.cid == *want {
            true => Ok(()),
            false => Err(format!("it made {}", made.cid)),
        }
    }
}

/// Takes one peer's delta and applies it; what it made is in the store then.
async fn take(
    peer: &Peer,
    job: &Arc<Job>,
    old: &Path,
    from: PeerId,
    bytes: u64,
) -> Result<(), String> {
    let object = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(job.scratch.path().join("object"))
        .map_err(|e| e.to_string())?;
    let ask = Ask {
        have: job.wish.have,
        want: job.wish.want,
        // It said how large it is; more is not taken.
        max_bytes: bytes,
        make: false,
        patience: job.wish.piece,
    };
    match peer.ask_delta(from, ask, &object).await {
        Ok(Asked::Got(_)) => {}
        Ok(_) => return Err("it has none any more".into()),
        Err(error) => return Err(error.to_string()),
    }
    let (job, old) = (Arc::clone(job), old.to_owned());
    tokio::task::spawn_blocking(move || job.apply(&old, &object))
        .await
        .map_err(|e| e.to_string())?
}

/// The error with its causes, for a report of one line.
fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
