//! The caller's side: start the helper, pass it the job and the streams, learn how it ended.

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize};

use crate::forker::Helper;
use crate::wire::{MAX_LINE_BYTES, Reply, Request};
use crate::{Job, SandboxError, Stream};

/// Building a container takes about 10 ms; on a machine that is busy with compilers it may take a thousand times that.
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
    helper: Helper,
    exit: Option<Exit>,
    cgroups: Vec<PathBuf>,
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
    job.check()?;
    let (ours, theirs) = UnixStream::pair()?;
    let helper = Helper::fork(&theirs)?;
    // Or nobody would notice that the helper is gone.
    drop(theirs);
    match hand_over(job, &ours) {
        Ok((stdin, stdout, stderr, cgroups)) => Ok(Running {
            stdin,
            stdout,
            stderr,
            control: BufReader::new(ours),
            helper,
            exit: None,
            cgroups,
        }),
        Err(error) => {
            drop(ours);
            // The helper is gone, or ends because its socket is closed; either way nothing of it stays.
            helper.kill();
            helper.wait();
            Err(error)
        }
    }
}

type Started = (
    Option<PipeWriter>,
    Option<PipeReader>,
    Option<PipeReader>,
    Vec<PathBuf>,
);

fn hand_over(job: &Job, control: &UnixStream) -> Result<Started, SandboxError> {
    let (child_in, stdin) = input(&job.stdin)?;
    let (child_out, stdout) = output(&job.stdout)?;
    let (child_err, stderr) = output(&job.stderr)?;
    let fds: [RawFd; 3] = [
        child_in.as_raw_fd(),
        child_out.as_raw_fd(),
        child_err.as_raw_fd(),
    ];
    sendmsg::<()>(
        control.as_raw_fd(),
        &[IoSlice::new(b"\n")],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map_err(std::io::Error::from)?;
    drop((child_in, child_out, child_err));
    let mut line =
        serde_json::to_vec(job).map_err(|error| SandboxError::BadJob(error.to_string()))?;
    line.push(b'\n');
    (&mut &*control).write_all(&line)?;

    control.set_read_timeout(Some(START_LIMIT))?;
    match receive(&mut BufReader::with_capacity(1, control))? {
        Reply::Started { cgroups } => {
            control.set_read_timeout(None)?;
            Ok((stdin, stdout, stderr, cgroups))
        }
        Reply::Failed {
            missing: Some(missing),
            ..
        } => Err(SandboxError::Unavailable(vec![missing])),
        Reply::Failed {
            step,
            why,
            missing: None,
        } => Err(SandboxError::Setup { step, why }),
        Reply::Ended(_) => Err(SandboxError::HelperLost(
            "it reported an end before a start".to_owned(),
        )),
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
            other => Err(SandboxError::HelperLost(format!(
                "it said {other:?} instead of how the command ended"
            ))),
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

    /// The process id of the helper: ending it ends the container.
    pub fn helper_id(&self) -> u32 {
        self.helper.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The helper takes the closed socket as an order to end the container, and ends after it.
        let _ = self.control.get_ref().shutdown(std::net::Shutdown::Write);
        self.helper.wait();
        for folder in &self.cgroups {
            // Only there if the helper was killed. Its container dies with it, but takes a moment.
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
