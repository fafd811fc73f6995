//! Writes a DAG out as files, verified and atomic: nothing appears under its final name before all
//! of it is on disk, and no name inside can lead outside.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cid::Cid;

use crate::block::{Blocks, canonical, identity_content};
use crate::node::{Node, decode};
use crate::walk::{DagError, Limits, check_links};

/// Size of the buffer in front of each file that is written.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;

/// Writes what stands at `path_in_dag` below `root` (or `root` itself) to `out`, which must not
/// exist; its parent folder must. Folders become folders, files become files with mode 0644 less
/// the umask. Returns the content bytes written.
pub fn export(
    blocks: &dyn Blocks,
    root: &Cid,
    path_in_dag: Option<&str>,
    out: &Path,
    limits: &Limits,
) -> Result<u64, DagError> {
    let cid = match path_in_dag {
        Some(path) => resolve(blocks, root, path, limits)?,
        None => canonical(root)?,
    };
    if out.symlink_metadata().is_ok() {
        return Err(DagError::Exists {
            path: out.display().to_string(),
        });
    }
    let partial = Partial::beside(out)?;
    let mut writer = Writer {
        source: Source::new(blocks, *limits),
        written: 0,
    };
    let mut done = Vec::new();
    writer.entry(&cid, &partial.path, 0, &mut done)?;
    for folder in done {
        // The entries of a folder are durable only once the folder itself is.
        sync_folder(&folder)?;
    }
    fs::rename(&partial.path, out).map_err(|e| io_error(out, "rename", e))?;
    partial.keep();
    sync_folder(parent_of(out))?;
    Ok(writer.written)
}

/// The content of the file `cid`, of at most `max_bytes`.
pub fn read_file(blocks: &dyn Blocks, cid: &Cid, max_bytes: u64) -> Result<Vec<u8>, DagError> {
    let limits = Limits {
        max_total_bytes: max_bytes,
        ..Limits::default()
    };
    let mut content = Vec::new();
    let cid = canonical(cid)?;
    Source::new(blocks, limits).file(&cid, None, 0, &mut |part| {
        content.extend_from_slice(part);
        Ok(())
    })?;
    Ok(content)
}

/// The entries of the directory `cid`: name, address and DAG size.
pub fn list_directory(
    blocks: &dyn Blocks,
    cid: &Cid,
    limits: &Limits,
) -> Result<Vec<crate::node::DirLink>, DagError> {
    let cid = canonical(cid)?;
    let bytes = Source::new(blocks, *limits).block(&cid, 0)?;
    let node = decode(&cid, &bytes)?;
    check_links(&cid, &node, limits)?;
    match node {
        Node::Directory { links } => Ok(links),
        _ => Err(DagError::Malformed {
            cid,
            why: "it is a file, not a folder",
        }),
    }
}

/// What stands at `path` (`a/b/c`) in the directory `root`.
pub fn resolve(
    blocks: &dyn Blocks,
    root: &Cid,
    path: &str,
    limits: &Limits,
) -> Result<Cid, DagError> {
    let not_found = || DagError::NotFound {
        root: *root,
        path: path.to_owned(),
    };
    let mut here = canonical(root)?;
    for (depth, part) in path.split('/').enumerate() {
        let bytes = Source::new(blocks, *limits).block(&here, depth)?;
        let node = decode(&here, &bytes)?;
        check_links(&here, &node, limits)?;
        let Node::Directory { links } = node else {
            return Err(not_found());
        };
        let found = links
            .binary_search_by(|link| link.name.as_str().cmp(part))
            .map_err(|_| not_found())?;
        here = canonical(&links[found].cid)?;
    }
    Ok(here)
}

/// Reads blocks and counts what it read, so that a small DAG that unfolds without end stops.
struct Source<'a> {
    blocks: &'a dyn Blocks,
    limits: Limits,
    followed: usize,
    content_bytes: u64,
}

type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), DagError> + 'a;

impl<'a> Source<'a> {
    fn new(blocks: &'a dyn Blocks, limits: Limits) -> Self {
        Self {
            blocks,
            limits,
            followed: 0,
            content_bytes: 0,
        }
    }

    fn limit(cid: &Cid, what: &'static str, max: u64) -> DagError {
        DagError::Limit {
            cid: *cid,
            what,
            max,
        }
    }

    fn block(&mut self, cid: &Cid, depth: usize) -> Result<Vec<u8>, DagError> {
        let cid = canonical(cid)?;
        if depth > self.limits.max_depth {
            let max = self.limits.max_depth as u64;
            return Err(Self::limit(&cid, "depth", max));
        }
        self.followed += 1;
        if self.followed > self.limits.max_blocks {
            let max = self.limits.max_blocks as u64;
            return Err(Self::limit(&cid, "links followed", max));
        }
        if let Some(content) = identity_content(&cid) {
            return Ok(content.to_vec());
        }
        self.blocks.get(&cid)?.ok_or(DagError::Missing { cid })
    }

    /// Streams the file at `cid`; its size must be `expected`, if a parent declared one. The depth
    /// bound also bounds the recursion.
    fn file(
        &mut self,
        cid: &Cid,
        expected: Option<u64>,
        depth: usize,
        sink: &mut Sink<'_>,
    ) -> Result<u64, DagError> {
        let bytes = self.block(cid, depth)?;
        let node = decode(cid, &bytes)?;
        check_links(cid, &node, &self.limits)?;
        let declared = match &node {
            Node::Leaf(content) => content.len() as u64,
            Node::File { size, .. } => *size,
            Node::Directory { .. } => return Err(DagError::NotAFile { cid: *cid }),
        };
        if expected.is_some_and(|expected| expected != declared) {
            return Err(DagError::Malformed {
                cid: *cid,
                why: "its size is not what its parent says",
            });
        }
        let max = self.limits.max_total_bytes;
        if self.content_bytes.saturating_add(declared) > max {
            return Err(Self::limit(cid, "content bytes", max));
        }
        match node {
            Node::Leaf(content) => {
                self.content_bytes += declared;
                sink(content)?;
            }
            Node::File { links, .. } => {
                drop(bytes);
                for link in links {
                    self.file(&link.cid, Some(link.size), depth + 1, sink)?;
                }
            }
            Node::Directory { .. } => return Err(DagError::NotAFile { cid: *cid }),
        }
        Ok(declared)
    }
}

struct Writer<'a> {
    source: Source<'a>,
    written: u64,
}

impl Writer<'_> {
    fn entry(
        &mut self,
        cid: &Cid,
        out: &Path,
        depth: usize,
        folders: &mut Vec<PathBuf>,
    ) -> Result<(), DagError> {
        let cid = canonical(cid)?;
        let bytes = self.source.block(&cid, depth)?;
        let node = decode(&cid, &bytes)?;
        check_links(&cid, &node, &self.source.limits)?;
        let Node::Directory { links } = node else {
            return self.file(&cid, out, depth);
        };
        drop(bytes);
        fs::create_dir(out).map_err(|e| io_error(out, "create folder", e))?;
        for link in links {
            // `decode` let no separator, `.` or `..` through, and the folder was made just now, so
            // that joining the name can't leave it.
            self.entry(&link.cid, &out.join(&link.name), depth + 1, folders)?;
        }
        folders.push(out.to_owned());
        Ok(())
    }

    fn file(&mut self, cid: &Cid, out: &Path, depth: usize) -> Result<(), DagError> {
        // `create_new` never follows a link that somebody laid there.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(out)
            .map_err(|e| io_error(out, "create file", e))?;
        let mut buffered = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
        self.written += self.source.file(cid, None, depth, &mut |part| {
            buffered
                .write_all(part)
                .map_err(|e| io_error(out, "write", e))
        })?;
        let file = buffered
            .into_inner()
            .map_err(|e| io_error(out, "write", e.into_error()))?;
        file.sync_all().map_err(|e| io_error(out, "sync", e))
    }
}

/// An unfinished output beside the final one, removed unless it is kept.
struct Partial {
    path: PathBuf,
    kept: bool,
}

impl Partial {
    fn beside(out: &Path) -> Result<Self, DagError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = out
            .file_name()
            .ok_or_else(|| io_error(out, "choose a name", io::ErrorKind::InvalidInput.into()))?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{number}.partial", std::process::id()));
        Ok(Self {
            path: parent_of(out).join(hidden),
            kept: false,
        })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Best effort: what is left has a hidden name that nothing reads.
        let _ = match self.path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(_) => Ok(()),
        };
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_folder(path: &Path) -> Result<(), DagError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| io_error(path, "sync", e))
}

fn io_error(path: &Path, what: &'static str, source: io::Error) -> DagError {
    DagError::Io {
        path: path.display().to_string(),
        what,
        source,
    }
}
