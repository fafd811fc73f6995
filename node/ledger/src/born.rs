//! Whether a file is the one that was made here, or a copy of it.
//!
//! A high-water mark that was restored from a backup has an old content that nothing in it betrays. But it is another
//! file: it came to be later. So the moment at which a mark's file came to be is noted beside it. Where the file system
//! does not say when that was, nothing is noted and nothing noticed; nor is a rollback of a whole disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The name of the note is the file's with this behind it.
const SUFFIX: &str = ".born";

fn note_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

/// When the file came to be, as text; nothing where nobody knows.
fn birth(path: &Path) -> io::Result<Option<String>> {
    let created = fs::metadata(path)?.created().ok();
    let since = created.and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    Ok(since.map(|s| format!("{}\n", s.as_nanos())))
}

/// Notes, durably, that the file at `path` was made here.
pub fn note(path: &Path) -> io::Result<()> {
    let Some(text) = birth(path)? else {
        return Ok(());
    };
    let at = note_path(path);
    let new = at.with_extension("born.new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &at)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Whether the file at `path` is another one than the one that was noted. Without a note it is taken for the one, and
/// noted: a crash may have come between the two.
pub fn is_copy(path: &Path) -> io::Result<bool> {
    let noted = match fs::read_to_string(note_path(path)) {
        Ok(noted) => noted,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            note(path)?;
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    Ok(birth(path)?.is_some_and(|born| born != noted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_copy_is_told_from_what_was_made_here() {
        let dir = tempfile::tempdir().unwrap();
        let (file, backup) = (dir.path().join("mark"), dir.path().join("backup"));
        fs::write(&file, b"1").unwrap();
        if birth(&file).unwrap().is_none() {
            // This file system does not say when a file came to be: then a copy passes, and that is what is held here.
            fs::copy(&file, &backup).unwrap();
            fs::rename(&backup, &file).unwrap();
            assert!(!is_copy(&file).unwrap());
            return;
        }
        note(&file).unwrap();
        fs::write(&file, b"2").unwrap();
        assert!(!is_copy(&file).unwrap(), "it was only written to");
        // File systems count by the kernel's tick.
        std::thread::sleep(std::time::Duration::from_millis(50));
        fs::copy(&file, &backup).unwrap();
        fs::rename(&backup, &file).unwrap();
        assert!(is_copy(&file).unwrap());
        note(&file).unwrap();
        assert!(!is_copy(&file).unwrap());
        fs::remove_file(note_path(&file)).unwrap();
        assert!(!is_copy(&file).unwrap());
        assert!(note_path(&file).exists());
    }
}
