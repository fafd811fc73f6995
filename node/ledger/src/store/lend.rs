//! Repositories that read another one's objects in their place, as `git clone --shared` does (gitrepository-layout,
//! `objects/info/alternates`). Git leaves it to people not to remove what another repository needs; here the lender is told.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{PRIVATE_DIR, StoreError, io_error};

/// In a repository, where the objects are that it borrows.
const ALTERNATES: &str = "objects/info/alternates";
/// In a lender's private folder: a line for each repository that ever borrowed.
const BORROWERS: &str = "borrowers";

/// Lets a bare repository read another's objects, and tells that one.
pub fn borrow(path: &Path, lender: &Path) -> Result<(), StoreError> {
    let lender = lender
        .canonicalize()
        .map_err(io_error(lender.display().to_string()))?;
    // First told, then used: told in vain only keeps what nobody needs.
    tell(path, &lender)?;
    let mut line = lender.join("objects").into_os_string();
    line.push("\n");
    let file = path.join(ALTERNATES);
    fs::create_dir_all(path.join("objects/info"))
        .and_then(|()| fs::write(file, line.as_encoded_bytes()))
        .map_err(io_error("naming the objects that are borrowed"))
}

/// Tells the lender again: this repository may have been moved since.
pub fn tell_again(path: &Path) {
    for objects in lines(&path.join(ALTERNATES)) {
        if let Some(lender) = objects.parent() {
            // What can't be told now was told when it was borrowed.
            let _ = tell(path, lender);
        }
    }
}

/// The repositories that borrow from this one and are still there. What they need must not be let go.
pub fn borrowers(path: &Path) -> BTreeSet<PathBuf> {
    lines(&path.join(PRIVATE_DIR).join(BORROWERS))
        .into_iter()
        // Where that can't be seen, it is there.
        .filter(|borrower| borrower.join(ALTERNATES).try_exists().unwrap_or(true))
        .collect()
}

fn tell(path: &Path, lender: &Path) -> Result<(), StoreError> {
    let private = lender.join(PRIVATE_DIR);
    // Only a node's own ledger lets anything go.
    if !private.is_dir() {
        return Ok(());
    }
    let path = path
        .canonicalize()
        .map_err(io_error(path.display().to_string()))?;
    let file = private.join(BORROWERS);
    if lines(&file).contains(&path) {
        return Ok(());
    }
    let mut line = path.into_os_string();
    line.push("\n");
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .and_then(|mut file| {
            file.write_all(line.as_encoded_bytes())?;
            file.sync_all()
        })
        .map_err(io_error(format!(
            "noting in {} who borrows its objects (a clone of it could be borrowed from instead)",
            file.display()
        )))
}

/// The lines of a file, which is none if it is not there.
fn lines(file: &Path) -> Vec<PathBuf> {
    let bytes = fs::read(file).unwrap_or_default();
    bytes
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| PathBuf::from(std::ffi::OsStr::from_bytes(line)))
        .collect()
}
