//! The program's side: reporting its health, and asking for swaps. Plain blocking calls; from async code, use a thread.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::layout::Layout;
use crate::server::with_address;
use crate::wire::{
    Answer, Done, Health, MAX_LINE_BYTES, PROTOCOLS, Refusal, Request, SOCKET_VARIABLE, Status,
    Swap,
};

/// How long an answer may take. A swap is answered when its bytes were read, which on a slow card takes a while.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// Why the supervisor could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is none.
    #[error("no supervisor runs at {path}")]
    NotRunning {
        /// Its socket.
        path: PathBuf,
    },
    /// This program was not started by a supervisor.
    #[error("{SOCKET_VARIABLE} is not set: this program is not supervised")]
    NotSupervised,
    /// The connection failed.
    #[error("the connection to the supervisor failed")]
    Connection(#[from] io::Error),
    /// It answered something else than asked.
    #[error("the supervisor's answer can't be understood: {0:?}")]
    Answer(String),
    /// It refused.
    #[error("the supervisor refused: {0}")]
    Refused(Refusal),
}

/// A connection to the supervisor.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the supervisor of a home.
    pub fn connect(home: &Path) -> Result<Self, ClientError> {
        Self::connect_to(&Layout::new(home).socket())
    }

    /// Connects to the supervisor that started this program.
    pub fn from_env() -> Result<Self, ClientError> {
        Self::connect_to(&socket_from_env()?)
    }

    fn connect_to(path: &Path) -> Result<Self, ClientError> {
        let stream = match with_address(path, |address| UnixStream::connect(address)) {
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Err(ClientError::NotRunning {
                    path: path.to_owned(),
                });
            }
            other => other?,
        };
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        let mut client = Self {
            stream: BufReader::new(stream),
        };
        client.ask(&Request::Hello {
            protocols: PROTOCOLS.to_vec(),
        })?;
        Ok(client)
    }

    /// Reports the program's health: the highest height that it committed, and its peers. Report at least every few
    /// seconds, also when nothing changed: silence is taken for a hang.
    pub fn health(&mut self, health: Health) -> Result<(), ClientError> {
        let Health { height, peers } = health;
        self.ask(&Request::Health { height, peers }).map(drop)
    }

    /// Asks for a swap. When this returns, the bytes were checked and the intent is on disk; SIGTERM follows. Asking
    /// again with the same generation does no harm.
    pub fn swap(&mut self, swap: &Swap) -> Result<(), ClientError> {
        self.ask(&Request::Swap(swap.clone())).map(drop)
    }

    /// What runs and what is under way.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        let done = self.ask(&Request::Status)?;
        done.status
            .map(|status| *status)
            .ok_or_else(|| ClientError::Answer("no status".to_owned()))
    }

    /// Goes back to the last good program; in steady times, to the one before it.
    pub fn revert(&mut self, reason: &str, quarantine: bool) -> Result<(), ClientError> {
        let reason = reason.to_owned();
        self.ask(&Request::Revert { reason, quarantine }).map(drop)
    }

    /// Refuses swaps from now on, or no longer.
    pub fn hold(&mut self, on: bool) -> Result<(), ClientError> {
        self.ask(&Request::Hold { on }).map(drop)
    }

    /// From now on nothing below this protocol number is run.
    pub fn floor(&mut self, protocol: u32) -> Result<(), ClientError> {
        self.ask(&Request::Floor { protocol }).map(drop)
    }

    fn ask(&mut self, request: &Request) -> Result<Done, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = Vec::new();
        self.stream
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut answer)?;
        if answer.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match serde_json::from_slice(&answer) {
            Ok(Answer::Ok(done)) => Ok(done),
            Ok(Answer::Error(refusal)) => Err(ClientError::Refused(refusal)),
            Err(_) => {
                let start = &answer[..answer.len().min(200)];
                Err(ClientError::Answer(
                    String::from_utf8_lossy(start).into_owned(),
                ))
            }
        }
    }
}

fn socket_from_env() -> Result<PathBuf, ClientError> {
    std::env::var_os(SOCKET_VARIABLE)
        .map(PathBuf::from)
        .ok_or(ClientError::NotSupervised)
}

/// Reports the program's health regularly, on a thread, until it is dropped. A supervisor that is away for a moment is
/// waited for.
#[derive(Debug)]
pub struct Reporter {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Starts to report to the supervisor that started this program: `health` is asked every `every`.
    pub fn start(
        every: Duration,
        health: impl Fn() -> Health + Send + 'static,
    ) -> Result<Self, ClientError> {
        let path = socket_from_env()?;
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || {
                let mut client = None;
                loop {
                    if client.is_none() {
                        client = Client::connect_to(&path).ok();
                    }
                    if client
                        .as_mut()
                        .is_some_and(|client| client.health(health()).is_err())
                    {
                        client = None;
                    }
                    if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.stop.take();
        // It is at most one answer away from its end, but a supervisor that is stuck must not hold up an exit.
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}
