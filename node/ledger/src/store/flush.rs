//! From the journal into git: one pack, one `packed-refs`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::open::not_a_ledger;
use super::{
    GENESIS_REF, MAX_PACKS, PRIVATE_DIR, Store, StoreError, TIP_REF, TRUNK_REF, blocks, io_error,
    maintain,
};
use crate::oid::Oid;
use crate::pack;

/// How long a change may wait for its pack. Those who clone get it at once, because serving flushes first.
pub const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// How many bytes may wait for their pack.
pub const FLUSH_BYTES: usize = 8 * 1024 * 1024;
/// How many objects may wait for their pack.
pub const FLUSH_OBJECTS: usize = 16 * 1024;

const PACKED_REFS_HEAD: &str = "# pack-refs with: peeled fully-peeled sorted \n";

impl Store {
    /// Writes everything that waits into git, so that stock git sees it. Serve a clone only after this.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        let path = self.path.clone();
        // In this order, so that a crash between two steps leaves a store that the journal can bring forward: objects,
        // the list of heights, refs to objects that are there, and only then an empty journal.
        let tip = self.tip_objects()?;
        let tip_id = tip.as_ref().map(|objects| objects[0].id);
        let writer = self.writer()?;
        writer.flushed_at = Instant::now();
        let fresh = writer.heights_on_disk == 0;
        if writer.journal.is_empty() && !fresh {
            return Ok(());
        }
        let on_disk = writer.heights_on_disk;
        if let Some(objects) = tip {
            let new: Vec<_> = objects
                .into_iter()
                .filter(|o| !self.objects.contains(&o.id))
                .collect();
            self.objects.add(new);
        }
        if self.objects.pending_count() > 0 {
            let pack = pack::write(self.objects.pending());
            install_pack(&path, &pack)?;
            self.objects.clear_pending(&path)?;
            self.maintain_if_due();
        }
        blocks::store_heights(&path, &self.trunk, on_disk)?;
        self.write_refs(tip_id, self.first > 0)?;
        let heights = self.trunk.len();
        let writer = self.writer()?;
        writer.heights_on_disk = heights;
        writer
            .journal
            .reset()
            .map_err(io_error("starting the journal over"))
    }

    /// Replaces all refs, with the branch for genesis or without.
    pub(super) fn write_refs(&self, tip: Option<Oid>, genesis: bool) -> Result<(), StoreError> {
        let mut refs: BTreeMap<String, Oid> = self
            .lanes
            .iter()
            .map(|(lane, (head, _))| (lane.ref_name(), *head))
            .collect();
        refs.insert(TRUNK_REF.into(), self.head().1);
        if genesis {
            refs.insert(GENESIS_REF.into(), self.chain.into());
        }
        if let Some(tip) = tip {
            refs.insert(TIP_REF.into(), tip);
        }
        write_packed_refs(&self.path, &refs)
    }

    /// Begins maintenance in the background when enough packs were written. It is no error if it can't be: git's packs
    /// are whole without it, and the next time comes.
    fn maintain_if_due(&mut self) {
        let path = self.path.clone();
        let Ok(writer) = self.writer() else {
            return;
        };
        writer.packs_written += 1;
        let running = writer
            .maintenance
            .as_ref()
            .is_some_and(|thread| !thread.is_finished());
        if writer.packs_written <= MAX_PACKS || running {
            return;
        }
        writer.packs_written = 0;
        writer.maintenance = std::thread::Builder::new()
            .name("ledger-maintain".into())
            .spawn(move || drop(maintain(&path)))
            .ok();
    }

    /// Flushes when a bound is passed.
    pub(super) fn flush_if_due(&mut self) -> Result<(), StoreError> {
        let due = self.objects.pending_bytes() > FLUSH_BYTES
            || self.objects.pending_count() > FLUSH_OBJECTS
            || self.writer()?.flushed_at.elapsed() > FLUSH_EVERY;
        if due { self.flush() } else { Ok(()) }
    }
}

/// Where packs are made before they count.
pub(super) fn temporary(path: &Path) -> PathBuf {
    path.join(PRIVATE_DIR).join("packing")
}

/// Removes what a crash left half made.
pub(super) fn remove_temporary(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(temporary(path)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("removing temporary packs")(e))
        }
        _ => Ok(()),
    }
}

/// Indexes a pack beside the object database, makes it durable, and only then gives it its name there: a pack that git
/// can see is whole.
fn install_pack(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = temporary(path);
    fs::create_dir_all(&temporary).map_err(io_error("making a folder for packs"))?;
    let mut indexer =
        git2::Indexer::new_ext(None, &temporary, 0o444, false, git2::ObjectFormat::Sha256)?;
    indexer
        .write_all(bytes)
        .map_err(io_error("indexing a pack"))?;
    let name = indexer.commit()?;
    let packs = path.join("objects").join("pack");
    // The index comes last: git looks for `.idx` files.
    for ending in ["pack", "idx"] {
        let file = format!("pack-{name}.{ending}");
        let from = temporary.join(&file);
        File::open(&from)
            .and_then(|f| f.sync_all())
            .and_then(|()| fs::rename(&from, packs.join(&file)))
            .map_err(io_error(format!("installing {file}")))?;
    }
    sync_dir(&packs)
}

pub(super) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|d| d.sync_all())
        .map_err(io_error(format!("syncing {}", path.display())))
}

fn write_packed_refs(path: &Path, refs: &BTreeMap<String, Oid>) -> Result<(), StoreError> {
    let mut text = PACKED_REFS_HEAD.to_owned();
    for (name, id) in refs {
        text.push_str(&format!("{id} {name}\n"));
    }
    write_durably(path, "packed-refs", &text)
}

/// Replaces a file of the repository at once.
pub(super) fn write_durably(path: &Path, name: &str, text: &str) -> Result<(), StoreError> {
    let what = format!("writing {name}");
    let new = path.join(format!("{name}.new"));
    let mut file = File::create(&new).map_err(io_error(&what))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path.join(name)))
        .map_err(io_error(&what))?;
    sync_dir(path)
}

/// The refs of a store: `packed-refs` and nothing else, since the store writes no other.
pub(super) fn read_packed_refs(path: &Path) -> Result<BTreeMap<String, Oid>, StoreError> {
    let text = fs::read_to_string(path.join("packed-refs"))
        .map_err(|e| not_a_ledger(path, &format!("its packed-refs: {e}")))?;
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            line.split_once(' ')
                .and_then(|(id, name)| Some((name.to_owned(), id.parse().ok()?)))
                .ok_or_else(|| not_a_ledger(path, &format!("packed-refs has the line {line:?}")))
        })
        .collect()
}
