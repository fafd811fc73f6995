//! Writes a DAG out as files, verified and atomic: nothing appears under its final name before all
//! of it is on disk, and no name and no symbolic link inside can lead outside.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cid::Cid;

use crate::block::{Blocks, RAW, canonical};
use crate::node::{DirLink, Node};
use crate::read::Source;
pub use crate::read::{list_directory, read_file, resolve};
use crate::walk::{DagError, Limits};

/// Size of the buffer in front of each file that is written.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;

/// What is done with a symbolic link that leads out of the folder that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// It is refused, and with it the whole output.
    #[default]
    Inside,
    /// It is written as it is. Whoever follows it later may end up anywhere.
    UnsafeAnywhere,
}

/// Writes what stands at `path_in_dag` below `root` (or `root` itself) to `out`, which must not
/// exist; its parent folder must. Folders become folders, files become files with mode 0644 less
/// the umask, links that stay inside become symbolic links. Returns the content bytes written.
pub fn export(
    blocks: &dyn Blocks,
    root: &Cid,
    path_in_dag: Option<&str>,
    out: &Path,
    limits: &Limits,
) -> Result<u64, DagError> {
    export_with(blocks, root, path_in_dag, out, limits, Links::Inside)
}

/// As [`export`], with a choice of what symbolic links may say.
pub fn export_with(
    blocks: &dyn Blocks,
    root: &Cid,
    path_in_dag: Option<&str>,
    out: &Path,
    limits: &Limits,
    links: Links,
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
        links,
        written: 0,
        folders: Vec::new(),
    };
    let mut source = Source::new(blocks, *limits);
    writer.entry(&mut source, &cid, &partial.path, 0, 0)?;
    for folder in &writer.folders {
        // The entries of a folder are durable only once the folder itself is.
        sync_folder(folder)?;
    }
    fs::rename(&partial.path, out).map_err(|e| io_error(out, "rename", e))?;
    partial.keep();
    sync_folder(parent_of(out))?;
    Ok(writer.written)
}

/// Whether `target`, in a link that stands `folders` folders below the output, stays inside.
///
/// It may go up only at its beginning, and not further than the output itself. Then it stays inside
/// whatever other links it passes, because each of those obeys the same rule from where it stands;
/// `a/..` after a link `a` need not lead back to where the link is.
fn stays_inside(target: &[u8], folders: usize) -> bool {
    let mut parts = target
        .split(|b| *b == b'/')
        .filter(|part| *part != b"." && !part.is_empty());
    let up = parts.by_ref().take_while(|part| *part == b"..").count();
    // `take_while` has eaten the first part that is not `..`, which needs no look.
    !target.starts_with(b"/") && up <= folders && parts.all(|part| part != b"..")
}

struct Writer {
    links: Links,
    written: u64,
    folders: Vec<PathBuf>,
}

impl Writer {
    /// `depth` counts blocks from the root, `folders` counts folders from the output.
    fn entry(
        &mut self,
        source: &mut Source<'_>,
        cid: &Cid,
        out: &Path,
        depth: usize,
        folders: usize,
    ) -> Result<(), DagError> {
        if cid.codec() == RAW {
            // Nothing but a file; it isn't read twice.
            return self.file(source, cid, out, depth);
        }
        match source.node(cid, depth)? {
            Node::Leaf(_) | Node::File { .. } => self.file(source, cid, out, depth),
            Node::Symlink { target } => self.link(cid, &target, out, folders),
            Node::Directory { links } => {
                create_folder(out)?;
                for link in links {
                    self.child(source, &link, out, depth, folders)?;
                }
                self.folders.push(out.to_owned());
                Ok(())
            }
            Node::Shard(shard) => {
                create_folder(out)?;
                source.shard(cid, shard, depth, &mut |source, link, depth| {
                    self.child(source, &link, out, depth, folders)
                })?;
                self.folders.push(out.to_owned());
                Ok(())
            }
        }
    }

    fn child(
        &mut self,
        source: &mut Source<'_>,
        link: &DirLink,
        out: &Path,
        depth: usize,
        folders: usize,
    ) -> Result<(), DagError> {
        // `decode` let no separator, `.` or `..` through, and the folder was made just now, so
        // that joining the name can't leave it.
        let inside = out.join(&link.name);
        self.entry(source, &link.cid, &inside, depth + 1, folders + 1)
    }

    fn link(&self, cid: &Cid, target: &[u8], out: &Path, folders: usize) -> Result<(), DagError> {
        use std::os::unix::ffi::OsStrExt as _;
        // A link that stands in the output folder itself is one folder below the output.
        let inside = folders > 0 && stays_inside(target, folders - 1);
        if self.links == Links::Inside && !inside {
            return Err(DagError::LeadsOutside {
                cid: *cid,
                target: String::from_utf8_lossy(target).into_owned(),
            });
        }
        std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), out)
            .map_err(|e| io_error(out, "create link", e))
    }

    fn file(
        &mut self,
        source: &mut Source<'_>,
        cid: &Cid,
        out: &Path,
        depth: usize,
    ) -> Result<(), DagError> {
        // `create_new` never follows a link that somebody laid there.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(out)
            .map_err(|e| io_error(out, "create file", e))?;
        let mut buffered = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
        self.written += source.file(cid, None, depth, &mut |part| {
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

fn create_folder(path: &Path) -> Result<(), DagError> {
    fs::create_dir(path).map_err(|e| io_error(path, "create folder", e))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_stay_and_links_that_leave() {
        for (target, folders) in [
            ("a", 0),
            ("./a//b", 0),
            ("../a", 1),
            ("../../lib/x.so", 2),
            ("..", 1),
        ] {
            assert!(stays_inside(target.as_bytes(), folders), "{target}");
        }
        for (target, folders) in [
            ("/etc/passwd", 5),
            ("..", 0),
            ("../..", 1),
            ("a/..", 3),
            ("../a/../b", 3),
            ("./../x", 0),
            ("a/b/../../../../x", 1),
        ] {
            assert!(!stays_inside(target.as_bytes(), folders), "{target}");
        }
    }
}
