//! Lines to and from a program that can't be trusted to read when it is spoken to, or to stop.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use instar_sandbox::Running;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::budget::MAX_LINE_BYTES;

/// How much is read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How much of what it says on its error stream is kept: the last of it, for this node's log.
const MAX_COMPLAINT_BYTES: usize = 2 * 1024;

/// Why there is no further line.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The program closed its output, or is gone.
    Closed,
    /// The time is up.
    TimedOut,
    /// It said more than it may.
    TooMuch(String),
}

/// Both directions at once, so that neither side can make the other wait for ever.
pub struct Duplex {
    stdin: Option<PipeWriter>,
    stdout: PipeReader,
    stderr: Option<PipeReader>,
    outgoing: Vec<u8>,
    sent: usize,
    incoming: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to where its end was looked for.
    scanned: usize,
    complaint: Vec<u8>,
    left_bytes: u64,
    deadline: Instant,
}

impl Duplex {
    /// Takes over the streams of a container.
    pub fn new(running: &mut Running, said_bytes: u64, wall: Duration) -> std::io::Result<Self> {
        let missing = || std::io::Error::other("the container has no pipes");
        let stdin = running.stdin.take().ok_or_else(missing)?;
        let stdout = running.stdout.take().ok_or_else(missing)?;
        let stderr = running.stderr.take().ok_or_else(missing)?;
        for fd in [stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()] {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            stdin: Some(stdin),
            stdout,
            stderr: Some(stderr),
            outgoing: Vec::new(),
            sent: 0,
            incoming: Vec::new(),
            start: 0,
            scanned: 0,
            complaint: Vec::new(),
            left_bytes: said_bytes,
            deadline: Instant::now() + wall,
        })
    }

    /// Puts a line on its way. It is sent while the next one is waited for.
    pub fn say(&mut self, line: &serde_json::Value) {
        self.outgoing.extend_from_slice(line.to_string().as_bytes());
        self.outgoing.push(b'\n');
    }

    /// The next line, without its end.
    pub fn hear(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if let Some(line) = self.buffered_line()? {
                return Ok(line);
            }
            self.send();
            self.wait()?;
            self.listen_to_complaints();
            self.receive()?;
        }
    }

    /// The last of what was said on the error stream.
    pub fn complaint(&mut self) -> String {
        self.listen_to_complaints();
        String::from_utf8_lossy(&self.complaint).trim().to_owned()
    }

    fn buffered_line(&mut self) -> Result<Option<Vec<u8>>, End> {
        let too_long = || {
            Err(End::TooMuch(format!(
                "a line of more than {MAX_LINE_BYTES} bytes"
            )))
        };
        let end = self.incoming[self.scanned..]
            .iter()
            .position(|byte| *byte == b'\n');
        let Some(end) = end.map(|at| at + self.scanned) else {
            self.incoming.drain(..self.start);
            self.start = 0;
            self.scanned = self.incoming.len();
            return if self.scanned > MAX_LINE_BYTES {
                too_long()
            } else {
                Ok(None)
            };
        };
        if end - self.start > MAX_LINE_BYTES {
            return too_long();
        }
        let line = self.incoming[self.start..end].to_vec();
        self.start = end + 1;
        self.scanned = self.start;
        // Counted by the line and not as it arrives: how much arrives at once differs from node to node.
        match self.left_bytes.checked_sub(line.len() as u64 + 1) {
            Some(left) => self.left_bytes = left,
            None => return Err(End::TooMuch("more bytes than the call may say".to_owned())),
        }
        Ok(Some(line))
    }

    fn send(&mut self) {
        while let Some(stdin) = self
            .stdin
            .as_mut()
            .filter(|_| self.sent < self.outgoing.len())
        {
            match stdin.write(&self.outgoing[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // It doesn't listen any more. What it has said is still read, and then its output ends.
                Err(_) => self.stdin = None,
            }
        }
        self.outgoing.clear();
        self.sent = 0;
    }

    fn wait(&mut self) -> Result<(), End> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(End::TimedOut);
        }
        let timeout = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
        let mut fds = vec![PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
        if let Some(stderr) = &self.stderr {
            fds.push(PollFd::new(stderr.as_fd(), PollFlags::POLLIN));
        }
        if let Some(stdin) = self
            .stdin
            .as_ref()
            .filter(|_| self.sent < self.outgoing.len())
        {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        match poll(
            &mut fds,
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(_) => Err(End::Closed),
        }
    }

    fn receive(&mut self) -> Result<(), End> {
        let mut chunk = [0u8; CHUNK_BYTES];
        match self.stdout.read(&mut chunk) {
            Ok(0) => Err(End::Closed),
            Ok(read) => {
                self.incoming.extend_from_slice(&chunk[..read]);
                Ok(())
            }
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => Ok(()),
                _ => Err(End::Closed),
            },
        }
    }

    fn listen_to_complaints(&mut self) {
        let mut chunk = [0u8; 4096];
        while let Some(stderr) = self.stderr.as_mut() {
            match stderr.read(&mut chunk) {
                Ok(0) => self.stderr = None,
                Ok(read) => {
                    self.complaint.extend_from_slice(&chunk[..read]);
                    let surplus = self.complaint.len().saturating_sub(MAX_COMPLAINT_BYTES);
                    self.complaint.drain(..surplus);
                    // One piece at a time, or a program that only complains would be listened to for ever.
                    return;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => self.stderr = None,
            }
        }
    }
}
