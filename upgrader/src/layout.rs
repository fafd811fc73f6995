//! Where things are: `<home>/upgrader/`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The paths of one home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below a home.
    pub fn new(home: &Path) -> Self {
        Self {
            root: home.join("upgrader"),
        }
    }

    /// `<home>/upgrader`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of all releases.
    pub fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }

    /// The executable of a release: where a release is staged, and from where it runs.
    pub fn executable(&self, release: &str, exe: &str) -> PathBuf {
        self.releases().join(release).join(exe)
    }

    /// The link to the release that runs, or is about to.
    pub fn current(&self) -> PathBuf {
        self.root.join("current")
    }

    /// The state file.
    pub fn state(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// The newer part of the history.
    pub fn history(&self) -> PathBuf {
        self.root.join("history.jsonl")
    }

    /// The older part of the history.
    pub fn old_history(&self) -> PathBuf {
        self.root.join("history.1.jsonl")
    }

    /// The socket that the program talks to.
    pub fn socket(&self) -> PathBuf {
        self.root.join("socket")
    }

    /// Locked by the one supervisor of this home.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Which process the supervisor started last.
    pub(crate) fn child(&self) -> PathBuf {
        self.root.join("child")
    }

    /// Space that is given up when the disk is full, so that a return can still be written down.
    pub(crate) fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// The release that the link points to.
    pub fn linked(&self) -> Option<String> {
        let target = fs::read_link(self.current()).ok()?;
        let name = target.strip_prefix("releases").ok()?.to_str()?;
        Some(name.to_owned())
    }

    /// Moves the link in one step, durably.
    pub(crate) fn link(&self, release: &str) -> io::Result<()> {
        let new = self.root.join("current.new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        symlink(Path::new("releases").join(release), &new)?;
        fs::rename(&new, self.current())?;
        sync_dir(&self.root)
    }

    /// Stages an executable: writes it beside its place, makes it durable, and moves it there in one step.
    pub fn stage(&self, release: &str, exe: &str, bytes: &mut dyn Read) -> io::Result<PathBuf> {
        let path = self.executable(release, exe);
        let folder = self.releases().join(release);
        fs::create_dir_all(&folder)?;
        let temporary = folder.join(format!(".{exe}.new"));
        let mut file = File::create(&temporary)?;
        io::copy(bytes, &mut file)?;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        for dir in [folder.as_path(), &self.releases(), &self.root] {
            sync_dir(dir)?;
        }
        Ok(path)
    }
}

/// Makes what happened in a folder durable: names of files are the folder's content.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes a file so that at every instant its name has the old bytes or the new ones.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_moves_over_whatever_is_left() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path());
        layout.stage("bafya", "node", &mut &b"a"[..]).unwrap();
        layout.stage("bafyb", "node", &mut &b"b"[..]).unwrap();
        assert_eq!(layout.linked(), None);
        layout.link("bafya").unwrap();
        symlink("releases/half", layout.root().join("current.new")).unwrap();
        layout.link("bafyb").unwrap();
        assert_eq!(layout.linked().as_deref(), Some("bafyb"));
        assert_eq!(fs::read(layout.current().join("node")).unwrap(), b"b");
    }
}
