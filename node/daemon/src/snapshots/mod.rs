//! Snapshots that this node offers: made in the background at every so manieth block, kept as IPFS blocks under a pin,
//! and listed for whoever joins. `docs/formats/snapshots.md` has the list and the calls.

mod list;
mod make;

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use list::{ChunkAt, MAX_LIST_BYTES, Offer, SnapshotList};

use list::PINS;

use crate::home::Home;
use crate::node::Shared;

/// How many snapshots are kept: the newest, and the one before for those who are in the middle of it.
const SNAPSHOTS_KEPT: usize = 2;

/// A snapshot with what is answered about it, worked out once: anybody may ask at any rate.
pub(crate) struct Kept {
    pub list: SnapshotList,
    pub offer: Offer,
    /// The canonical bytes of the list.
    pub bytes: bytes::Bytes,
}

impl Kept {
    fn new(list: SnapshotList) -> Result<Self, String> {
        Ok(Self {
            offer: list.offer()?,
            bytes: list.to_bytes()?.into(),
            list,
        })
    }
}

/// The snapshots on offer, newest last.
pub(crate) struct Snapshots(Mutex<Vec<Arc<Kept>>>);

impl Snapshots {
    /// Those that an earlier process made and whose pin is there. What is left of others is removed.
    pub fn open(home: &Home, blocks: &instar_chunks::BlockStore) -> std::io::Result<Self> {
        let folder = home.snapshots();
        fs::create_dir_all(&folder)?;
        let pins = blocks.pins().map_err(std::io::Error::other)?;
        let mut found: Vec<Arc<Kept>> = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let kept = fs::read(&path)
                .ok()
                .and_then(|bytes| SnapshotList::from_bytes(&bytes).ok())
                .filter(|list| pins.iter().any(|(name, _)| *name == list.pin_name()))
                .and_then(|list| Kept::new(list).ok());
            match kept {
                Some(kept) => found.push(Arc::new(kept)),
                None => fs::remove_file(&path)?,
            }
        }
        // A pin without a list is what a crash left between the two.
        let listed = |name: &str| found.iter().any(|k| k.list.pin_name() == name);
        for (name, _) in pins {
            if name.starts_with(PINS) && !listed(&name) {
                blocks.unpin(&name).map_err(std::io::Error::other)?;
            }
        }
        found.sort_by_key(|kept| kept.list.height);
        Ok(Self(Mutex::new(found)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Kept>>> {
        // The list is replaced as a whole, so that a panic elsewhere can't have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, newest last.
    pub fn all(&self) -> Vec<Arc<Kept>> {
        self.lock().clone()
    }

    /// The one of a height.
    pub fn of(&self, height: u64) -> Option<Arc<Kept>> {
        let all = self.lock();
        all.iter().find(|k| k.list.height == height).cloned()
    }

    fn newest(&self) -> u64 {
        self.lock().last().map_or(0, |kept| kept.list.height)
    }
}

/// Makes a snapshot whenever enough blocks have come, one at a time. A node that catches up makes the newest only.
pub(crate) async fn snapshot_loop(node: Shared) {
    let every = node.config.snapshot_every;
    if every == 0 {
        return std::future::pending().await;
    }
    let mut heights = node.height.subscribe();
    let mut tried = 0;
    loop {
        let height = *heights.borrow_and_update();
        let at = height - height % every;
        if at > node.snapshots.newest().max(tried) {
            tried = at;
            let making = Arc::clone(&node);
            let made = tokio::task::spawn_blocking(move || make::make(&making, at)).await;
            match made {
                Ok(Ok(kept)) => {
                    tracing::info!(
                        height = at,
                        chunks = kept.offer.chunks,
                        bytes = kept.offer.bytes,
                        "a snapshot is on offer"
                    );
                    continue;
                }
                // The next height that is due is another chance; blocks don't wait for it.
                Ok(Err(why)) => tracing::warn!(height = at, why, "no snapshot was made"),
                Err(e) => tracing::warn!(height = at, error = %e, "no snapshot was made"),
            }
        }
        if heights.changed().await.is_err() {
            return;
        }
    }
}
