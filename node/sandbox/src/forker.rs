//! Where helpers come from: one process that forks them.
//!
//! Each container needs a helper of its own, with one thread. To execute this program for each would cost more than all
//! else: a program of this size is linked anew at every start, and a chain starts a container with every block. So it is
//! executed once, as the *forker*, which has one thread too and forks a helper for each socket that it is given.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::HELPER_ARG;
use crate::pidfd::{open_pidfd, signal_pidfd};

/// A fork takes well under a millisecond; on a machine that is busy with compilers it may take a thousand times that.
const FORK_LIMIT: Duration = Duration::from_secs(30);

/// The forker of this process, once it was needed. It ends with this process, whose end of the socket closes then.
static FORKER: Mutex<Option<Forker>> = Mutex::new(None);

#[derive(Debug)]
struct Forker {
    socket: UnixStream,
    process: Child,
}

/// A helper: a process that is nobody's child here, so it is known by a descriptor, which no other process can take over.
#[derive(Debug)]
pub(crate) struct Helper {
    pid: u32,
    pidfd: OwnedFd,
}

impl Helper {
    /// A new one that talks through `socket`.
    pub fn fork(socket: &UnixStream) -> io::Result<Self> {
        let mut forker = FORKER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = forker.as_mut() {
            match running.fork(socket) {
                Ok(helper) => return Ok(helper),
                // It was killed; its helpers live on.
                Err(_) => running.end(),
            }
        }
        let running = forker.insert(Forker::start()?);
        running.fork(socket)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Ends it, and with it its container.
    pub fn kill(&self) {
        // Fails only if it is gone, which is what is wanted.
        let _ = signal_pidfd(self.pidfd.as_fd(), libc::SIGKILL);
    }

    /// Waits until it is gone.
    pub fn wait(&self) {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        while poll(&mut fds, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
    }
}

impl Forker {
    fn start() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(FORK_LIMIT))?;
        let process = Command::new("/proc/self/exe")
            .arg0("instar-sandbox")
            .arg(HELPER_ARG)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            socket: ours,
            process,
        })
    }

    fn fork(&mut self, socket: &UnixStream) -> io::Result<Helper> {
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(b"\n")],
            &[ControlMessage::ScmRights(&[socket.as_raw_fd()])],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        let mut pid = [0u8; 4];
        self.socket.read_exact(&mut pid)?;
        let pid = u32::from_ne_bytes(pid);
        // The helper waits for its job, so the number is still its own.
        let pidfd = open_pidfd(pid)?;
        Ok(Helper { pid, pidfd })
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
