//! Checking staged bytes: the file is read once and cut again under the profile, offline.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use instar_attest::Digest;
use instar_chunks::{Profile, add_file};

use crate::layout::{Layout, sync_dir};
use crate::state::Release;

/// The largest executable: more than any node, and bounded time for reading it.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// What a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    pub file: String,
    pub sha256: Digest,
}

/// Reads a file and says what its bytes are.
pub(crate) fn measure(path: &Path) -> io::Result<Measured> {
    measure_file(&mut File::open(path)?)
}

fn measure_file(file: &mut File) -> io::Result<Measured> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "{} bytes, more than {MAX_FILE_BYTES}",
            meta.len()
        )));
    }
    let summary =
        add_file(Profile::InstarCdcV1, file, &mut |_, _| Ok(())).map_err(io::Error::other)?;
    Ok(Measured {
        file: summary.cid.to_string(),
        sha256: Digest::from_bytes(summary.sha256),
    })
}

/// Checks that the staged bytes of a release are the ones that it names, and makes them durable: the intent that is
/// written next must never name bytes that a power cut can take away.
pub(crate) fn verify(layout: &Layout, exe: &str, release: &Release) -> Result<(), String> {
    let path = layout.executable(&release.release, exe);
    let say = |what: &str, e: io::Error| format!("{what} {}: {e}", path.display());
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(|e| say("can't open", e))?;
    let measured = measure_file(&mut file).map_err(|e| say("can't read", e))?;
    if measured.sha256 != release.sha256 {
        return Err(format!(
            "sha256 is {}, expected {}",
            measured.sha256, release.sha256
        ));
    }
    if measured.file != release.file {
        return Err(format!(
            "CID is {}, expected {}",
            measured.file, release.file
        ));
    }
    let mode = file
        .metadata()
        .map_err(|e| say("can't read", e))?
        .permissions()
        .mode();
    if mode & 0o100 == 0 {
        return Err(format!("{} is not executable", path.display()));
    }
    let folder = layout.releases().join(&release.release);
    file.sync_all()
        .and_then(|()| sync_dir(&folder))
        .and_then(|()| sync_dir(&layout.releases()))
        .map_err(|e| say("can't make durable", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn each_way_of_being_wrong_is_named() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path());
        let path = layout
            .stage("bafyx", "node", &mut &b"new program"[..])
            .unwrap();
        let measured = measure(&path).unwrap();
        let right = Release {
            file: measured.file,
            protocol: 1,
            release: "bafyx".to_owned(),
            sha256: measured.sha256,
        };
        assert_eq!(verify(&layout, "node", &right), Ok(()));
        let refused = |release: &Release| verify(&layout, "node", release).unwrap_err();
        let wrong_file = Release {
            file: "bafkother".to_owned(),
            ..right.clone()
        };
        assert!(refused(&wrong_file).starts_with("CID is"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&right).ends_with("is not executable"));
        fs::write(&path, b"new_program").unwrap();
        assert!(refused(&right).starts_with("sha256 is"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/bin/true", &path).unwrap();
        assert!(refused(&right).starts_with("can't open"));
    }
}
