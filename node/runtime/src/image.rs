//! Images: the files of a release, taken from the block store to disk, each checked against `release.json`.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use instar_attest::Digest;
use instar_attest::release::{MAX_RELEASE_BYTES, Release, ReleaseFile};
use instar_chunks::{Blocks, Cid, DagError, Limits};
use sha2::{Digest as _, Sha256};

use crate::manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError};

/// The largest image. It is all on each node's disk.
const MAX_IMAGE_BYTES: u64 = 1 << 30;
/// The manifest in an image's folder.
const MANIFEST: &str = "dapp.json";
/// The root file system in an image's folder.
const ROOTFS: &str = "rootfs";

/// How the name of a folder ends that is being written.
const FRESH: &str = ".new";

/// The machine that this program was built for, in the words of a release.
const TARGET: &str = if cfg!(target_arch = "x86_64") {
    "x86_64-unknown-linux-gnu"
} else if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "unsupported"
};

/// A dapp, ready to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The folder that a container sees as its root.
    pub rootfs: PathBuf,
    /// What the dapp says about itself.
    pub manifest: Manifest,
}

/// Why an image can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The address is none.
    #[error("{0:?} is no CID")]
    BadCid(String),
    /// A block is missing, or not what it should be.
    #[error(transparent)]
    Dag(Box<DagError>),
    /// `release.json` is not one.
    #[error("release.json is refused: {0}")]
    Release(String),
    /// The release has nothing for this machine.
    #[error("the release has no image for {TARGET}")]
    NoTarget,
    /// The release is larger than a node keeps.
    #[error("the image has {0} bytes, at most {MAX_IMAGE_BYTES} are allowed")]
    TooLarge(u64),
    /// A file is not what `release.json` says.
    #[error("the file {path} has SHA-256 {found}, release.json says {expected}")]
    Mismatch {
        /// The path in the release.
        path: String,
        /// What was found.
        found: Digest,
        /// What was expected.
        expected: Digest,
    },
    /// The manifest is refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The disk failed.
    #[error("can't write the image")]
    Io(#[from] std::io::Error),
}

impl From<DagError> for ImageError {
    fn from(error: DagError) -> Self {
        Self::Dag(Box::new(error))
    }
}

impl Image {
    /// The image of a release, below `folder`. What is there already is checked again; what is not there, or is not
    /// what it should be, is taken from the block store.
    pub fn prepare(folder: &Path, release: &str, blocks: &dyn Blocks) -> Result<Self, ImageError> {
        let root = Cid::try_from(release).map_err(|_| ImageError::BadCid(release.to_owned()))?;
        // Only blocks are trusted, because they are checked against their address; the folder is a cache.
        let limits = Limits {
            max_total_bytes: MAX_IMAGE_BYTES,
            ..Limits::default()
        };
        let listing = instar_chunks::export::resolve(blocks, &root, "release.json", &limits)?;
        let listing = instar_chunks::read_file(blocks, &listing, MAX_RELEASE_BYTES as u64)?;
        let listing =
            Release::parse(&listing).map_err(|error| ImageError::Release(error.to_string()))?;
        let files: Vec<(&ReleaseFile, &str)> = listing
            .files
            .iter()
            .filter_map(|file| Some((file, place(file)?)))
            .collect();
        if !files.iter().any(|(_, place)| *place == MANIFEST) {
            return Err(ImageError::NoTarget);
        }
        let size = files
            .iter()
            .map(|(file, _)| file.size)
            .fold(0, u64::saturating_add);
        if size > MAX_IMAGE_BYTES {
            return Err(ImageError::TooLarge(size));
        }

        let kept = folder.join(release);
        if !(kept.is_dir() && is_intact(&kept, &files)) {
            let fresh = Fresh::new(folder, release)?;
            write(&fresh.0, &root, &files, blocks, &limits)?;
            // A rehearsal beside this one may have been quicker; what it wrote may be running already.
            if !is_intact(&kept, &files) {
                remove(&kept)?;
                fs::rename(&fresh.0, &kept)?;
            }
        }
        let mut text = Vec::new();
        File::open(kept.join(MANIFEST))?
            .take(MAX_MANIFEST_BYTES as u64 + 1)
            .read_to_end(&mut text)?;
        Ok(Self {
            rootfs: kept.join(ROOTFS),
            manifest: Manifest::parse(&text)?,
        })
    }
}

/// A folder that nobody else writes, gone if it wasn't renamed.
struct Fresh(PathBuf);

impl Fresh {
    fn new(folder: &Path, release: &str) -> std::io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let own = format!("{}-", std::process::id());
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let of = name
                .to_str()
                .and_then(|name| name.strip_suffix(FRESH)?.split_once('.'));
            // A node has its folder for itself, so this is from one that was killed.
            if of.is_some_and(|(_, of)| !of.starts_with(&own)) {
                remove(&entry.path())?;
            }
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{release}.{own}{number}{FRESH}"));
        remove(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

/// Where a release's file stands in the image's folder; none for those of another machine or another kind.
fn place(file: &ReleaseFile) -> Option<&str> {
    if file.target.as_str() != TARGET {
        return None;
    }
    let path = file.path.as_str().strip_prefix(TARGET)?.strip_prefix('/')?;
    (path == MANIFEST || path.starts_with("rootfs/")).then_some(path)
}

fn write(
    fresh: &Path,
    root: &Cid,
    files: &[(&ReleaseFile, &str)],
    blocks: &dyn Blocks,
    limits: &Limits,
) -> Result<(), ImageError> {
    make_folder(fresh)?;
    make_folder(&fresh.join(ROOTFS))?;
    for (file, place) in files {
        let mut folder = fresh.to_path_buf();
        let parts: Vec<&str> = place.split('/').collect();
        for part in &parts[..parts.len() - 1] {
            folder.push(part);
            make_folder(&folder)?;
        }
        let path = fresh.join(place);
        instar_chunks::export(blocks, root, Some(file.path.as_str()), &path, limits)?;
        // Set by hand, so that no umask keeps the container's user from reading.
        fs::set_permissions(&path, Permissions::from_mode(file.mode.bits()))?;
        let found = sha256(&path)?;
        if found != file.sha256 {
            let path = file.path.as_str().to_owned();
            return Err(ImageError::Mismatch {
                path,
                found,
                expected: file.sha256,
            });
        }
    }
    Ok(())
}

fn is_intact(kept: &Path, files: &[(&ReleaseFile, &str)]) -> bool {
    let same = |(file, place): &(&ReleaseFile, &str)| {
        let path = kept.join(place);
        let plain = path.symlink_metadata().is_ok_and(|found| {
            found.is_file()
                && found.len() == file.size
                && found.permissions().mode() & 0o7777 == file.mode.bits()
        });
        plain && sha256(&path).is_ok_and(|found| found == file.sha256)
    };
    files.iter().all(same) && count(&kept.join(ROOTFS)).is_ok_and(|found| found + 1 == files.len())
}

/// How many files a folder has, at all depths: one that release.json doesn't list must not be there.
fn count(folder: &Path) -> std::io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() {
            count(&entry.path())?
        } else {
            1
        };
    }
    Ok(files)
}

fn make_folder(path: &Path) -> std::io::Result<()> {
    if !path.is_dir() {
        fs::create_dir(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sha256(path: &Path) -> std::io::Result<Digest> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(Digest::from_bytes(hasher.finalize().into()))
}
