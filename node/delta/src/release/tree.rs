//! A release as it lies on disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use instar_chunks::{Profile, add_file};

use super::{Entry, MAX_FILES, ReleaseError};

/// A file on disk, addressed.
pub struct Found {
    /// What is known about it.
    pub entry: Entry,
    /// Where it lies.
    pub place: PathBuf,
}

fn unfit(path: &Path, why: impl ToString) -> ReleaseError {
    ReleaseError::Unfit {
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

/// Every file under `root`, sorted by path; `root` may be a file itself.
pub fn read(root: &Path) -> Result<Vec<Found>, ReleaseError> {
    let mut out = Vec::new();
    let kind = fs::metadata(root).map_err(|e| unfit(root, e))?;
    if kind.is_file() {
        out.push(address(root, String::new())?);
    } else {
        walk(root, "", &mut out)?;
    }
    out.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    Ok(out)
}

fn walk(dir: &Path, prefix: &str, out: &mut Vec<Found>) -> Result<(), ReleaseError> {
    for entry in fs::read_dir(dir).map_err(|e| unfit(dir, e))? {
        let entry = entry.map_err(|e| unfit(dir, e))?;
        let place = entry.path();
        let kind = entry.file_type().map_err(|e| unfit(&place, e))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Err(unfit(&place, "the name is not UTF-8"));
        };
        let path = format!("{prefix}{name}");
        if kind.is_dir() {
            walk(&place, &format!("{path}/"), out)?;
        } else if !kind.is_file() {
            return Err(unfit(
                &place,
                "neither a file nor a folder; a release has only those",
            ));
        } else if out.len() == MAX_FILES {
            return Err(unfit(dir, format!("more than {MAX_FILES} files")));
        } else {
            out.push(address(&place, path)?);
        }
    }
    Ok(())
}

fn address(place: &Path, path: String) -> Result<Found, ReleaseError> {
    let mut file = File::open(place).map_err(|e| unfit(place, e))?;
    let summary = add_file(Profile::InstarCdcV1, &mut file, &mut |_, _| Ok(()))
        .map_err(|e| unfit(place, e))?;
    Ok(Found {
        entry: Entry {
            path,
            cid: summary.cid.to_string(),
            dag_size: summary.dag_size,
            size: summary.size,
            sha256: crate::apply::hex(&summary.sha256),
            from: None,
            delta: 0,
        },
        place: place.to_owned(),
    })
}
