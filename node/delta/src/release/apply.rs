//! Applies a release's delta beside its final place, and moves it there when every address came out.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use instar_chunks::{Cid, Profile, add_file};

use super::{Entry, List, MAGIC, MAX_LIST_BYTES, ReleaseError, root};
use crate::apply::{Wanted, apply};
use crate::error::{DeltaError, bounded};
use crate::source::Source;

/// A stretch of the object.
struct Body<'a> {
    object: &'a File,
    start: u64,
    len: u64,
}

impl Source for Body<'_> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }
    fn read_exact_at(&self, out: &mut [u8], place: u64) -> io::Result<()> {
        if place.saturating_add(out.len() as u64) > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Source::read_exact_at(self.object, out, self.start + place)
    }
}

/// Rebuilds the release that `object` leads to from the one at `old`, at `new`, which must not exist. With `wanted` only
/// that release is made. Modes are those of the old files: addresses say nothing about them.
///
/// On an error there is nothing at `new`; the caller fetches the blocks instead.
pub fn apply_release(
    old: &Path,
    object: &File,
    wanted: Option<&Cid>,
    new: &Path,
) -> Result<List, ReleaseError> {
    let (list, bodies) = read(object)?;
    if let Some(wanted) = wanted
        && list.new != wanted.to_string()
    {
        return Err(ReleaseError::OtherRelease {
            wanted: wanted.to_string(),
            found: list.new,
        });
    }
    if fs::symlink_metadata(new).is_ok() {
        return Err(unfit(new, "it exists; nothing is overwritten"));
    }
    let parent = match new.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let scratch = tempfile::Builder::new()
        .prefix(".instar-delta-")
        .tempdir_in(parent)
        .map_err(|e| unfit(parent, e))?;
    let stage = scratch.path().join("new");
    let single = matches!(list.files.as_slice(), [only] if only.path.is_empty());
    if !single {
        fs::create_dir(&stage).map_err(|e| unfit(&stage, e))?;
    }
    let mut start = bodies;
    for entry in &list.files {
        // `List::check` has held every path to the rules of a tree: relative, plain, nothing twice.
        let to = join(&stage, &entry.path);
        rebuild(old, object, start, entry, &to).map_err(|source| ReleaseError::File {
            path: entry.path.clone(),
            source,
        })?;
        start += entry.delta;
    }
    fs::rename(&stage, new).map_err(|e| unfit(new, e))?;
    File::open(parent)
        .and_then(|d| d.sync_all())
        .map_err(|e| unfit(parent, e))?;
    Ok(list)
}

fn unfit(path: &Path, why: impl ToString) -> ReleaseError {
    ReleaseError::Unfit {
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

fn join(folder: &Path, path: &str) -> PathBuf {
    match path {
        "" => folder.to_owned(),
        _ => folder.join(path),
    }
}

/// The list of an object, checked, and where the bodies start.
pub fn read(object: &dyn Source) -> Result<(List, u64), ReleaseError> {
    let fault = DeltaError::io("reading the release delta");
    let len = object.len().map_err(fault)?;
    let mut start = [0; 16];
    if len < 16 {
        return Err(ReleaseError::NotAnObject("it is shorter than its start"));
    }
    let read_at = |out: &mut [u8], place| {
        object
            .read_exact_at(out, place)
            .map_err(DeltaError::io("reading the release delta"))
    };
    read_at(&mut start, 0)?;
    if start[..8] != MAGIC {
        return Err(ReleaseError::NotAnObject(
            "its first eight bytes are other ones",
        ));
    }
    let text_len = u64::from_le_bytes(start[8..].try_into().expect("eight bytes are left"));
    bounded("bytes of list", text_len, MAX_LIST_BYTES)?;
    if 16 + text_len > len {
        return Err(DeltaError::Truncated("list").into());
    }
    let mut text = vec![0; text_len as usize];
    read_at(&mut text, 16)?;
    let list: List =
        serde_json::from_slice(&text).map_err(|e| ReleaseError::Malformed(e.to_string()))?;
    list.check()?;
    let bodies = list
        .files
        .iter()
        .try_fold(16 + text_len, |n, f| n.checked_add(f.delta));
    if bodies != Some(len) {
        return Err(ReleaseError::Malformed(
            "the bodies are not as long as the list says".to_owned(),
        ));
    }
    Ok((list, 16 + text_len))
}

fn rebuild(
    old: &Path,
    object: &File,
    start: u64,
    entry: &Entry,
    to: &Path,
) -> Result<(), DeltaError> {
    let writing = || DeltaError::io("writing the new file");
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(writing())?;
    }
    let mut out = File::create_new(to).map_err(writing())?;
    let source = match &entry.from {
        Some(path) => {
            check_path(path)?;
            let file =
                File::open(join(old, path)).map_err(DeltaError::io("opening the old file"))?;
            let found = file
                .metadata()
                .map_err(DeltaError::io("reading the old file"))?;
            if !found.is_file() {
                return Err(DeltaError::WrongOld {
                    wanted: "a file".to_owned(),
                    found: "none".to_owned(),
                });
            }
            let mode = fs::Permissions::from_mode(found.permissions().mode() & 0o777);
            out.set_permissions(mode).map_err(writing())?;
            Some(file)
        }
        None => None,
    };
    match &source {
        Some(file) if entry.delta == 0 => {
            if Source::len(file).map_err(DeltaError::io("reading the old file"))? != entry.size {
                return Err(DeltaError::WrongOld {
                    wanted: format!("{} bytes", entry.size),
                    found: "a file of another size".to_owned(),
                });
            }
            io::copy(&mut &*file, &mut out).map_err(writing())?;
        }
        _ => {
            let body = Body {
                object,
                start,
                len: entry.delta,
            };
            let wanted = Wanted {
                bytes: entry.size,
                sha256: digest(&entry.sha256)?,
            };
            let nothing: &[u8] = &[];
            match &source {
                Some(file) => apply(file, &body, wanted, &mut out)?,
                None => apply(&nothing, &body, wanted, &mut out)?,
            }
        }
    }
    out.sync_all().map_err(writing())?;
    // From the bytes on disk: the address is what was voted on.
    let mut back = File::open(to).map_err(writing())?;
    let summary = add_file(Profile::InstarCdcV1, &mut back, &mut |_, _| Ok(()))
        .map_err(|e| DeltaError::io("reading the new file")(io::Error::other(e)))?;
    let found = summary.cid.to_string();
    if found != entry.cid || summary.dag_size != entry.dag_size {
        return Err(DeltaError::WrongNew {
            wanted: entry.cid.clone(),
            found,
        });
    }
    Ok(())
}

/// A path into the old release is held to the same rules as one in the new one: no delta reads elsewhere.
fn check_path(path: &str) -> Result<(), DeltaError> {
    let probe = Entry {
        path: path.to_owned(),
        cid: instar_chunks::block::cid_of(instar_chunks::block::RAW, b"").to_string(),
        dag_size: 0,
        size: 0,
        sha256: String::new(),
        from: None,
        delta: 0,
    };
    if path.is_empty() || root(&[probe]).is_ok() {
        return Ok(());
    }
    Err(DeltaError::Malformed("a path leads out of the old release"))
}

fn digest(hex: &str) -> Result<[u8; 32], DeltaError> {
    let fault = || DeltaError::Malformed("a SHA-256 is not 64 hexadecimal digits");
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(fault());
    }
    let mut out = [0; 32];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).map_err(|_| fault())?;
    }
    Ok(out)
}
