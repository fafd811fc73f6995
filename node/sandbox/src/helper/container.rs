//! Containers of one job, built by libcontainer.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::Pid;
use seccompiler::BpfProgram;
use serde_json::json;

use super::cgroup::Cgroup;
use super::root::Places;
use super::{Failure, Step, namespaces, root, seccomp};
use crate::pidfd::open_pidfd;
use crate::{Job, MountKind, Profile, Status};

/// The sandbox could not be sealed, so the command was not started.
const EXIT_UNSEALED: i32 = 125;
/// A shell's code for a command that can't be executed.
const EXIT_NOT_EXECUTABLE: i32 = 126;
/// A shell's code for a command that isn't there.
pub const EXIT_NOT_FOUND: i32 = 127;

/// What a whole `/proc` hides, and what nobody writes there: as in every container runtime.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/kmsg",
];
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Where containers of one job are made.
pub struct Maker {
    command: Command,
    places: Places,
    /// How many have been made.
    count: u64,
}

/// A running container.
pub struct Container {
    pid: Pid,
    pidfd: OwnedFd,
    // The container ends itself when this end is gone before its command has started.
    _alive: OwnedFd,
    /// The library's notes about it.
    notes: PathBuf,
}

/// What a container's processes used.
pub struct Usage {
    pub cpu_ms: u64,
    pub resident_bytes: u64,
}

impl Maker {
    /// Enters the namespaces and builds the root, once for all containers.
    pub fn new(job: &Job) -> Result<Self, Failure> {
        // Everything that can be wrong is found before anything is made.
        let filters = seccomp::filters(job.profile)?;
        let command = Command::new(job, filters)?;
        namespaces::enter(job.profile, &job.hostname)?;
        let places = root::build(job)?;
        let config = serde_json::to_vec(&spec(job, &places))
            .step("writing the container's configuration")?;
        std::fs::write(places.bundle.join("config.json"), config)
            .step("writing the container's configuration")?;
        Ok(Self {
            command,
            places,
            count: 0,
        })
    }

    /// Builds a container and starts the command.
    pub fn start(
        &mut self,
        streams: [OwnedFd; 3],
        cgroup: &mut Cgroup,
    ) -> Result<Container, Failure> {
        let (alive_theirs, alive_ours) = nix::unistd::pipe().step("making a pipe")?;
        let executor = SealedExecutor {
            command: self.command.clone(),
            alive: alive_theirs.as_raw_fd(),
            alive_helper: alive_ours.as_raw_fd(),
        };
        self.count += 1;
        let name = self.count.to_string();
        let notes = self.places.state.join(&name);
        let [stdin, stdout, stderr] = streams;
        let mut container = ContainerBuilder::new(name, SyscallType::default())
            .with_root_path(&self.places.state)
            .map_err(library)?
            .with_executor(executor)
            .with_stdin(stdin)
            .with_stdout(stdout)
            .with_stderr(stderr)
            .as_init(&self.places.bundle)
            .with_systemd(false)
            .with_detach(true)
            .build()
            .map_err(library)?;
        drop(alive_theirs);
        let pid = container.pid().map(|pid| Pid::from_raw(pid.as_raw()));
        let pid = pid.ok_or_else(|| Failure::new("building the container", "it has no process"))?;
        let started = open_pidfd(pid.as_raw().unsigned_abs())
            .step("watching the container")
            .and_then(|pidfd| {
                // Between built and started, so that nothing of the command's runs outside the limits.
                cgroup
                    .add_process(pid)
                    .step("putting the container under its limits")?;
                container.start().map_err(library)?;
                Ok(pidfd)
            });
        match started {
            Ok(pidfd) => Ok(Container {
                pid,
                pidfd,
                _alive: alive_ours,
                notes,
            }),
            Err(failure) => {
                super::end(pid);
                let _ = nix::sys::wait::waitpid(pid, None);
                Err(failure)
            }
        }
    }
}

impl Container {
    /// Readable once the first process is gone.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Ends the first process, and with it all others.
    pub fn end(&self) {
        super::end(self.pid);
    }

    /// How the first process ended, and what all used; nothing of the container is left then.
    pub fn reap(self) -> std::io::Result<(Status, Usage)> {
        let mut status = 0;
        // SAFETY: rusage is a plain structure of numbers, for which all zeroes is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live variables of the right types, which the kernel fills.
        while unsafe { libc::wait4(self.pid.as_raw(), &raw mut status, 0, &raw mut usage) } == -1 {
            let error = std::io::Error::last_os_error();
            if error.kind() != std::io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        let ended = if libc::WIFSIGNALED(status) {
            Status::Signaled(libc::WTERMSIG(status))
        } else {
            Status::Exited(libc::WEXITSTATUS(status))
        };
        let ms = |time: libc::timeval| {
            u64::try_from(time.tv_sec).unwrap_or(0) * 1000
                + u64::try_from(time.tv_usec).unwrap_or(0) / 1000
        };
        // Notes that stay would only fill the little memory that they have.
        let _ = std::fs::remove_dir_all(&self.notes);
        let cpu_ms = ms(usage.ru_utime) + ms(usage.ru_stime);
        let resident_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
        Ok((
            ended,
            Usage {
                cpu_ms,
                resident_bytes,
            },
        ))
    }
}

/// The library's errors keep their causes in `source`, which the caller would otherwise not see.
fn library(error: libcontainer::error::LibcontainerError) -> Failure {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        source = cause.source();
    }
    Failure::new("building the container", why)
}

/// The container's configuration in the form of the OCI runtime specification.
fn spec(job: &Job, places: &Places) -> serde_json::Value {
    let mut proc = vec!["nosuid", "noexec", "nodev"];
    let (masked, readonly): (&[&str], &[&str]) = match job.profile {
        // A dapp sees its own processes there and nothing of the machine, on which its answers must not depend.
        Profile::Dapp => {
            proc.push("subset=pid");
            (&[], &[])
        }
        // Builds ask how many processors there are, and how much memory.
        Profile::Build => (MASKED, READ_ONLY),
    };
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": proc }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=64k"] }),
    ];
    for mount in &job.mounts {
        if let MountKind::Tmpfs { size_bytes } = mount.kind
            && !job.holds_mounts(mount)
        {
            mounts.push(json!({
                "destination": mount.target, "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "nodev", "mode=1777", format!("size={size_bytes}")],
            }));
        }
    }
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": places.root, "readonly": true },
        "mounts": mounts,
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0, "umask": 0o022 },
            "args": job.argv,
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": job.cwd,
            "capabilities": { "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [] },
            "noNewPrivileges": true,
        },
        "linux": {
            // The others are the helper's own.
            "namespaces": [{ "type": "pid" }, { "type": "mount" }],
            // Absolute and never empty: the library would take an empty one for the cgroup of the caller.
            "cgroupsPath": format!("/instar-{}", std::process::id()),
            "maskedPaths": masked,
            "readonlyPaths": readonly,
        },
    })
}

/// The command in the form that the last step needs: after it nothing is allocated or compiled any more.
#[derive(Clone)]
struct Command {
    argv: Vec<CString>,
    env: Vec<CString>,
    limits: Vec<(Resource, u64)>,
    filters: Vec<BpfProgram>,
}

impl Command {
    fn new(job: &Job, filters: Vec<BpfProgram>) -> Result<Self, Failure> {
        let text = |text: String| CString::new(text).step("reading the command");
        let argv = job
            .argv
            .iter()
            .cloned()
            .map(text)
            .collect::<Result<_, _>>()?;
        let env = job
            .env
            .iter()
            .map(|(name, value)| text(format!("{name}={value}")))
            .collect::<Result<_, _>>()?;
        let limits = &job.limits;
        let mut rlimits = vec![
            (
                Resource::RLIMIT_AS,
                limits.address_space_bytes.unwrap_or(limits.memory_bytes),
            ),
            (Resource::RLIMIT_NPROC, u64::from(limits.pids)),
            (Resource::RLIMIT_FSIZE, limits.file_bytes),
            (Resource::RLIMIT_NOFILE, limits.open_files),
            (Resource::RLIMIT_CORE, 0),
            (Resource::RLIMIT_MEMLOCK, 64 * 1024),
            (Resource::RLIMIT_MSGQUEUE, 0),
        ];
        if let Some(cpu_s) = limits.cpu_s {
            rlimits.push((Resource::RLIMIT_CPU, cpu_s));
        }
        Ok(Self {
            argv,
            env,
            limits: rlimits,
            filters,
        })
    }
}

/// The last step, inside the finished container.
#[derive(Clone)]
struct SealedExecutor {
    command: Command,
    alive: i32,
    alive_helper: i32,
}

impl SealedExecutor {
    /// Ends with the helper, whatever becomes of it.
    fn bind_life(&self) -> std::io::Result<()> {
        // SAFETY: the call takes two numbers.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // The helper may have died before that call. Then its end of the pipe is closed, once our own copy is.
        // SAFETY: both are this process's copies of the pipe that the helper made for this; nothing else uses them.
        let (alive, copy) = unsafe {
            (
                BorrowedFd::borrow_raw(self.alive),
                OwnedFd::from_raw_fd(self.alive_helper),
            )
        };
        drop(copy);
        let mut fds = [nix::poll::PollFd::new(alive, nix::poll::PollFlags::POLLIN)];
        match nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO)? {
            0 => Ok(()),
            _ => Err(std::io::Error::other("the helper is gone")),
        }
    }

    fn seal(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.bind_life()?;
        for (resource, limit) in &self.command.limits {
            setrlimit(*resource, *limit, *limit)?;
        }
        for filter in &self.command.filters {
            seccompiler::apply_filter(filter)?;
        }
        Ok(())
    }
}

impl Executor for SealedExecutor {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let Command { argv, env, .. } = &self.command;
        let code = match (self.seal(), argv.first()) {
            (Err(error), _) => {
                eprintln!("the sandbox can't be sealed: {error}");
                EXIT_UNSEALED
            }
            (Ok(()), None) => EXIT_NOT_FOUND,
            (Ok(()), Some(program)) => match nix::unistd::execve(program, argv, env) {
                Ok(never) => match never {},
                Err(error) => {
                    eprintln!("can't start {}: {error}", program.to_string_lossy());
                    if error == nix::errno::Errno::ENOENT {
                        EXIT_NOT_FOUND
                    } else {
                        EXIT_NOT_EXECUTABLE
                    }
                }
            },
        };
        // SAFETY: _exit ends the process without running anything else in it.
        unsafe { libc::_exit(code) }
    }

    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment is passed to the command directly; this process needs none.
        Ok(())
    }
}
