//! The folder of deltas that were made: a bounded cache, which can be deleted at any time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use instar_chunks::Cid;

/// Deltas that are kept. A chain that upgrades several times a day has them for a week.
const MAX_KEPT: usize = 32;
/// Their bytes together.
const MAX_KEPT_BYTES: u64 = 256 << 20;
/// How their files end.
const ENDING: &str = "delta";

pub(super) struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// The folder, made if it isn't there; what a killed process left half made is removed.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|ending| ending != ENDING) {
                // A folder that was worked in; one that can't be removed takes space and harms nothing else.
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, have: &Cid, want: &Cid) -> PathBuf {
        self.folder.join(format!("{have}+{want}.{ENDING}"))
    }

    /// The delta and its size, if it was made.
    pub fn find(&self, have: &Cid, want: &Cid) -> Option<(File, u64)> {
        let file = File::open(self.path(have, want)).ok()?;
        let bytes = file.metadata().ok()?.len();
        Some((file, bytes))
    }

    /// Takes a finished delta, and forgets the oldest ones that no longer fit.
    pub fn take(&self, have: &Cid, want: &Cid, made: &Path) -> io::Result<()> {
        fs::rename(made, self.path(have, want))?;
        let mut all: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let found = entry.metadata()?;
            if found.is_file() {
                all.push((found.modified()?, found.len(), entry.path()));
            }
        }
        all.sort();
        let mut bytes: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
        let mut count = all.len();
        for (_, size, path) in all {
            if count <= MAX_KEPT && bytes <= MAX_KEPT_BYTES {
                break;
            }
            fs::remove_file(path)?;
            (count, bytes) = (count - 1, bytes - size);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use instar_chunks::block::{RAW, cid_of};

    #[test]
    fn the_oldest_are_forgotten_and_what_is_half_made_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("work-1")).unwrap();
        fs::write(dir.path().join("x.part"), b"x").unwrap();
        let kept = Kept::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let cid = |n: usize| cid_of(RAW, &n.to_le_bytes());
        for n in 0..MAX_KEPT + 3 {
            let made = dir.path().join("made");
            fs::write(&made, vec![0; n + 1]).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
            File::open(&made).unwrap().set_modified(time).unwrap();
            kept.take(&cid(0), &cid(n), &made).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MAX_KEPT);
        assert!(kept.find(&cid(0), &cid(2)).is_none());
        assert_eq!(kept.find(&cid(0), &cid(3)).unwrap().1, 4);
        // Another process finds them again.
        assert!(
            Kept::open(dir.path())
                .unwrap()
                .find(&cid(0), &cid(9))
                .is_some()
        );
    }
}
