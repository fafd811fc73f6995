//! The caller's side: start the helper, pass it the job and the streams, learn how it ended.

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize};

use crate::forker::Helper;
use crate::wire::{CONTAINER_FDS, MAX_LINE_BYTES, Order, Reply, Request};
use crate::{Job, Mount, MountKind, Profile, SandboxError, Stream};

/// The most containers of a sandbox: each has cgroups of its own, whether it runs or not.
const MAX_AT_ONCE: usize = 16;

/// Building a container takes some milliseconds; on a machine that is busy with compilers it may take a thousand times that.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How often, a millisecond apart, the removal of a dying container's cgroup is tried.
const REMOVE_TRIES: u32 = 200;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, which nobody here sent.
    Signaled(i32),
    /// It used up its wall clock time.
    WallClock,
    /// It used up its processor time.
    CpuTime,
    /// The kernel ended it, or one of its processes, because it used more memory than its cgroup may.
    OutOfMemory,
    /// [`Running::kill`] was called, or the caller is gone.
    Killed,
}

/// How a command ended, and what it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How it ended.
    pub status: Status,
    /// Time from start to end.
    pub wall_ms: u64,
    /// Processor time of all its processes that were waited for.
    pub cpu_ms: u64,
    /// The largest resident size of one of its processes.
    pub resident_bytes: u64,
}

impl Exit {
    /// Whether the command ended by itself with code 0.
    pub fn success(&self) -> bool {
        self.status == Status::Exited(0)
    }
}

/// A started command. Dropping it ends the container.
#[derive(Debug)]
pub struct Running {
    /// The command's input, where the job asked for a pipe.
    pub stdin: Option<PipeWriter>,
    /// The command's output, where the job asked for a pipe.
    pub stdout: Option<PipeReader>,
    /// The command's errors, where the job asked for a pipe.
    pub stderr: Option<PipeReader>,
    control: BufReader<UnixStream>,
    exit: Option<Exit>,
    nest: Arc<Nest>,
}

/// Ends a container from another thread than the one that waits for it.
#[derive(Debug)]
pub struct Killer(UnixStream);

impl Killer {
    /// Ends the container now. One that is gone already stays so.
    pub fn kill(&self) {
        // A helper that is gone took its container with it, so a failed write is a success.
        let _ = send(&self.0, &Request::Kill);
    }
}

/// Starts a command in a sealed container; returns once it runs.
pub fn spawn(job: &Job) -> Result<Running, SandboxError> {
    Nest::make(job, 1)?.spawn()
}

/// Containers of one job, made one after the other or at once.
///
/// What can't carry anything from one command to another is made once: the namespaces but those of process ids and of
/// mounts, and the read-only root. Everything else is new for each command.
#[derive(Clone, Debug)]
pub struct Sandbox(Arc<Nest>);

impl Sandbox {
    /// For so many containers at once; [`Self::spawn`] waits while there are as many.
    ///
    /// Only for [`Profile::Dapp`], which knows neither sockets nor shared memory nor message queues: with them, commands
    /// could speak to each other by the namespaces that they share.
    pub fn new(job: &Job, at_once: usize) -> Result<Self, SandboxError> {
        if job.profile != Profile::Dapp {
            return Err(SandboxError::BadJob(
                "only dapps share a sandbox: other commands could talk to each other in it"
                    .to_owned(),
            ));
        }
        let shared = |mount: &&Mount| {
            matches!(mount.kind, MountKind::Tmpfs { .. }) && job.holds_mounts(mount)
        };
        if let Some(mount) = job.mounts.iter().find(shared) {
            return Err(SandboxError::BadJob(format!(
                "something is mounted into {:?}, which has to be empty for each command",
                mount.target
            )));
        }
        if !(1..=MAX_AT_ONCE).contains(&at_once) {
            return Err(SandboxError::BadJob(format!(
                "{at_once} containers at once; a sandbox has 1 to {MAX_AT_ONCE}"
            )));
        }
        Nest::make(job, at_once).map(Self)
    }

    /// Starts the job's command in a new container; returns once it runs.
    pub fn spawn(&self) -> Result<Running, SandboxError> {
        self.0.spawn()
    }
}

/// A helper, and what has to be gone when it is.
#[derive(Debug)]
struct Nest {
    streams: [Stream; 3],
    socket: UnixStream,
    helper: Helper,
    cgroups: Vec<PathBuf>,
}

impl Nest {
    fn make(job: &Job, at_once: usize) -> Result<Arc<Self>, SandboxError> {
        job.check()?;
        let (socket, theirs) = UnixStream::pair()?;
        let helper = Helper::fork(&theirs)?;
        // Or nobody would notice that the helper is gone.
        drop(theirs);
        let mut nest = Self {
            streams: [&job.stdin, &job.stdout, &job.stderr].map(Clone::clone),
            socket,
            helper,
            cgroups: Vec::new(),
        };
        let order = Order {
            job: job.clone(),
            at_once,
        };
        let mut line =
            serde_json::to_vec(&order).map_err(|error| SandboxError::BadJob(error.to_string()))?;
        line.push(b'\n');
        nest.socket.set_read_timeout(Some(START_LIMIT))?;
        (&nest.socket).write_all(&line)?;
        let answer = receive(&mut BufReader::new(&nest.socket));
        match answer {
            Ok(Reply::Ready { cgroups }) => {
                nest.cgroups = cgroups;
                Ok(Arc::new(nest))
            }
            // It ends by itself, unless it hangs.
            other => {
                nest.helper.kill();
                Err(other.map_or_else(|error| error, |other| instead(other, "that it is ready")))
            }
        }
    }

    fn spawn(self: &Arc<Self>) -> Result<Running, SandboxError> {
        let [stdin, stdout, stderr] = &self.streams;
        let (child_in, stdin) = input(stdin)?;
        let (child_out, stdout) = output(stdout)?;
        let (child_err, stderr) = output(stderr)?;
        let (control, theirs) = UnixStream::pair()?;
        let fds: [RawFd; CONTAINER_FDS] = [
            child_in.as_raw_fd(),
            child_out.as_raw_fd(),
            child_err.as_raw_fd(),
            theirs.as_raw_fd(),
        ];
        let sent = sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(b"\n")],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        drop((child_in, child_out, child_err, theirs));
        sent.map_err(|_| self.lost())?;
        control.set_read_timeout(Some(START_LIMIT))?;
        let mut running = Running {
            stdin,
            stdout,
            stderr,
            control: BufReader::new(control),
            exit: None,
            nest: Arc::clone(self),
        };
        match receive(&mut running.control) {
            Ok(Reply::Started) => {
                running.control.get_ref().set_read_timeout(None)?;
                Ok(running)
            }
            Ok(other) => Err(instead(other, "how the command started")),
            Err(SandboxError::HelperLost(_)) => Err(self.lost()),
            Err(error) => Err(error),
        }
    }

    /// Why the helper is gone, if it could still say so.
    fn lost(&self) -> SandboxError {
        match receive(&mut BufReader::new(&self.socket)) {
            Ok(other) => instead(other, "why it ended"),
            Err(error) => error,
        }
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        // The helper takes the closed socket as an order to end.
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
        self.helper.wait();
        for folder in &self.cgroups {
            // Only there if the helper was killed. Its containers die with it, but take a moment.
            for _ in 0..REMOVE_TRIES {
                match std::fs::remove_dir(folder) {
                    Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// What an answer means that is not the one that was waited for.
fn instead(reply: Reply, wanted: &str) -> SandboxError {
    match reply {
        Reply::Failed {
            missing: Some(missing),
            ..
        } => SandboxError::Unavailable(vec![missing]),
        Reply::Failed {
            step,
            why,
            missing: None,
        } => SandboxError::Setup { step, why },
        other => SandboxError::HelperLost(format!("it said {other:?} instead of {wanted}")),
    }
}

impl Running {
    /// Waits until the command and everything that it started are gone.
    pub fn wait(&mut self) -> Result<Exit, SandboxError> {
        // A command that reads its input to the end would otherwise wait for us, and we for it.
        self.stdin = None;
        self.receive_end()
    }

    /// Waits at most this long; `None` means that the command still runs.
    pub fn wait_timeout(&mut self, limit: Duration) -> Result<Option<Exit>, SandboxError> {
        if self.exit.is_none() && self.control.buffer().is_empty() {
            let mut fds = [PollFd::new(
                self.control.get_ref().as_fd(),
                PollFlags::POLLIN,
            )];
            let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
            let ready = poll(
                &mut fds,
                PollTimeout::try_from(limit_ms).unwrap_or(PollTimeout::MAX),
            );
            match ready {
                Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(None),
                Ok(_) => {}
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
        }
        self.receive_end().map(Some)
    }

    fn receive_end(&mut self) -> Result<Exit, SandboxError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        match receive(&mut self.control)? {
            Reply::Ended(exit) => {
                self.exit = Some(exit);
                Ok(exit)
            }
            other => Err(instead(other, "how the command ended")),
        }
    }

    /// The wall clock starts anew, with this much time: a container that waits for work gets its limit with the work.
    pub fn arm(&self, wall_ms: u64) -> Result<(), SandboxError> {
        Ok(send(self.control.get_ref(), &Request::Arm { wall_ms })?)
    }

    /// Ends the container now.
    pub fn kill(&self) {
        let _ = send(self.control.get_ref(), &Request::Kill);
    }

    /// Something that ends this container from another thread.
    pub fn killer(&self) -> Result<Killer, SandboxError> {
        Ok(Killer(self.control.get_ref().try_clone()?))
    }

    /// The process id of the helper: ending it ends all its containers.
    pub fn helper_id(&self) -> u32 {
        self.nest.helper.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The helper takes the closed socket as an order to end the container, and closes its own when that is gone.
        let _ = self.control.get_ref().shutdown(std::net::Shutdown::Write);
        let _ = std::io::copy(&mut self.control, &mut std::io::sink());
    }
}

fn send(control: &UnixStream, request: &Request) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    // Standard programs ignore SIGPIPE in Rust; a library must not rely on it.
    let sent = nix::sys::socket::send(control.as_raw_fd(), &line, MsgFlags::MSG_NOSIGNAL)?;
    if sent == line.len() {
        Ok(())
    } else {
        Err(std::io::ErrorKind::WriteZero.into())
    }
}

fn receive(control: &mut impl BufRead) -> Result<Reply, SandboxError> {
    let mut line = Vec::new();
    control
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', &mut line)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => SandboxError::HelperLost(format!(
                "no word from it in {} s (does the program call sandbox::init() first of all?)",
                START_LIMIT.as_secs()
            )),
            _ => SandboxError::Io(error),
        })?;
    if line.is_empty() {
        return Err(SandboxError::HelperLost("its socket was closed".to_owned()));
    }
    serde_json::from_slice(&line)
        .map_err(|error| SandboxError::HelperLost(format!("it said something else: {error}")))
}

fn input(stream: &Stream) -> Result<(OwnedFd, Option<PipeWriter>), SandboxError> {
    Ok(match stream {
        Stream::Pipe => {
            let (reader, writer) = std::io::pipe()?;
            (reader.into(), Some(writer))
        }
        Stream::Null => (File::open("/dev/null")?.into(), None),
        Stream::File(path) => (File::open(path)?.into(), None),
    })
}

fn output(stream: &Stream) -> Result<(OwnedFd, Option<PipeReader>), SandboxError> {
    Ok(match stream {
        Stream::Pipe => {
            let (reader, writer) = std::io::pipe()?;
            (writer.into(), Some(reader))
        }
        Stream::Null => (File::options().write(true).open("/dev/null")?.into(), None),
        Stream::File(path) => (File::create(path)?.into(), None),
    })
}
