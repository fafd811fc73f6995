//! The bytes of blocks: append-only files beside the index.
//!
//! A record is a head (kind, length of the address, address, length, stored length) and what is
//! stored. The index alone says which records count; a head is there so that an index could be made
//! again, and so that a stray read is noticed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// A segment of this size gets no more records: collecting one copies at most this much.
const SEGMENT_BYTES: u64 = 256 * 1024 * 1024;

/// Space that stays free on the disk for the index, which has to be able to grow in order to shrink.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes after which the disk is asked how much space it has left.
const SPACE_CHECK_BYTES: u64 = 8 * 1024 * 1024;

/// Bytes that may wait for the disk: it begins to write while more is being made ready.
const WRITE_BEHIND_BYTES: u64 = 16 * 1024 * 1024;

/// Where the next record goes.
#[derive(Debug)]
pub(super) struct Tail {
    pub segment: u32,
    pub end: u64,
    file: Option<Arc<File>>,
    /// Records that were written since the last sync are in these.
    dirty: Vec<Arc<File>>,
    folder_changed: bool,
    unchecked: u64,
    behind: u64,
    /// Bytes of all segments together.
    pub total: u64,
}

/// The folder of segments.
#[derive(Debug)]
pub(super) struct Segments {
    folder: PathBuf,
    open: RwLock<BTreeMap<u32, Arc<File>>>,
    tail: Mutex<Tail>,
}

impl Segments {
    /// Opens the segments in `folder`. `ends` says how far each is used by the index; what is
    /// behind was never acknowledged and is cut off, and so are files that the index doesn't know.
    pub fn open(folder: &Path, ends: &BTreeMap<u32, u64>) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut open = BTreeMap::new();
        let mut total = 0;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|n| n.strip_suffix(".seg"));
            let Some(number) = number.and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            let Some(end) = ends.get(&number) else {
                fs::remove_file(entry.path())?;
                continue;
            };
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(entry.path())?;
            if file.metadata()?.len() > *end {
                file.set_len(*end)?;
            }
            total += end;
            open.insert(number, Arc::new(file));
        }
        let segment = ends.keys().last().copied().unwrap_or_default();
        let file = open.get(&segment).cloned();
        let end = ends.get(&segment).copied().unwrap_or_default();
        Ok(Self {
            folder: folder.to_owned(),
            open: RwLock::new(open),
            tail: Mutex::new(Tail {
                segment,
                end,
                file,
                dirty: Vec::new(),
                folder_changed: true,
                unchecked: SPACE_CHECK_BYTES,
                behind: 0,
                total,
            }),
        })
    }

    fn path(&self, segment: u32) -> PathBuf {
        self.folder.join(format!("{segment:08}.seg"))
    }

    pub fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all segments.
    pub fn total(&self) -> u64 {
        self.tail().total
    }

    /// The segment, if it is there.
    pub fn file(&self, segment: u32) -> Option<Arc<File>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&segment).cloned()
    }

    /// Appends records; returns the segment and where they begin. Nothing of it counts until the
    /// index says so, so that a failed write leaves nothing behind.
    pub fn append(&self, tail: &mut Tail, records: &[u8]) -> io::Result<(u32, u64)> {
        let length = records.len() as u64;
        tail.unchecked += length;
        if tail.unchecked >= SPACE_CHECK_BYTES {
            check_space(&self.folder, length)?;
            tail.unchecked = 0;
        }
        if tail.file.is_none() || tail.end >= SEGMENT_BYTES {
            self.next_segment(tail)?;
        }
        let Some(file) = &tail.file else {
            return Err(io::Error::other("the store has no segment to write to"));
        };
        let begin = tail.end;
        file.write_all_at(records, begin)?;
        tail.end += length;
        tail.total += length;
        tail.behind += length;
        if tail.behind >= WRITE_BEHIND_BYTES {
            begin_writing(file, tail.end.saturating_sub(tail.behind), tail.behind);
            tail.behind = 0;
        }
        if !tail.dirty.iter().any(|dirty| Arc::ptr_eq(dirty, file)) {
            tail.dirty.push(Arc::clone(file));
        }
        Ok((tail.segment, begin))
    }

    fn next_segment(&self, tail: &mut Tail) -> io::Result<()> {
        let segment = tail.segment + 1;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path(segment))?;
        let file = Arc::new(file);
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(segment, Arc::clone(&file));
        (tail.segment, tail.end) = (segment, 0);
        tail.file = Some(file);
        tail.folder_changed = true;
        tail.behind = 0;
        Ok(())
    }

    /// Everything that was appended is on the disk when this returns.
    pub fn sync(&self, tail: &mut Tail) -> io::Result<()> {
        while let Some(file) = tail.dirty.last() {
            file.sync_data()?;
            tail.dirty.pop();
        }
        if tail.folder_changed {
            File::open(&self.folder)?.sync_all()?;
            tail.folder_changed = false;
        }
        Ok(())
    }

    /// Deletes a segment that the index doesn't know any more. Reads under way keep their handle.
    pub fn remove(&self, tail: &mut Tail, segment: u32, bytes: u64) -> io::Result<()> {
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&segment);
        fs::remove_file(self.path(segment))?;
        tail.total = tail.total.saturating_sub(bytes);
        tail.folder_changed = true;
        if tail.segment == segment {
            tail.close();
        }
        Ok(())
    }
}

impl Tail {
    /// The next record begins a new segment.
    pub fn close(&mut self) {
        self.file = None;
    }
}

/// Refuses to write when the disk is nearly full: the index must be able to commit.
fn check_space(folder: &Path, wanted: u64) -> io::Result<()> {
    let stat = nix::sys::statvfs::statvfs(folder).map_err(io::Error::from)?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    if free < RESERVE_BYTES.saturating_add(wanted) {
        return Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!("only {free} bytes are free on the disk; 16 MiB stay free for the index"),
        ));
    }
    Ok(())
}

/// Asks the kernel to begin writing a range, and doesn't wait: the sync at the end is short then.
fn begin_writing(file: &File, from: u64, length: u64) {
    use std::os::fd::AsRawFd as _;
    let (Ok(from), Ok(length)) = (i64::try_from(from), i64::try_from(length)) else {
        return;
    };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and nothing is pointed to.
    // A refusal changes nothing: the sync comes anyway.
    unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE) };
}
