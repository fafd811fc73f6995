//! What the command sees as `/`: put together in memory, from read-only views of the host's folders.
//!
//! It is built once, in the helper's own mount namespace, over a folder that nobody needs, so it leaves no trace on disk and
//! is gone with the helper, however that ends. Nothing in it can be written but the folders that the job lends.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::namespaces::SCRATCH;
use super::{Failure, Step};
use crate::job::RESERVED;
use crate::{Job, MountKind, Root};

/// Mount points, links and the container library's notes are small.
const SCRATCH_OPTIONS: &str = "mode=0755,size=4m";

/// The places that the helper made.
pub struct Places {
    /// The root of the container.
    pub root: PathBuf,
    /// Where the container library keeps its notes.
    pub state: PathBuf,
    /// Where the container library reads its configuration.
    pub bundle: PathBuf,
}

/// Builds the root.
pub fn build(job: &Job) -> Result<Places, Failure> {
    let scratch = Path::new(SCRATCH);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("instar"),
        scratch,
        Some("tmpfs"),
        flags,
        Some(SCRATCH_OPTIONS),
    )
    .step("mounting memory")?;
    let places = Places {
        root: scratch.join("root"),
        state: scratch.join("state"),
        bundle: scratch.join("bundle"),
    };
    for folder in [&places.root, &places.state, &places.bundle] {
        make_folder(folder).step("making folders")?;
    }
    mount_cgroup(&scratch.join("fs/cgroup"))?;

    for name in RESERVED {
        make_folder(&places.root.join(&name[1..])).step("making folders")?;
    }
    if let Root::Folder(image) = &job.root {
        let step = || format!("opening the root {}", image.display());
        for entry in fs::read_dir(image).step(step())? {
            let entry = entry.step(step())?;
            let name = entry.file_name();
            if RESERVED
                .iter()
                .any(|reserved| name.as_encoded_bytes() == &reserved.as_bytes()[1..])
            {
                continue;
            }
            let target = places.root.join(&name);
            if entry.file_type().step(step())?.is_symlink() {
                symlink(fs::read_link(entry.path()).step(step())?, &target).step(step())?;
            } else {
                bind(&entry.path(), &target, false)?;
            }
        }
    }
    for wanted in &job.mounts {
        let target = place_for(&places.root, &wanted.target)?;
        match &wanted.kind {
            MountKind::ReadOnly { source } => bind(source, &target, false)?,
            MountKind::Writable { source } => bind(source, &target, true)?,
            MountKind::Tmpfs { size_bytes } => {
                ensure_folder(&target).step(format!("making {}", wanted.target))?;
                // Each container gets its own; only one that others are mounted into has to be there before them, and
                // then no second container is made, see `Sandbox::new`.
                if job.holds_mounts(wanted) {
                    let options = format!("mode=1777,size={size_bytes}");
                    mount(
                        Some("tmpfs"),
                        &target,
                        Some("tmpfs"),
                        flags,
                        Some(options.as_str()),
                    )
                    .step(format!("mounting memory at {}", wanted.target))?;
                }
            }
            MountKind::Symlink { to } => {
                symlink(to, &target).step(format!("linking {}", wanted.target))?
            }
        }
    }
    Ok(places)
}

/// A private, read-only view of the unified hierarchy. The container library insists on managing a cgroup; here it finds
/// one that it can't write, and takes that as an answer. The limits are set by [`super::cgroup`], from outside.
fn mount_cgroup(target: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(target)
        .step("making folders")?;
    mount(
        Some("cgroup2"),
        target,
        Some("cgroup2"),
        MsFlags::empty(),
        None::<&str>,
    )
    .step("mounting the unified cgroup hierarchy")?;
    restrict(target, libc::MOUNT_ATTR_RDONLY).step("making the cgroup hierarchy read-only")
}

/// The path of a mount point inside the root. A symbolic link on the way could lead out of it.
fn place_for(root: &Path, target: &str) -> Result<PathBuf, Failure> {
    let mut path = root.to_path_buf();
    let parts: Vec<&str> = target.trim_start_matches('/').split('/').collect();
    for (index, part) in parts.iter().enumerate() {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                return Err(Failure::new(
                    format!("mounting {target}"),
                    "a symbolic link is on the way",
                ));
            }
            Ok(_) => {}
            Err(_) if index + 1 == parts.len() => {}
            Err(_) => make_folder(&path).step(format!("making the mount point {target}"))?,
        }
    }
    Ok(path)
}

fn bind(source: &Path, target: &Path, writable: bool) -> Result<(), Failure> {
    let step = || format!("mounting {}", source.display());
    if fs::metadata(source).step(step())?.is_dir() {
        ensure_folder(target).step(step())?;
    } else if !target.exists() {
        fs::File::create(target).step(step())?;
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, None::<&str>, flags, None::<&str>).step(step())?;
    let readonly = if writable { 0 } else { libc::MOUNT_ATTR_RDONLY };
    restrict(target, readonly).step(format!("restricting {}", source.display()))
}

/// Takes rights from a mount and from everything below it.
fn restrict(target: &Path, attributes: u64) -> std::io::Result<()> {
    let path = CString::new(target.as_os_str().as_encoded_bytes())?;
    let attributes = libc::mount_attr {
        attr_set: attributes | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string and the attributes are a structure of the size that is passed; both outlive the
    // call, which only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

fn ensure_folder(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        Ok(())
    } else {
        make_folder(path)
    }
}

fn make_folder(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(path)
}
