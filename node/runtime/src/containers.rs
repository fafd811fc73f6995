//! The containers of one release.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use instar_sandbox::{Job, Limits, Mount, Profile, Root, Running, Sandbox, SandboxError, Stream};

use crate::image::Image;

/// How long a container may wait for its block.
pub const IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// One that works, one that waits, and as many that end; a question has one of its own.
const AT_ONCE: usize = 4;

/// What a dapp may use: what fits a small computer several times.
const LIMITS: Limits = Limits {
    memory_bytes: 128 << 20,
    address_space_bytes: None,
    pids: 16,
    cpu_s: Some(120),
    cpu_percent: None,
    wall_ms: IDLE.as_millis() as u64,
    file_bytes: TMP_BYTES,
    open_files: 64,
};
/// The size of a dapp's `/tmp`.
const TMP_BYTES: u64 = 4 << 20;

/// Makes containers for one release.
#[derive(Debug)]
pub struct Containers {
    job: Job,
    /// Made with the first container.
    sandbox: Mutex<Option<Sandbox>>,
}

impl Containers {
    /// For an image.
    pub fn new(image: &Image) -> Self {
        let env = [
            ("PATH", "/usr/bin:/bin"),
            ("LC_ALL", "C"),
            ("TZ", "UTC"),
            ("HOME", "/tmp"),
        ];
        let job = Job {
            root: Root::Folder(image.rootfs.clone()),
            mounts: vec![Mount::tmpfs("/tmp", TMP_BYTES)],
            argv: image.manifest.command.clone(),
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            cwd: "/".to_owned(),
            hostname: "dapp".to_owned(),
            limits: LIMITS,
            profile: Profile::Dapp,
            stdin: Stream::Pipe,
            stdout: Stream::Pipe,
            stderr: Stream::Pipe,
        };
        Self {
            job,
            sandbox: Mutex::new(None),
        }
    }

    /// A new one, in which the dapp runs.
    pub fn start(&self) -> Result<Running, String> {
        let started = self.sandbox().and_then(|sandbox| sandbox.spawn());
        // Whatever became of the sandbox (anybody may kill its helper), a new one may do.
        let started = started.or_else(|_| {
            self.close();
            self.sandbox()?.spawn()
        });
        started.map_err(|error| error.to_string())
    }

    /// Gives up the sandbox, until the next container is asked for.
    pub fn close(&self) {
        *self.kept() = None;
    }

    fn sandbox(&self) -> Result<Sandbox, SandboxError> {
        let mut kept = self.kept();
        if let Some(sandbox) = &*kept {
            return Ok(sandbox.clone());
        }
        Ok(kept.insert(Sandbox::new(&self.job, AT_ONCE)?).clone())
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Sandbox>> {
        self.sandbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
