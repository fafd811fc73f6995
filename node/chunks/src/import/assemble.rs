//! Puts hashed pieces together: files over chunks, folders over files.

use std::path::PathBuf;

use cid::Cid;

use super::{Buffer, ImportError, Imported, Keep, Parcel, Piece};
use crate::add::{Balanced, PutBlock};
use crate::node::{DirLink, MAX_TARGET_BYTES, encode_directory, encode_symlink};
use crate::profile::Profile;

/// A tree in the making.
pub(super) struct Assembly {
    profile: Profile,
    /// The file whose chunks are coming.
    file: Option<Balanced>,
    /// Folders that are open, the root first.
    folders: Vec<Folder>,
    /// Where they are, for messages.
    paths: Vec<PathBuf>,
    root: Option<(Cid, u64)>,
    counts: Counts,
}

struct Folder {
    name: String,
    links: Vec<DirLink>,
}

#[derive(Default)]
struct Counts {
    content_bytes: u64,
    files: u64,
    folders: u64,
    links: u64,
}

impl Assembly {
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            file: None,
            folders: Vec::new(),
            paths: Vec::new(),
            root: None,
            counts: Counts::default(),
        }
    }

    /// Takes a parcel and returns its buffer.
    pub fn take<M>(
        &mut self,
        parcel: Parcel<M>,
        keep: &mut dyn Keep<M>,
    ) -> Result<Buffer<M>, ImportError> {
        let Buffer { data, mut made } = parcel.buffer;
        let places = parcel.pieces.iter().filter_map(|piece| match piece {
            Piece::Chunk { start, end } => Some(&data[*start..*end]),
            _ => None,
        });
        let chunks: Vec<_> = parcel.cids.iter().copied().zip(places).collect();
        keep.chunks(&chunks, &mut made).map_err(ImportError::Keep)?;
        let mut chunks = chunks.into_iter();
        let profile = self.profile;
        for piece in parcel.pieces {
            match piece {
                Piece::Chunk { .. } => {
                    let (cid, bytes) = chunks.next().ok_or(ImportError::Broken)?;
                    let size = bytes.len() as u64;
                    self.counts.content_bytes += size;
                    let file = self.file.get_or_insert_with(|| Balanced::new(profile));
                    through(keep, |put| file.leaf(cid, size, put))?;
                }
                Piece::FileEnd(name) => {
                    let file = self.file.take().unwrap_or_else(|| Balanced::new(profile));
                    let root = through(keep, |put| file.finish(put))?;
                    self.counts.files += 1;
                    self.link(name, root.cid, root.dag_size);
                }
                Piece::Folder(name) => {
                    self.paths.push(match self.paths.last() {
                        Some(above) => above.join(&name),
                        None => PathBuf::from("."),
                    });
                    self.folders.push(Folder {
                        name,
                        links: Vec::new(),
                    });
                }
                Piece::FolderEnd => self.close(keep)?,
                Piece::Symlink(name, target) => {
                    if target.is_empty() || target.len() > MAX_TARGET_BYTES {
                        return Err(ImportError::Refused {
                            path: format!("{}/{name}", inside(&self.paths)),
                            why: "the target of the link is empty or too long",
                        });
                    }
                    let (cid, bytes) = encode_symlink(&target);
                    keep.node(&cid, &bytes).map_err(ImportError::Keep)?;
                    self.counts.links += 1;
                    self.link(name, cid, bytes.len() as u64);
                }
            }
        }
        Ok(Buffer { data, made })
    }

    fn link(&mut self, name: String, cid: Cid, dag_size: u64) {
        match self.folders.last_mut() {
            Some(folder) => folder.links.push(DirLink {
                name,
                cid,
                dag_size,
            }),
            None => self.root = Some((cid, dag_size)),
        }
    }

    fn close<M>(&mut self, keep: &mut dyn Keep<M>) -> Result<(), ImportError> {
        let folder = self.folders.pop().ok_or(ImportError::Broken)?;
        let (cid, bytes) = encode_directory(&folder.links);
        let max_bytes = self.profile.max_folder_bytes();
        if bytes.len() > max_bytes {
            return Err(ImportError::FolderTooLarge {
                path: inside(&self.paths),
                max_bytes,
            });
        }
        self.paths.pop();
        keep.node(&cid, &bytes).map_err(ImportError::Keep)?;
        self.counts.folders += 1;
        let below: u64 = folder.links.iter().map(|link| link.dag_size).sum();
        self.link(folder.name, cid, below + bytes.len() as u64);
        Ok(())
    }

    /// What was added; every folder is closed by now.
    pub fn finish(self) -> Result<Imported, ImportError> {
        let (cid, dag_size) = self.root.ok_or(ImportError::Broken)?;
        let counts = self.counts;
        Ok(Imported {
            cid,
            dag_size,
            content_bytes: counts.content_bytes,
            files: counts.files,
            folders: counts.folders,
            links: counts.links,
        })
    }
}

/// Runs `make` with a place to put nodes, and brings its refusal back as what it was.
fn through<M, T>(
    keep: &mut dyn Keep<M>,
    make: impl FnOnce(&mut PutBlock<'_>) -> std::io::Result<T>,
) -> Result<T, ImportError> {
    let mut refusal = None;
    let made = make(&mut |cid, bytes| {
        keep.node(cid, bytes).map_err(|error| {
            refusal = Some(error);
            std::io::Error::other("refused")
        })
    });
    made.map_err(|_| refusal.map_or(ImportError::Broken, ImportError::Keep))
}

/// For messages: where in the tree something stands.
fn inside(folders: &[PathBuf]) -> String {
    folders
        .last()
        .map_or_else(|| ".".to_owned(), |p| p.display().to_string())
}
