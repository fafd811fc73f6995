//! Adds files, folders and streams: one thread reads and cuts, several hash and make ready, one
//! puts together. Memory is a fixed number of buffers, whatever is added.
//!
//! The address is a function of names, contents and links alone: no order of reading, number of
//! threads, time or owner plays a part.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use cid::Cid;

use crate::block::{BlockError, RAW, cid_of};
use crate::import::assemble::Assembly;
use crate::node::name_fault;
use crate::profile::Profile;
use crate::store::BlockStore;
use crate::tree::MAX_PATH_PARTS;

mod assemble;

/// Bytes of one buffer: a few chunks of the coarsest profile.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Less room than this in a buffer isn't worth beginning a file in.
const MIN_ROOM_BYTES: usize = 64 * 1024;
/// Pieces that one buffer holds at most: many tiny files are handed on in time.
const MAX_PIECES: usize = 8192;
/// Threads that hash. More don't help: one reads, one writes.
const MAX_HASHERS: usize = 8;
/// A folder entry takes at least this many bytes in its node, so that a folder with more entries
/// than fit is refused before all of them are looked at.
const MIN_LINK_BYTES: usize = 40;

/// What is added.
pub enum Content<'a> {
    /// A file or folder. If the path itself is a symbolic link, what it leads to.
    Path(&'a Path),
    /// A stream, which becomes a file.
    Stream(&'a mut (dyn Read + Send)),
}

/// How it is added.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    /// How files are cut.
    pub profile: Profile,
    /// Whether names that begin with a dot count also under a profile that leaves them out.
    pub hidden: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            profile: Profile::InstarCdcV1,
            hidden: false,
        }
    }
}

/// What was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The root.
    pub cid: Cid,
    /// Bytes of all its blocks, counted as often as they are linked (dag-pb `Tsize`).
    pub dag_size: u64,
    /// Content bytes of all files.
    pub content_bytes: u64,
    /// Files.
    pub files: u64,
    /// Folders, the root included.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
}

/// Why something couldn't be added.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file or folder couldn't be read.
    #[error("{path} can't be read")]
    Read {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Something that no DAG can hold.
    #[error("{path} can't be added: {why}")]
    Refused {
        /// Where.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// A folder doesn't fit in one block.
    #[error(
        "the folder {path} is too large: its node would need more than {max_bytes} bytes, and sharded folders are not written. Split it into several, or add it as an archive"
    )]
    FolderTooLarge {
        /// The folder.
        path: String,
        /// What a node may have under the profile.
        max_bytes: usize,
    },
    /// A block couldn't be kept.
    #[error("a block couldn't be kept")]
    Keep(#[source] BlockError),
    /// A thread ended early.
    #[error("adding broke off")]
    Broken,
}

/// A piece of work for the hashers, in the order of the tree.
#[derive(Debug)]
enum Piece {
    Folder(String),
    FolderEnd,
    Chunk { start: usize, end: usize },
    FileEnd(String),
    Symlink(String, Vec<u8>),
}

/// A buffer on its way, with its number, so that order is kept.
struct Parcel<R> {
    number: u64,
    data: Vec<u8>,
    pieces: Vec<Piece>,
    /// One for each chunk, once it went through a hasher.
    ready: Vec<(Cid, R)>,
}

/// What the reader hands on: a parcel, or why there are no more.
type Handed<R> = Result<Parcel<R>, ImportError>;

/// What makes a chunk or node ready, on several threads at once.
pub type Ready<'a, R> = dyn Fn(&Cid, &[u8]) -> Result<R, BlockError> + Sync + 'a;
/// What takes each with what came of making it ready.
pub type Keep<'a, R> = dyn FnMut(&Cid, &[u8], R) -> Result<(), BlockError> + 'a;

/// Cuts and hashes `content`. `ready` runs on several threads for each chunk and node; `keep` gets
/// each with what `ready` made of it, in order, children before parents.
pub fn import<R: Send>(
    content: Content<'_>,
    options: &ImportOptions,
    ready: &Ready<'_, R>,
    keep: &mut Keep<'_, R>,
) -> Result<Imported, ImportError> {
    let hashers = std::thread::available_parallelism().map_or(2, usize::from);
    let hashers = hashers.clamp(1, MAX_HASHERS);
    // One is being filled, one is being put together, and each hasher has one and the next.
    let buffers = 2 + 2 * hashers;
    let (give_back, free) = sync_channel::<Vec<u8>>(buffers);
    for _ in 0..buffers {
        give_back
            .send(vec![0; BUFFER_BYTES])
            .map_err(|_| ImportError::Broken)?;
    }
    let (to_hash, hash) = sync_channel::<Parcel<R>>(buffers);
    let (done, results) = sync_channel::<Handed<R>>(buffers + 1);
    let hash = Mutex::new(hash);
    std::thread::scope(|scope| {
        for _ in 0..hashers {
            let (hash, done) = (&hash, done.clone());
            scope.spawn(move || hasher(hash, &done, ready));
        }
        let failed = done.clone();
        drop(done);
        let options = *options;
        scope.spawn(move || {
            let mut reader = Reader::new(options, free, to_hash);
            if let Err(error) = reader.run(content) {
                // If nobody listens any more, somebody else failed first.
                let _ = failed.send(Err(error));
            }
        });
        // Leaving this scope hangs up on everybody, so that all threads end.
        let results = results;
        let give_back = give_back;
        let mut assembly = Assembly::new(options.profile);
        let mut early = std::collections::BTreeMap::new();
        let mut next = 0;
        while let Ok(handed) = results.recv() {
            let parcel = handed?;
            early.insert(parcel.number, parcel);
            while let Some(parcel) = early.remove(&next) {
                next += 1;
                let data = assembly.take(parcel, ready, keep)?;
                // The reader may have ended already.
                let _ = give_back.send(data);
            }
        }
        assembly.finish()
    })
}

impl BlockStore {
    /// Adds `content` and, if a name is given, pins it: all of it is durable when this returns.
    pub fn import(
        &self,
        content: Content<'_>,
        options: &ImportOptions,
        pin: Option<&str>,
    ) -> Result<Imported, ImportError> {
        let mut append = self.append();
        let imported = import(
            content,
            options,
            &|cid, bytes| self.ready(cid, bytes),
            &mut |cid, bytes, ready| append.put_ready(cid, bytes, ready),
        )?;
        let root = imported.cid.to_string();
        match pin {
            Some("") => append.commit_pinned(&root, &imported.cid),
            Some(name) => append.commit_pinned(name, &imported.cid),
            None => append.commit(),
        }
        .map_err(ImportError::Keep)?;
        Ok(imported)
    }
}

/// The address of `content`; nothing is stored.
pub fn only_cid(content: Content<'_>, options: &ImportOptions) -> Result<Imported, ImportError> {
    import(content, options, &|_, _| Ok(()), &mut |_, _, ()| Ok(()))
}

fn hasher<R: Send>(
    hash: &Mutex<Receiver<Parcel<R>>>,
    done: &SyncSender<Handed<R>>,
    ready: &Ready<'_, R>,
) {
    loop {
        // A poisoned lock means that another hasher panicked; the scope will say so.
        let Ok(queue) = hash.lock() else { return };
        let Ok(mut parcel) = queue.recv() else { return };
        drop(queue);
        let chunks = parcel.pieces.iter().filter_map(|piece| match piece {
            Piece::Chunk { start, end } => Some(&parcel.data[*start..*end]),
            _ => None,
        });
        let made: Result<Vec<_>, _> = chunks
            .map(|bytes| {
                let cid = cid_of(RAW, bytes);
                ready(&cid, bytes).map(|ready| (cid, ready))
            })
            .collect();
        let handed = match made {
            Ok(made) => {
                parcel.ready = made;
                Ok(parcel)
            }
            Err(error) => Err(ImportError::Keep(error)),
        };
        if done.send(handed).is_err() {
            return;
        }
    }
}

/// Reads and cuts.
struct Reader<R> {
    options: ImportOptions,
    free: Receiver<Vec<u8>>,
    to_hash: SyncSender<Parcel<R>>,
    number: u64,
    data: Vec<u8>,
    used: usize,
    pieces: Vec<Piece>,
}

impl<R> Reader<R> {
    fn new(
        options: ImportOptions,
        free: Receiver<Vec<u8>>,
        to_hash: SyncSender<Parcel<R>>,
    ) -> Self {
        Self {
            options,
            free,
            to_hash,
            number: 0,
            data: Vec::new(),
            used: 0,
            pieces: Vec::new(),
        }
    }

    fn run(&mut self, content: Content<'_>) -> Result<(), ImportError> {
        self.data = self.free.recv().map_err(|_| ImportError::Broken)?;
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
        next[..rest].copy_from_slice(&self.data[uncut..self.used]);
        let parcel = Parcel {
            number: self.number,
            data: std::mem::replace(&mut self.data, next),
            pieces: std::mem::take(&mut self.pieces),
            ready: Vec::new(),
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
            let end = start + profile.cut(&self.data[start..self.used]);
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
        if self.data.len() - self.used < MIN_ROOM_BYTES {
            self.hand_on(self.used)?;
        }
        let mut start = self.used;
        loop {
            if self.used == self.data.len() {
                start = self.cut(start, false);
                self.hand_on(start)?;
                start = 0;
            }
            match content.read(&mut self.data[self.used..]) {
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

/// For messages: where in the tree something stands.
fn inside(folders: &[PathBuf]) -> String {
    folders
        .last()
        .map_or_else(|| ".".to_owned(), |p| p.display().to_string())
}
