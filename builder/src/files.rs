//! Small things done to files: atomic writing, and copying a source in a chosen order.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::SystemTime;

use crate::error::{At, BuildError};
use crate::source::list_files;

/// Writes a file so that a reader sees the old or the new content, never a part.
pub(crate) fn write_atomic(at: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let folder = at.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).at("can't make", folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).at("can't make a file in", folder)?;
    file.write_all(bytes).at("can't write", at)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))
        .at("can't set the mode of", at)?;
    file.persist(at)
        .map_err(|e| e.error)
        .at("can't replace", at)?;
    Ok(())
}

/// The order in which a copy's files are made: file systems list them differently then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// Copies the source tree `from` to the new folder `to`; modes, links and times stay.
pub(crate) fn copy_tree(from: &Path, to: &Path, order: Order) -> Result<(), BuildError> {
    let mut files = list_files(from)?;
    if order == Order::Descending {
        files.reverse();
    }
    fs::create_dir(to).at("can't make", to)?;
    let mut folders = std::collections::BTreeSet::new();
    for file in &files {
        let (source, target) = (from.join(file), to.join(file));
        if let Some(parent) = file.parent() {
            fs::create_dir_all(to.join(parent)).at("can't make", &target)?;
            folders.extend(parent.ancestors().map(Path::to_owned));
        }
        let meta = fs::symlink_metadata(&source).at("can't look at", &source)?;
        if meta.is_symlink() {
            let link = fs::read_link(&source).at("can't read", &source)?;
            symlink(link, &target).at("can't link", &target)?;
            continue;
        }
        // `copy` keeps the mode bits whatever the umask.
        fs::copy(&source, &target).at("can't copy to", &target)?;
        set_modified(&target, meta.modified().at("can't look at", &source)?)?;
    }
    // Folders get their times last, because each new file in them changes it.
    for folder in folders.iter().rev() {
        let source = from.join(folder);
        let time = source
            .metadata()
            .and_then(|m| m.modified())
            .at("can't look at", &source)?;
        set_modified(&to.join(folder), time)?;
    }
    Ok(())
}

pub(crate) fn set_modified(at: &Path, time: SystemTime) -> Result<(), BuildError> {
    fs::File::open(at)
        .and_then(|f| f.set_modified(time))
        .at("can't set the time of", at)
}
