//! Objects by id: those not yet in a pack from memory, all others from git's object database.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::StoreError;
use crate::grammar::{Kind, MAX_COMMIT_BYTES, MAX_TREE_BYTES, Object};
use crate::oid::Oid;
use crate::receipt::MAX_RECEIPTS_BYTES;

pub(super) struct Objects {
    repo: git2::Repository,
    gone: Option<Gone>,
    pending: HashMap<Oid, (Kind, Vec<u8>)>,
    pending_bytes: usize,
    /// When the folder of packs had last changed when it was looked at.
    seen: Cell<Option<SystemTime>>,
}

/// Objects that are let go and still on disk, for those who are reading. To this store they are not there any more: what
/// comes again is kept again, and nothing that is new stands on them.
struct Gone {
    ids: Arc<HashSet<Oid>>,
    /// The packs that they are in.
    packs: Vec<PathBuf>,
}

impl Objects {
    pub fn new(repo: git2::Repository) -> Self {
        Self {
            repo,
            gone: None,
            pending: HashMap::new(),
            pending_bytes: 0,
            seen: Cell::new(None),
        }
    }

    pub fn contains(&self, id: &Oid) -> bool {
        if self.pending.contains_key(id) {
            return true;
        }
        if self.is_gone(id) {
            return false;
        }
        let Ok(odb) = self.repo.odb() else {
            return false;
        };
        // Most questions are about objects that are new, and the library would list the folder of packs for each.
        let now = self.packs_changed_at();
        if self.seen.replace(now) != now {
            let _ = odb.refresh();
        }
        odb.exists_ext(git_id(id), git2::OdbLookupFlags::NO_REFRESH)
    }

    /// Treats objects as not there, until the packs that have them are removed.
    pub fn let_go(&mut self, ids: Arc<HashSet<Oid>>, packs: Vec<PathBuf>) {
        self.gone = Some(Gone { ids, packs });
    }

    fn is_gone(&self, id: &Oid) -> bool {
        self.gone.as_ref().is_some_and(|gone| gone.ids.contains(id))
    }

    fn packs_changed_at(&self) -> Option<SystemTime> {
        let packs = self.repo.path().join("objects").join("pack");
        std::fs::metadata(packs).and_then(|m| m.modified()).ok()
    }

    /// Reads an object, bounded by what its kind may weigh.
    pub fn read(&self, id: &Oid, kind: Kind) -> Result<Vec<u8>, StoreError> {
        if let Some((got, bytes)) = self.pending.get(id) {
            if *got != kind {
                return Err(StoreError::Unexpected { id: *id, kind });
            }
            return Ok(bytes.clone());
        }
        if self.is_gone(id) {
            return Err(StoreError::NotFound { id: *id, kind });
        }
        let odb = self.repo.odb()?;
        let not_found = |error: git2::Error| match error.code() {
            git2::ErrorCode::NotFound => StoreError::NotFound { id: *id, kind },
            _ => StoreError::Git(error),
        };
        // A clone from somewhere may hold anything, so the size is looked at before the content.
        let header = odb.read_header(git_id(id)).or_else(|_| {
            odb.refresh()?;
            odb.read_header(git_id(id))
        });
        let (size, got) = header.map_err(not_found)?;
        let max = match kind {
            Kind::Commit => MAX_COMMIT_BYTES,
            Kind::Tree => MAX_TREE_BYTES,
            Kind::Blob => MAX_RECEIPTS_BYTES,
        };
        if kind_of(got) != Some(kind) || size > max {
            return Err(StoreError::Unexpected { id: *id, kind });
        }
        let object = odb.read(git_id(id)).map_err(not_found)?;
        Ok(object.data().to_vec())
    }

    /// Keeps objects in memory until the next pack. The caller has made them durable in the journal.
    pub fn add(&mut self, objects: impl IntoIterator<Item = Object>) {
        for object in objects {
            self.pending_bytes += object.bytes.len();
            self.pending.insert(object.id, (object.kind, object.bytes));
        }
    }

    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// The pending objects in an order that depends on nothing but them.
    pub fn pending(&self) -> Vec<(Kind, &[u8])> {
        let mut all: Vec<_> = self.pending.iter().collect();
        all.sort_by_key(|(id, (kind, _))| (*kind, **id));
        all.into_iter()
            .map(|(_, (kind, bytes))| (*kind, bytes.as_slice()))
            .collect()
    }

    /// Forgets what waited: it is in a pack now. The repository is opened again, because the library keeps what it has
    /// seen of packs: whatever was looked up in them stays mapped, more the longer the ledger is, and packs that
    /// maintenance removed stay on disk.
    pub fn clear_pending(&mut self, path: &Path) -> Result<(), StoreError> {
        let removed = |gone: &Gone| !gone.packs.iter().any(|pack| pack.exists());
        if self.gone.as_ref().is_some_and(removed) {
            self.gone = None;
        }
        self.repo = super::open::open_repository(path)?;
        self.seen.set(None);
        // What was let go and came again is there again.
        if let Some(gone) = &mut self.gone
            && self.pending.keys().any(|id| gone.ids.contains(id))
        {
            let ids = Arc::make_mut(&mut gone.ids);
            ids.retain(|id| !self.pending.contains_key(id));
        }
        // With its room: what one busy moment needed is not kept for ever.
        self.pending = HashMap::new();
        self.pending_bytes = 0;
        Ok(())
    }
}

fn kind_of(kind: git2::ObjectType) -> Option<Kind> {
    match kind {
        git2::ObjectType::Commit => Some(Kind::Commit),
        git2::ObjectType::Tree => Some(Kind::Tree),
        git2::ObjectType::Blob => Some(Kind::Blob),
        _ => None,
    }
}

pub(super) fn git_id(id: &Oid) -> git2::Oid {
    git2::Oid::from_bytes(id.as_bytes()).expect("32 bytes are a SHA-256 object id")
}

pub(super) fn our_id(id: git2::Oid) -> Option<Oid> {
    id.as_bytes().try_into().ok().map(Oid::from_bytes)
}
