//! A node's disk: what was written is there, and what was not synced is lost when the power goes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use instar_consensus::Medium;
use instar_consensus::bare::Kept;
use instar_ledger::Certificate;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::store::Store;

/// One change of a file that is not yet synced.
#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Size(u64),
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, new) => {
                let end = *offset as usize + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset as usize..end].copy_from_slice(new);
            }
            Self::Size(size) => bytes.resize(*size as usize, 0),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct File {
    /// What a reader sees.
    bytes: Vec<u8>,
    /// What outlives a power cut.
    synced: Vec<u8>,
    changes: Vec<Change>,
}

/// What an unsynced change may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The first of them are there, the last of these perhaps in part.
    Prefix,
    /// Any of them are there, as on a disk that writes in its own order.
    Any,
    /// None is there, however often it was synced.
    All,
}

/// One node's disk.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<Kept, File>,
    /// The ledger and the state.
    pub store: Store,
    off: bool,
    /// How many more writes and syncs there are before the power goes.
    fuse: Option<u32>,
    /// What became final here since somebody last looked. It is told even where the power goes right after.
    pub news: Vec<Certificate>,
    /// It says that it has synced, and has not.
    pub lies: bool,
}

/// A disk that several hold.
pub type Shared = Arc<Mutex<Disk>>;

/// The disk, locked. One thread runs everything, so nobody waits.
pub fn lock(disk: &Shared) -> MutexGuard<'_, Disk> {
    disk.lock().expect("nobody panics with the disk in hand")
}

impl Disk {
    /// Whether the power is on.
    pub fn is_on(&self) -> bool {
        !self.off
    }

    /// Counts a write or a sync; the power may go with it.
    pub fn work(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => self.off = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        Ok(())
    }

    /// The power goes after so many more writes and syncs.
    pub fn burn(&mut self, after: u32) {
        self.fuse = Some(after);
    }

    /// The power goes now.
    pub fn cut(&mut self) {
        self.off = true;
    }

    /// The power is on again, and what was not synced is lost.
    pub fn restore(&mut self, loss: Loss, rng: &mut ChaCha8Rng) {
        self.off = false;
        self.fuse = None;
        for file in self.files.values_mut() {
            let changes = std::mem::take(&mut file.changes);
            let first = rng.random_range(0..=changes.len());
            for (place, change) in changes.into_iter().enumerate() {
                match (loss, &change) {
                    (Loss::Prefix, _) if place < first => change.make(&mut file.synced),
                    (Loss::Prefix, Change::Write(offset, bytes)) if place == first => {
                        let part = rng.random_range(0..=bytes.len());
                        let part = Change::Write(*offset, bytes[..part].to_vec());
                        part.make(&mut file.synced);
                    }
                    (Loss::Any, _) if rng.random() => change.make(&mut file.synced),
                    _ => {}
                }
            }
            file.bytes = file.synced.clone();
        }
        self.store.restore();
    }

    /// The file is gone.
    pub fn lose(&mut self, kept: Kept) {
        self.files.remove(&kept);
    }
}

/// One file of a shared disk.
#[derive(Debug)]
pub struct DiskFile {
    disk: Shared,
    kept: Kept,
}

impl DiskFile {
    /// Opens it.
    pub fn open(disk: &Shared, kept: Kept) -> Self {
        lock(disk).files.entry(kept).or_default();
        Self {
            disk: Arc::clone(disk),
            kept,
        }
    }

    fn with<T>(&self, change: bool, f: impl FnOnce(&mut File) -> T) -> io::Result<T> {
        let mut disk = lock(&self.disk);
        if change {
            disk.work()?;
        }
        Ok(f(disk.files.entry(self.kept).or_default()))
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.with(true, |file| {
            change.make(&mut file.bytes);
            file.changes.push(change);
        })
    }
}

impl Medium for DiskFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(false, |file| {
            let from = (offset as usize).min(file.bytes.len());
            let length = buf.len().min(file.bytes.len() - from);
            buf[..length].copy_from_slice(&file.bytes[from..from + length]);
            length
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(offset, bytes.to_vec()))
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.change(Change::Size(size))
    }

    fn size(&self) -> io::Result<u64> {
        self.with(false, |file| file.bytes.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let lies = lock(&self.disk).lies && self.kept != Kept::Proposals;
        self.with(true, |file| {
            if !lies {
                for change in std::mem::take(&mut file.changes) {
                    change.make(&mut file.synced);
                }
            }
        })
    }
}
