//! Adds files, folders and streams: one thread reads and cuts, several hash and make ready, one
//! puts together. Memory is a fixed number of buffers, whatever is added.
//!
//! The address is a function of names, contents and links alone: no order of reading, number of
//! threads, time or owner plays a part.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use cid::Cid;

use crate::block::{BlockError, RAW, cid_of};
use crate::profile::Profile;

mod assemble;
mod read;

use assemble::Assembly;
use read::Reader;

/// Bytes of one buffer: a few chunks of the coarsest profile, and little enough that what was read
/// is still in the processor's cache when it is hashed.
const BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// Threads that hash. More don't help: one reads, one writes.
const MAX_HASHERS: usize = 8;

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

/// A piece of work, in the order of the tree.
#[derive(Debug)]
enum Piece {
    Folder(String),
    FolderEnd,
    Chunk { start: usize, end: usize },
    FileEnd(String),
    Symlink(String, Vec<u8>),
}

/// Memory that goes round: what was read, and what is made of it.
#[derive(Default)]
struct Buffer<M> {
    data: Vec<u8>,
    made: M,
}

/// A buffer on its way, with its number, so that order is kept.
struct Parcel<M> {
    number: u64,
    buffer: Buffer<M>,
    pieces: Vec<Piece>,
    /// One for each chunk, once it went through a hasher.
    cids: Vec<Cid>,
}

/// What the reader hands on: a parcel, or why there are no more.
type Handed<M> = Result<Parcel<M>, ImportError>;

/// What makes a chunk ready, on several threads at once; what it makes of the chunks of one parcel
/// it adds to `M`.
pub type Ready<'a, M> = dyn Fn(&Cid, &[u8], &mut M) -> Result<(), BlockError> + Sync + 'a;

/// Takes what was made ready, on one thread, in order, children before parents.
pub trait Keep<M> {
    /// All chunks of one parcel, and what was made of them, which is left empty for the next.
    fn chunks(&mut self, chunks: &[(Cid, &[u8])], made: &mut M) -> Result<(), BlockError>;
    /// A node above them.
    fn node(&mut self, cid: &Cid, bytes: &[u8]) -> Result<(), BlockError>;
}

/// Cuts and hashes `content`: `ready` gets each chunk, then `keep` gets everything.
pub fn import<M: Default + Send>(
    content: Content<'_>,
    options: &ImportOptions,
    ready: &Ready<'_, M>,
    keep: &mut dyn Keep<M>,
) -> Result<Imported, ImportError> {
    let hashers = std::thread::available_parallelism().map_or(2, usize::from);
    let hashers = hashers.clamp(1, MAX_HASHERS);
    // One is being filled, one is being put together, and each hasher has one and the next.
    let buffers = 2 + 2 * hashers;
    let (give_back, free) = sync_channel::<Buffer<M>>(buffers);
    for _ in 0..buffers {
        let buffer = Buffer {
            data: vec![0; BUFFER_BYTES],
            made: M::default(),
        };
        give_back.send(buffer).map_err(|_| ImportError::Broken)?;
    }
    let (to_hash, hash) = sync_channel::<Parcel<M>>(buffers);
    let (done, results) = sync_channel::<Handed<M>>(buffers + 1);
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
        let mut early = BTreeMap::new();
        let mut next = 0;
        while let Ok(handed) = results.recv() {
            let parcel = handed?;
            early.insert(parcel.number, parcel);
            while let Some(parcel) = early.remove(&next) {
                next += 1;
                let buffer = assembly.take(parcel, keep)?;
                // The reader may have ended already.
                let _ = give_back.send(buffer);
            }
        }
        assembly.finish()
    })
}

/// The address of `content`; nothing is stored.
pub fn only_cid(content: Content<'_>, options: &ImportOptions) -> Result<Imported, ImportError> {
    struct Nowhere;
    impl Keep<()> for Nowhere {
        fn chunks(&mut self, _: &[(Cid, &[u8])], (): &mut ()) -> Result<(), BlockError> {
            Ok(())
        }
        fn node(&mut self, _: &Cid, _: &[u8]) -> Result<(), BlockError> {
            Ok(())
        }
    }
    import(content, options, &|_, _, ()| Ok(()), &mut Nowhere)
}

fn hasher<M: Send>(
    hash: &Mutex<Receiver<Parcel<M>>>,
    done: &SyncSender<Handed<M>>,
    ready: &Ready<'_, M>,
) {
    loop {
        // A poisoned lock means that another hasher panicked; the scope will say so.
        let Ok(queue) = hash.lock() else { return };
        let Ok(mut parcel) = queue.recv() else { return };
        drop(queue);
        let made = parcel.hash(ready);
        let handed = made.map(|()| parcel).map_err(ImportError::Keep);
        if done.send(handed).is_err() {
            return;
        }
    }
}

impl<M> Parcel<M> {
    fn hash(&mut self, ready: &Ready<'_, M>) -> Result<(), BlockError> {
        for piece in &self.pieces {
            if let Piece::Chunk { start, end } = piece {
                let bytes = &self.buffer.data[*start..*end];
                let cid = cid_of(RAW, bytes);
                ready(&cid, bytes, &mut self.buffer.made)?;
                self.cids.push(cid);
            }
        }
        Ok(())
    }
}
