//! Reading and writing `state.json`, and making a fresh home.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use instar_attest::json;

use crate::layout::{Layout, write_atomically};
use crate::state::{FORMAT, Release, State};
use crate::supervisor::{First, UpgraderError};
use crate::verify::measure;

/// The largest state file: a full quarantine with the longest reasons.
const MAX_STATE_BYTES: usize = 512 * 1024;

/// How much space is held back for a full disk: a state file and a few folder entries.
const RESERVE_BYTES: usize = 64 * 1024;

/// The state of a home, or `None` in a fresh one. What can't be read is an error, never a fresh start: nobody knows what
/// ran.
pub(crate) fn load(layout: &Layout) -> Result<Option<State>, UpgraderError> {
    let path = layout.state();
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| UpgraderError::file(&path, source))?,
    };
    let state: State =
        json::from_slice(&bytes, MAX_STATE_BYTES).map_err(|source| UpgraderError::State {
            path: path.clone(),
            source,
        })?;
    if state.format != FORMAT {
        return Err(UpgraderError::Format {
            path,
            found: state.format,
        });
    }
    Ok(Some(state))
}

/// Writes the state, durably. On a full disk the reserve is given up.
pub(crate) fn save(layout: &Layout, state: &State) -> io::Result<()> {
    let bytes = json::to_vec(state).map_err(io::Error::other)?;
    let written = write_atomically(&layout.state(), &bytes);
    match &written {
        Err(e) if is_full(e) && fs::remove_file(layout.reserve()).is_ok() => {
            write_atomically(&layout.state(), &bytes)
        }
        _ => written,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Holds space back for the next full disk; not having it is no error.
pub(crate) fn keep_reserve(layout: &Layout) {
    let path = layout.reserve();
    if fs::metadata(&path).is_ok_and(|m| m.len() == RESERVE_BYTES as u64) {
        return;
    }
    let kept = File::create(&path).and_then(|mut file| {
        // Not zeros: a file system may keep those without taking space.
        file.write_all(&[0xa5; RESERVE_BYTES])?;
        file.sync_all()
    });
    if kept.is_err() {
        // Half a reserve is of no use to anybody.
        let _ = fs::remove_file(&path);
    }
}

/// Copies the first program into a fresh home. The state is written last, so that a half-made home is made again.
pub(crate) fn install(layout: &Layout, first: &First) -> Result<State, UpgraderError> {
    let First {
        path,
        release,
        protocol,
    } = first;
    let wrap = |source| UpgraderError::file(path, source);
    let exe = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| wrap(io::Error::from(io::ErrorKind::InvalidInput)))?
        .to_owned();
    let measured = measure(path).map_err(wrap)?;
    let first = Release {
        release: release.clone().unwrap_or_else(|| measured.file.clone()),
        file: measured.file,
        protocol: *protocol,
        sha256: measured.sha256,
    };
    if !first.is_named_well() {
        return Err(UpgraderError::Name(first.release));
    }
    let staged = layout
        .stage(&first.release, &exe, &mut File::open(path).map_err(wrap)?)
        .map_err(|source| UpgraderError::file(layout.root(), source))?;
    // What was copied is what was measured, or somebody is writing to it.
    let copied = measure(&staged).map_err(|source| UpgraderError::file(&staged, source))?;
    if copied.sha256 != first.sha256 {
        return Err(UpgraderError::Changed(path.clone()));
    }
    let root = |source| UpgraderError::file(layout.root(), source);
    layout.link(&first.release).map_err(root)?;
    let state = State::first(exe, first);
    save(layout, &state).map_err(root)?;
    Ok(state)
}

/// Makes the folder, for its owner alone: who can write there decides what runs.
pub(crate) fn make_root(layout: &Layout) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(layout.root())?;
    fs::create_dir_all(layout.releases())
}

/// Removes a release's folder; one that is gone is fine.
pub(crate) fn remove(layout: &Layout, release: &str) -> io::Result<()> {
    let folder = layout.releases().join(Path::new(release));
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, Layout, State) {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(&home.path().join("home"));
        make_root(&layout).unwrap();
        let exe = home.path().join("node");
        fs::write(&exe, b"#!/bin/sh\n").unwrap();
        let first = First {
            path: exe,
            release: None,
            protocol: 1,
        };
        let state = install(&layout, &first).unwrap();
        (home, layout, state)
    }

    #[test]
    fn a_fresh_home_is_whole_and_read_back() {
        let (_home, layout, state) = made();
        assert_eq!(load(&layout).unwrap().unwrap(), state);
        assert_eq!(
            layout.linked().as_deref(),
            Some(state.good.release.as_str())
        );
        assert!(state.good.file.starts_with("baf"), "{}", state.good.file);
    }

    #[test]
    fn a_state_that_cannot_be_read_is_no_fresh_start() {
        let (_home, layout, state) = made();
        let good = fs::read(layout.state()).unwrap();
        fs::write(layout.state(), &good[..good.len() / 2]).unwrap();
        assert!(matches!(load(&layout), Err(UpgraderError::State { .. })));
        let newer = State {
            format: "instar-upgrader-v2".to_owned(),
            ..state
        };
        save(&layout, &newer).unwrap();
        assert!(matches!(load(&layout), Err(UpgraderError::Format { .. })));
    }
}
