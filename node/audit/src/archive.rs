//! The audit bundle as one file: a ustar archive of plain files, in order, without times and owners, so that the same
//! bundle is the same bytes. Stock `tar` unpacks it; what comes from somebody else is unpacked here, with bounds.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

use crate::bundle::{Bundle, BundleError, MAX_MEMBERS};

/// How many bytes all members may have together: a release of many targets, and the ledger of a chain of years.
pub const MAX_ARCHIVE_BYTES: u64 = 8 << 30;

/// Why an archive can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system, or the archive breaks off.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The folder is no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Something that is no plain file under a plain relative name.
    #[error(
        "the archive has the member {0:?}; only plain files with plain relative names are allowed"
    )]
    Member(String),
    /// Too many members.
    #[error("the archive has more than {MAX_MEMBERS} members")]
    TooMany,
    /// Too many bytes.
    #[error("the archive's members have more than {MAX_ARCHIVE_BYTES} bytes")]
    TooLarge,
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> ArchiveError + '_ {
    |source| ArchiveError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Writes all of the folder's members into the file `out`, which must not exist yet; it is whole or not there.
pub fn pack(dir: &Path, out: &Path) -> Result<(), ArchiveError> {
    let bundle = Bundle::at(dir);
    let failed = io_error(out);
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let mut archive = Builder::new(File::create(&partial).map_err(&failed)?);
    for member in bundle.members()? {
        let mut content = bundle.open(&member)?;
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_size(content.metadata().map_err(&failed)?.len());
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_path(&member).map_err(&failed)?;
        header.set_cksum();
        archive.append(&header, &mut content).map_err(&failed)?;
    }
    let file = archive.into_inner().map_err(&failed)?;
    file.sync_all().map_err(&failed)?;
    // A link fails where something is there already; a rename would overwrite it.
    fs::hard_link(&partial, out).map_err(&failed)?;
    fs::remove_file(&partial).map_err(&failed)
}

/// Unpacks somebody's archive into the folder `dir`, which must not exist yet.
pub fn unpack(file: &Path, dir: &Path) -> Result<(), ArchiveError> {
    let failed = io_error(file);
    let mut archive = Archive::new(File::open(file).map_err(&failed)?);
    fs::create_dir(dir).map_err(io_error(dir))?;
    let (mut members, mut total) = (0, 0_u64);
    // Raw: an extension header is refused like everything else that is no plain file, and not read into memory.
    for entry in archive.entries().map_err(&failed)?.raw(true) {
        let mut entry = entry.map_err(&failed)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = || ArchiveError::Member(name.chars().take(80).collect());
        let path = Path::new(&name);
        let plain = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_graphic())
            && path.components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || entry.header().entry_type() != EntryType::Regular {
            return Err(refused());
        }
        members += 1;
        if members > MAX_MEMBERS {
            return Err(ArchiveError::TooMany);
        }
        let size = entry.header().size().map_err(&failed)?;
        total = total.saturating_add(size);
        if total > MAX_ARCHIVE_BYTES {
            return Err(ArchiveError::TooLarge);
        }
        let to = dir.join(path);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(io_error(&to))?;
        }
        let mut out = File::create_new(&to).map_err(io_error(&to))?;
        let copied = io::copy(&mut entry.by_ref().take(size), &mut out).map_err(&failed)?;
        if copied != size {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// An archive with one member that the format does not allow, whatever a careful writer would refuse.
    fn archive(change: impl FnOnce(&mut Header), name: &[u8], content: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_size(content.len() as u64);
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name);
        change(&mut header);
        header.set_cksum();
        let mut archive = Builder::new(File::create(dir.path().join("a")).unwrap());
        archive.append(&header, content).unwrap();
        archive.finish().unwrap();
        dir
    }

    fn refused(dir: &tempfile::TempDir) -> ArchiveError {
        let out = dir.path().join("inside/out");
        fs::create_dir_all(out.parent().unwrap()).unwrap();
        let error = unpack(&dir.path().join("a"), &out).unwrap_err();
        // Nothing is written beside the folder.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        error
    }

    #[test]
    fn names_that_lead_elsewhere() {
        for name in [
            b"../evil".as_slice(),
            b"/etc/evil",
            b"a/../../evil",
            b"./a",
            b"a b",
            b"",
        ] {
            let error = refused(&archive(|_| {}, name, b"x"));
            assert!(matches!(error, ArchiveError::Member(_)), "{error}");
        }
    }

    #[test]
    fn links_folders_and_extensions() {
        for kind in [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Directory,
            EntryType::Fifo,
            EntryType::GNULongName,
            EntryType::XHeader,
            EntryType::GNUSparse,
        ] {
            let error = refused(&archive(|h| h.set_entry_type(kind), b"a", b""));
            assert!(
                matches!(error, ArchiveError::Member(_)),
                "{kind:?}: {error}"
            );
        }
    }

    #[test]
    fn sizes_that_lie_and_a_file_that_breaks_off() {
        let huge = refused(&archive(|h| h.set_size(MAX_ARCHIVE_BYTES + 1), b"a", b"x"));
        assert!(matches!(huge, ArchiveError::TooLarge), "{huge}");
        let longer = refused(&archive(|h| h.set_size(1 << 20), b"a", b"x"));
        assert!(matches!(longer, ArchiveError::Io { .. }), "{longer}");
    }

    #[test]
    fn a_member_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Builder::new(File::create(dir.path().join("a")).unwrap());
        for content in [b"one".as_slice(), b"two"] {
            let mut header = Header::new_ustar();
            header.set_size(3);
            header.set_path("a").unwrap();
            header.set_cksum();
            archive.append(&header, content).unwrap();
        }
        archive.finish().unwrap();
        assert!(matches!(refused(&dir), ArchiveError::Io { .. }));
    }

    #[test]
    fn what_was_packed_comes_out_and_is_the_same_bytes_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("files/x")).unwrap();
        fs::write(from.join("files/x/tool"), b"a program").unwrap();
        fs::write(from.join("audit.json"), b"{}").unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        pack(&from, &one).unwrap();
        pack(&from, &two).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        assert!(pack(&from, &one).is_err(), "it is never overwritten");
        unpack(&one, &dir.path().join("to")).unwrap();
        assert_eq!(
            fs::read(dir.path().join("to/files/x/tool")).unwrap(),
            b"a program"
        );
    }
}
