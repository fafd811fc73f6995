//! The first half of adding: reads files and folders in order, and cuts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender};

use super::{Buffer, Content, ImportError, ImportOptions, Parcel, Piece};
use crate::node::name_fault;
use crate::tree::MAX_PATH_PARTS;

/// Less room than this in a buffer isn't worth beginning a file in.
const MIN_ROOM_BYTES: usize = 64 * 1024;
/// Pieces that one buffer holds at most: many tiny files are handed on in time.
const MAX_PIECES: usize = 8192;
/// A folder entry takes at least this many bytes in its node, so that a folder with more entries
/// than fit is refused before all of them are looked at.
const MIN_LINK_BYTES: usize = 40;

/// Reads and cuts.
pub(super) struct Reader<M> {
    options: ImportOptions,
    free: Receiver<Buffer<M>>,
    to_hash: SyncSender<Parcel<M>>,
    number: u64,
    buffer: Buffer<M>,
    used: usize,
    pieces: Vec<Piece>,
}

impl<M: Default> Reader<M> {
    pub fn new(
        options: ImportOptions,
        free: Receiver<Buffer<M>>,
        to_hash: SyncSender<Parcel<M>>,
    ) -> Self {
        Self {
            options,
            free,
            to_hash,
            number: 0,
            buffer: Buffer::default(),
            used: 0,
            pieces: Vec::new(),
        }
    }

    pub fn run(&mut self, content: Content<'_>) -> Result<(), ImportError> {
        self.buffer = self.free.recv().map_err(|_| ImportError::Broken)?;
        match content {
            Content::Stream(stream) => self.file(Path::new("-"), String::new(), stream)?,
            Content::Path(path) => {
                let read_error = |source| read_error(path, source);
                let kind = fs::metadata(path).map_err(read_error)?;
                if kind.is_dir() {
                    self.folder(path, String::new(), 0)?;
                } else if kind.is_file() {
                    let mut file = File::open(path).map_err(read_error)?;
                    self.file(path, String::new(), &mut file)?;
                } else {
                    return Err(refused(path, "it is neither a file nor a folder"));
                }
            }
        }
        self.hand_on(self.used)
    }

    /// Sends what was gathered; uncut content from `uncut` on goes with the next buffer.
    fn hand_on(&mut self, uncut: usize) -> Result<(), ImportError> {
        let mut next = self.free.recv().map_err(|_| ImportError::Broken)?;
        let rest = self.used - uncut;
        next.data[..rest].copy_from_slice(&self.buffer.data[uncut..self.used]);
        let parcel = Parcel {
            number: self.number,
            buffer: std::mem::replace(&mut self.buffer, next),
            pieces: std::mem::take(&mut self.pieces),
            cids: Vec::new(),
        };
        self.number += 1;
        self.used = rest;
        self.to_hash.send(parcel).map_err(|_| ImportError::Broken)
    }

    fn piece(&mut self, piece: Piece) -> Result<(), ImportError> {
        self.pieces.push(piece);
        if self.pieces.len() >= MAX_PIECES {
            self.hand_on(self.used)?;
        }
        Ok(())
    }

    /// Cuts what is certain; `ended` says that no more content follows. Returns what is left.
    fn cut(&mut self, mut start: usize, ended: bool) -> usize {
        let profile = self.options.profile;
        while start < self.used && (ended || self.used - start >= profile.max_chunk_bytes()) {
            let end = start + profile.cut(&self.buffer.data[start..self.used]);
            self.pieces.push(Piece::Chunk { start, end });
            start = end;
        }
        start
    }

    fn file(
        &mut self,
        path: &Path,
        name: String,
        content: &mut dyn Read,
    ) -> Result<(), ImportError> {
        if self.buffer.data.len() - self.used < MIN_ROOM_BYTES {
            self.hand_on(self.used)?;
        }
        let mut start = self.used;
        loop {
            if self.used == self.buffer.data.len() {
                start = self.cut(start, false);
                self.hand_on(start)?;
                start = 0;
            }
            match content.read(&mut self.buffer.data[self.used..]) {
                Ok(0) => break,
                Ok(count) => self.used += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(read_error(path, e)),
            }
        }
        self.cut(start, true);
        self.piece(Piece::FileEnd(name))
    }

    fn folder(&mut self, path: &Path, name: String, depth: usize) -> Result<(), ImportError> {
        if depth > MAX_PATH_PARTS {
            return Err(refused(path, "it lies more than 32 folders deep"));
        }
        let entries = self.entries(path)?;
        self.piece(Piece::Folder(name))?;
        for (name, kind) in entries {
            let inside = path.join(&name);
            if kind.is_dir() {
                self.folder(&inside, name, depth + 1)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&inside).map_err(|e| read_error(&inside, e))?;
                self.piece(Piece::Symlink(name, target.as_os_str().as_bytes().to_vec()))?;
            } else if kind.is_file() {
                // Neither a link nor a pipe that somebody puts in its place is followed.
                let mut file = OpenOptions::new()
                    .read(true)
                    .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                    .open(&inside)
                    .map_err(|e| read_error(&inside, e))?;
                self.file(&inside, name, &mut file)?;
            } else {
                return Err(refused(
                    &inside,
                    "it is neither a file, a folder nor a link",
                ));
            }
        }
        self.piece(Piece::FolderEnd)
    }

    /// The entries that count, ascending by the bytes of the name, which is the order of the DAG.
    fn entries(&self, path: &Path) -> Result<Vec<(String, fs::FileType)>, ImportError> {
        let options = &self.options;
        let max_bytes = options.profile.max_folder_bytes();
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(|e| read_error(path, e))? {
            let entry = entry.map_err(|e| read_error(path, e))?;
            let name = entry.file_name();
            if options.profile.leaves_out_hidden()
                && !options.hidden
                && name.as_bytes().starts_with(b".")
            {
                continue;
            }
            let Some(name) = name.to_str() else {
                return Err(refused(&entry.path(), "its name is not UTF-8"));
            };
            if let Some(why) = name_fault(name) {
                return Err(refused(&entry.path(), why));
            }
            let kind = entry
                .file_type()
                .map_err(|e| read_error(&entry.path(), e))?;
            entries.push((name.to_owned(), kind));
            if entries.len() * MIN_LINK_BYTES > max_bytes {
                return Err(ImportError::FolderTooLarge {
                    path: path.display().to_string(),
                    max_bytes,
                });
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }
}

fn read_error(path: &Path, source: io::Error) -> ImportError {
    ImportError::Read {
        path: path.display().to_string(),
        source,
    }
}

fn refused(path: &Path, why: &'static str) -> ImportError {
    ImportError::Refused {
        path: path.display().to_string(),
        why,
    }
}
