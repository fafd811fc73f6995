//! Serving clones: `git upload-pack`, bounded, for whatever HTTP server stands around it.
//!
//! The daemon answers `GET /ledger.git/info/refs?service=git-upload-pack` with [`UploadPack::advertise`] and
//! `POST /ledger.git/git-upload-pack` with [`UploadPack::rpc`], and nothing else below `/ledger.git`: there is no way to
//! push. Both block; both write the reply as it comes. Flush the store before. A reply that nobody takes holds one of the
//! places until the writer fails, so the server's writer must give up on a client that stands still.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use flate2::read::MultiGzDecoder;

/// How many clones are served at once; more are told to come back.
pub const MAX_PROCESSES: usize = 8;
/// How long one request may take: enough for a large ledger over a slow line, and nobody holds a process for ever.
pub const MAX_SECONDS: u64 = 600;
/// The largest request body, before and after gzip: git sends a line of 70 bytes for each commit that it has.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// The largest reply.
pub const MAX_REPLY_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// The longest `Git-Protocol` header that is passed on.
const MAX_PROTOCOL_BYTES: usize = 64;

/// The content type of an advertisement.
pub const ADVERTISEMENT_TYPE: &str = "application/x-git-upload-pack-advertisement";
/// The content type of a request body.
pub const REQUEST_TYPE: &str = "application/x-git-upload-pack-request";
/// The content type of a result.
pub const RESULT_TYPE: &str = "application/x-git-upload-pack-result";
/// All replies must carry this `Cache-Control`.
pub const CACHE_CONTROL: &str = "no-cache, max-age=0, must-revalidate";

/// Why a clone was not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// [`MAX_PROCESSES`] are served; HTTP status 503.
    #[error("{MAX_PROCESSES} clones are being served, try again later")]
    Busy,
    /// The request is over a bound or not what git sends; HTTP status 400.
    #[error("the request is refused: {0}")]
    Request(&'static str),
    /// The reply went over a bound, in time or size.
    #[error("the reply was cut off: {0}")]
    CutOff(&'static str),
    /// git could not be run, or failed.
    #[error("git upload-pack: {0}")]
    Git(#[from] io::Error),
}

/// Serves one repository.
#[derive(Debug, Clone)]
pub struct UploadPack {
    repository: PathBuf,
    running: Arc<AtomicUsize>,
}

/// Writes something before the first bytes of a reply, so that a refusal leaves no trace of it.
struct Prefixed<'a> {
    first: &'static [u8],
    reply: &'a mut dyn Write,
}

impl Write for Prefixed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reply.write_all(std::mem::take(&mut self.first))?;
        self.reply.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.reply.flush()
    }
}

/// A place among [`MAX_PROCESSES`], given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Stock git with nothing of the user's or the machine's configuration, on this repository.
pub(crate) fn git(repository: &Path) -> Command {
    let mut command = Command::new("git");
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // The caller chose the repository, so who owns its files is no question here.
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("LC_ALL", "C")
        .args(["-c", "safe.directory=*"])
        .current_dir(repository);
    command
}

impl UploadPack {
    /// For the repository in this folder.
    pub fn new(repository: &Path) -> Self {
        Self {
            repository: repository.into(),
            running: Arc::default(),
        }
    }

    /// How many clones are being served.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// Answers `GET info/refs?service=git-upload-pack`. `protocol` is the request's `Git-Protocol` header.
    pub fn advertise(
        &self,
        protocol: Option<&str>,
        reply: &mut dyn Write,
    ) -> Result<(), ServeError> {
        // Before protocol version 2 the HTTP transport puts the service's name first.
        let first: &[u8] = match protocol {
            Some(p) if p.split(':').any(|word| word == "version=2") => b"",
            _ => b"001e# service=git-upload-pack\n0000",
        };
        let mut reply = Prefixed { first, reply };
        self.run(
            &["--http-backend-info-refs"],
            protocol,
            Vec::new(),
            &mut reply,
        )
    }

    /// Answers `POST git-upload-pack`. `encoding` is the request's `Content-Encoding` header: git compresses large
    /// requests with gzip.
    pub fn rpc(
        &self,
        protocol: Option<&str>,
        encoding: Option<&str>,
        body: &[u8],
        reply: &mut dyn Write,
    ) -> Result<(), ServeError> {
        let too_large = ServeError::Request("the body is too large");
        if body.len() > MAX_REQUEST_BYTES {
            return Err(too_large);
        }
        let body = match encoding {
            None | Some("" | "identity") => body.to_vec(),
            Some("gzip" | "x-gzip") => {
                let mut out = Vec::new();
                MultiGzDecoder::new(body)
                    .take(MAX_REQUEST_BYTES as u64 + 1)
                    .read_to_end(&mut out)
                    .map_err(|_| ServeError::Request("the body is not gzip"))?;
                if out.len() > MAX_REQUEST_BYTES {
                    return Err(too_large);
                }
                out
            }
            Some(_) => return Err(ServeError::Request("the encoding of the body is unknown")),
        };
        self.run(&[], protocol, body, reply)
    }

    fn run(
        &self,
        options: &[&str],
        protocol: Option<&str>,
        body: Vec<u8>,
        reply: &mut dyn Write,
    ) -> Result<(), ServeError> {
        if self.running.fetch_add(1, Ordering::AcqRel) >= MAX_PROCESSES {
            self.running.fetch_sub(1, Ordering::AcqRel);
            return Err(ServeError::Busy);
        }
        let _place = Place(self.running.clone());
        let mut command = git(&self.repository);
        if let Some(protocol) = protocol {
            let plain = protocol.len() <= MAX_PROTOCOL_BYTES
                && protocol
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b':' | b'-' | b'.'));
            if !plain {
                return Err(ServeError::Request("the Git-Protocol header"));
            }
            command.env("GIT_PROTOCOL", protocol);
        }
        // One thread a clone, and no search for new deltas: those that maintenance found are sent as they are, and the
        // node has better things to do with its cores.
        command
            .args(["-c", "pack.threads=1", "-c", "pack.window=0"])
            .args(["upload-pack", "--strict", "--stateless-rpc"])
            .args(options)
            .arg(".")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        exchange(command.spawn()?, body, reply)
    }
}

/// Feeds the child, passes its reply on, and ends it at the bounds.
fn exchange(mut child: Child, body: Vec<u8>, reply: &mut dyn Write) -> Result<(), ServeError> {
    let mut input = child.stdin.take().expect("stdin was piped");
    let mut output = child.stdout.take().expect("stdout was piped");
    let feeder = thread::spawn(move || {
        // A child that has enough closes its end; its exit status tells whether that was right.
        let _ = input.write_all(&body);
    });
    let (done, wait) = mpsc::channel::<()>();
    let child = Arc::new(std::sync::Mutex::new(child));
    let watched = child.clone();
    let watchdog = thread::spawn(move || {
        let late = wait.recv_timeout(Duration::from_secs(MAX_SECONDS)).is_err();
        if late && let Ok(mut child) = watched.lock() {
            let _ = child.kill();
        }
        late
    });
    let passed = pass_on(&mut output, reply);
    drop(output);
    if passed.is_err()
        && let Ok(mut child) = child.lock()
    {
        let _ = child.kill();
    }
    // The output has ended, so the child ends too, or the watchdog ends it: nobody waits with the lock held.
    let status = loop {
        let status = child
            .lock()
            .map_err(|_| io::Error::other("the watchdog failed"))?
            .try_wait()?;
        match status {
            Some(status) => break status,
            None => thread::sleep(Duration::from_millis(1)),
        }
    };
    let _ = done.send(());
    let late = watchdog.join().unwrap_or(true);
    let _ = feeder.join();
    passed?;
    if late {
        return Err(ServeError::CutOff("it took too long"));
    }
    if !status.success() {
        return Err(io::Error::other(format!("it ended with {status}")).into());
    }
    Ok(())
}

fn pass_on(output: &mut dyn Read, reply: &mut dyn Write) -> Result<(), ServeError> {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = MAX_REPLY_BYTES;
    loop {
        let count = output.read(&mut buffer)?;
        if count == 0 {
            reply.flush()?;
            return Ok(());
        }
        left = left
            .checked_sub(count as u64)
            .ok_or(ServeError::CutOff("it grew too large"))?;
        reply.write_all(&buffer[..count])?;
    }
}
