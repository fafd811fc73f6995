//! The forker, which forks helpers, and the helper: one thread that builds one container, watches it, and reports how it ended.

mod cgroup;
mod container;
mod namespaces;
mod root;
mod seccomp;

use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{ForkResult, Pid};

use crate::wire::{MAX_LINE_BYTES, Reply, Request};
use crate::{Exit, Job, Missing, Status};

pub(crate) use cgroup::given as cgroups_given;
pub(crate) use container::EXIT_NOT_FOUND;
pub(crate) use namespaces::mode;

/// One step that failed, with what the system answered.
#[derive(Debug)]
pub(crate) struct Failure {
    pub step: String,
    pub why: String,
    pub missing: Option<Missing>,
}

impl Failure {
    fn new(step: impl Into<String>, why: impl ToString) -> Self {
        Self {
            step: step.into(),
            why: why.to_string(),
            missing: None,
        }
    }
}

/// Adds the name of the step to an error.
trait Step<T> {
    fn step(self, step: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: ToString> Step<T> for Result<T, E> {
    fn step(self, step: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, error.to_string()))
    }
}

/// The forker's whole life, and then that of each helper; the result is the exit code.
pub fn main() -> i32 {
    // A Ctrl-C at the terminal is for the caller. Forker and helpers end when the caller's sockets close, and clean up.
    let _ = nix::unistd::setsid();
    // Helpers that have ended leave nothing behind: nobody asks how.
    if !children(libc::SIG_IGN) {
        return 1;
    }
    // SAFETY: the caller put its socket at descriptor 0, and nothing else in this process uses or closes it.
    let caller = std::mem::ManuallyDrop::new(UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) }));
    // A closed socket is the caller's end.
    while let Ok([socket]) = receive_fds(&caller) {
        // SAFETY: this process has one thread, so that nothing is left locked or half done in the clone.
        match unsafe { nix::unistd::fork() } {
            // It takes the place of the forker's socket, which a helper must not keep open.
            // SAFETY: two open descriptors.
            Ok(ForkResult::Child) => {
                if unsafe { libc::dup2(socket.as_raw_fd(), 0) } == -1 || !children(libc::SIG_DFL) {
                    return 1;
                }
                drop(socket);
                return helper();
            }
            Ok(ForkResult::Parent { child }) => {
                drop(socket);
                let pid = child.as_raw().unsigned_abs().to_ne_bytes();
                if (&mut &*caller).write_all(&pid).is_err() {
                    break;
                }
            }
            // The caller waits for a number, and hears that there is none.
            Err(_) => return 1,
        }
    }
    0
}

/// What becomes of this process's children when they end.
fn children(handler: libc::sighandler_t) -> bool {
    // SAFETY: both handlers are the system's own.
    unsafe { libc::signal(libc::SIGCHLD, handler) != libc::SIG_ERR }
}

/// A helper's whole life; its result is the exit code.
fn helper() -> i32 {
    // SAFETY: the caller's socket is at descriptor 0, and nothing else in this process uses or closes it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    // A panic would be lost, because nobody reads this process's errors; the caller is told instead.
    std::panic::set_hook(Box::new(|info| {
        let failed = Reply::Failed {
            step: "a helper that panicked".to_owned(),
            why: info.to_string(),
            missing: None,
        };
        // SAFETY: descriptor 0 is the caller's socket for as long as this process lives; it is not closed here.
        let socket =
            std::mem::ManuallyDrop::new(UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) }));
        let _ = say(&mut &*socket, &failed);
    }));
    match serve(&socket) {
        Ok(()) => 0,
        Err(failure) => {
            let Failure { step, why, missing } = failure;
            let _ = say(&mut &socket, &Reply::Failed { step, why, missing });
            1
        }
    }
}

fn serve(socket: &UnixStream) -> Result<(), Failure> {
    let streams: [OwnedFd; 3] = receive_fds(socket).step("receiving the streams")?;
    let mut lines = BufReader::new(socket);
    let mut line = Vec::new();
    lines
        .by_ref()
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', &mut line)
        .step("receiving the job")?;
    let job: Job = serde_json::from_slice(&line).step("reading the job")?;

    let cgroup = cgroup::Cgroup::create(&job.limits);
    let mut container = container::start(&job, streams, &cgroup)?;
    let started = Instant::now();
    let cgroups = cgroup.folders();
    if say(&mut &*socket, &Reply::Started { cgroups }).is_err() {
        container.end();
        return Ok(());
    }
    let cause = watch(&mut lines, &container, &job, started);
    // The first process of a pid namespace takes all others with it.
    container.end();
    let (raw, usage) = container.reap().step("waiting for the container")?;
    let wall_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let status = cause.unwrap_or_else(|| match raw {
        _ if cgroup.out_of_memory() && raw != Status::Exited(0) => Status::OutOfMemory,
        // The first process of a namespace gets no warning signal, so both limits are one, and end it at once. The
        // kernel counts time for the limit by ticks and for its report exactly, which differ on a busy machine.
        Status::Signaled(libc::SIGKILL | libc::SIGXCPU)
            if job
                .limits
                .cpu_s
                .is_some_and(|limit| usage.cpu_ms * 2 >= limit * 1000) =>
        {
            Status::CpuTime
        }
        other => other,
    });
    // Before the report, so that a caller who has it finds nothing left.
    drop(cgroup);
    let exit = Exit {
        status,
        wall_ms,
        cpu_ms: usage.cpu_ms,
        resident_bytes: usage.resident_bytes,
    };
    // A caller that is gone needs no report.
    let _ = say(&mut &*socket, &Reply::Ended(exit));
    Ok(())
}

/// Watches until the container is gone (`None`) or has to go (why).
fn watch(
    lines: &mut BufReader<&UnixStream>,
    container: &container::Container,
    job: &Job,
    started: Instant,
) -> Option<Status> {
    let mut deadline = started + Duration::from_millis(job.limits.wall_ms);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the loop doesn't spin through the last millisecond.
        let left_ms = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX);
        let mut fds = [
            PollFd::new(container.pidfd(), PollFlags::POLLIN),
            PollFd::new(lines.get_ref().as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(0) if Instant::now() >= deadline => return Some(Status::WallClock),
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            // Without a way to watch there is no wall clock, and without it nothing may run.
            Err(_) => return Some(Status::Killed),
            Ok(_) => {}
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        if ready(&fds[0]) {
            return None;
        }
        if ready(&fds[1]) {
            loop {
                let mut line = Vec::new();
                let read = lines
                    .by_ref()
                    .take(MAX_LINE_BYTES)
                    .read_until(b'\n', &mut line);
                match (read, serde_json::from_slice::<Request>(&line)) {
                    (Ok(1..), Ok(Request::Arm { wall_ms })) => {
                        deadline = Instant::now() + Duration::from_millis(wall_ms);
                    }
                    // An order to end, a closed socket, or a caller that isn't one.
                    _ => return Some(Status::Killed),
                }
                if lines.buffer().is_empty() {
                    break;
                }
            }
        }
    }
}

fn say(socket: &mut impl Write, reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    socket.write_all(&line)
}

fn receive_fds<const N: usize>(socket: &UnixStream) -> std::io::Result<[OwnedFd; N]> {
    let mut byte = [0u8; 1];
    let mut space = nix::cmsg_space!([RawFd; 3]);
    let mut slices = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel has just opened these descriptors for this process; nobody else owns them.
            fds.extend(
                received
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    fds.try_into()
        .map_err(|_| std::io::Error::other("other descriptors were expected"))
}

fn end(pid: Pid) {
    // Fails only if the process is gone, which is what is wanted.
    let _ = kill(pid, Signal::SIGKILL);
}
