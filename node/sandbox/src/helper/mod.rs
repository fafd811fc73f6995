//! The forker, which forks helpers, and the helper: one thread that builds containers of one job, watches them, and reports
//! how each ended.

mod cgroup;
mod container;
mod namespaces;
mod root;
mod seccomp;
mod serve;

use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{ForkResult, Pid};

use crate::Missing;
use crate::wire::{CONTAINER_FDS, Reply};

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
    match serve::serve(&socket) {
        Ok(()) => 0,
        Err(failure) => {
            let Failure { step, why, missing } = failure;
            let _ = say(&mut &socket, &Reply::Failed { step, why, missing });
            1
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
    let mut space = nix::cmsg_space!([RawFd; CONTAINER_FDS]);
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
