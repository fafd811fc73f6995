//! What to run, on which root file system, within which limits.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::SandboxError;

/// What the sandbox itself puts into every root.
pub(crate) const RESERVED: [&str; 3] = ["/proc", "/dev", "/sys"];

/// The kernel's own bound.
const MAX_HOSTNAME_BYTES: usize = 64;

/// One command and everything that it may see and use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// What the command sees as `/`, always read-only.
    pub root: Root,
    /// What is mounted into the root, in this order. Missing mount points are made.
    pub mounts: Vec<Mount>,
    /// The program (absolute inside the root) and its arguments.
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// The working folder, absolute inside the root.
    pub cwd: String,
    /// The name that the command sees as its host's.
    pub hostname: String,
    /// What it may use.
    pub limits: Limits,
    /// Which system calls it may make.
    pub profile: Profile,
    /// Where its input comes from.
    pub stdin: Stream,
    /// Where its output goes.
    pub stdout: Stream,
    /// Where its errors go.
    pub stderr: Stream,
}

/// The root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// This folder's entries, read-only.
    Folder(PathBuf),
    /// Nothing but what [`Job::mounts`] brings.
    Empty,
}

/// One thing mounted into the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Where, absolute inside the root.
    pub target: String,
    /// What.
    pub kind: MountKind,
}

impl Mount {
    /// A host path that the command may read, at `target`.
    pub fn read_only(source: impl Into<PathBuf>, target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            kind: MountKind::ReadOnly {
                source: source.into(),
            },
        }
    }

    /// A host folder that the command may write, at `target`.
    pub fn writable(source: impl Into<PathBuf>, target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            kind: MountKind::Writable {
                source: source.into(),
            },
        }
    }

    /// An empty folder in memory, at `target`.
    pub fn tmpfs(target: impl Into<String>, size_bytes: u64) -> Self {
        Self {
            target: target.into(),
            kind: MountKind::Tmpfs { size_bytes },
        }
    }

    /// A symbolic link at `target`, which points to `to`.
    pub fn symlink(target: impl Into<String>, to: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            kind: MountKind::Symlink { to: to.into() },
        }
    }
}

/// What kind of thing a [`Mount`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A file or folder of the host, with everything mounted below it, read-only.
    ReadOnly {
        /// The path on the host.
        source: PathBuf,
    },
    /// A folder of the host that may be written.
    Writable {
        /// The path on the host.
        source: PathBuf,
    },
    /// An empty folder in memory, gone with the container.
    Tmpfs {
        /// The most that it can hold.
        size_bytes: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points to.
        to: String,
    },
}

/// What the command may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory of all its processes (cgroup where there is one) and address space of each (always).
    pub memory_bytes: u64,
    /// Address space of one process, where it differs from `memory_bytes`: compilers map far more than they touch.
    pub address_space_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u32,
    /// Processor time of one process, in seconds.
    pub cpu_s: Option<u64>,
    /// Share of the processors, in hundredths of one (cgroup only).
    pub cpu_percent: Option<u32>,
    /// Time from the start to the forced end; [`crate::Running::arm`] sets it anew.
    pub wall_ms: u64,
    /// Size of one written file.
    pub file_bytes: u64,
    /// Open files of one process.
    pub open_files: u64,
}

/// Which system calls the command may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// What a program needs that computes, and talks over its standard streams: an allow list.
    Dapp,
    /// What compilers and build scripts need: a deny list of what reaches the kernel's more dangerous parts.
    Build,
}

/// One standard stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// A pipe to the caller, found in [`crate::Running`].
    Pipe,
    /// Empty, and forgotten.
    Null,
    /// A file on the host: read from its start, or made empty and written.
    File(PathBuf),
}

impl Job {
    /// Whether anything is mounted into this mount.
    pub(crate) fn holds_mounts(&self, mount: &Mount) -> bool {
        let inside = format!("{}/", mount.target);
        self.mounts
            .iter()
            .any(|other| other.target.starts_with(&inside))
    }

    /// Refuses what no sandbox can be built from, before anything is started.
    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        let bad = |why: String| Err(SandboxError::BadJob(why));
        match self.argv.first() {
            None => return bad("no command".to_owned()),
            Some(program) if !clean_absolute(program) => {
                return bad(format!("{program:?} is not an absolute path"));
            }
            Some(_) => {}
        }
        if !clean_absolute(&self.cwd) {
            return bad(format!(
                "the working folder {:?} is not an absolute path",
                self.cwd
            ));
        }
        for mount in &self.mounts {
            if !clean_absolute(&mount.target) || mount.target == "/" {
                return bad(format!("{:?} is no place for a mount", mount.target));
            }
            if RESERVED
                .iter()
                .any(|name| mount.target == *name || mount.target.starts_with(&format!("{name}/")))
            {
                return bad(format!("{:?} is the sandbox's own", mount.target));
            }
        }
        let texts = self
            .argv
            .iter()
            .chain(self.env.iter().flat_map(|(name, value)| [name, value]));
        if texts
            .chain([&self.hostname])
            .any(|text| text.contains('\0'))
        {
            return bad("a text contains a NUL".to_owned());
        }
        if self
            .env
            .iter()
            .any(|(name, _)| name.is_empty() || name.contains('='))
        {
            return bad("an environment variable has no proper name".to_owned());
        }
        if self.hostname.is_empty() || self.hostname.len() > MAX_HOSTNAME_BYTES {
            return bad(format!("a host name has 1 to {MAX_HOSTNAME_BYTES} bytes"));
        }
        if self.limits.wall_ms == 0 || self.limits.pids == 0 || self.limits.memory_bytes == 0 {
            return bad("a limit of zero".to_owned());
        }
        Ok(())
    }
}

/// Whether a path is absolute and has no `.`, `..` or empty parts.
fn clean_absolute(path: &str) -> bool {
    path == "/"
        || path.strip_prefix('/').is_some_and(|rest| {
            rest.split('/')
                .all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'))
        })
}
