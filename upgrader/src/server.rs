//! The socket: one thread a connection, bounded lines, one answer for each request.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::layout::Layout;
use crate::wire::{Answer, MAX_LINE_BYTES, Refusal, Request, parse_request};

/// How many may be connected at once: the program, and a few people.
const MAX_CONNECTIONS: usize = 16;

/// How long a connection may be silent. A program that has something to say connects again.
const SILENCE: Duration = Duration::from_secs(300);

/// The longest path that a socket address can hold, its terminator included.
const MAX_ADDRESS_BYTES: usize = 108;

/// A request, who made it, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    pub request: Request,
    pub pid: u32,
    pub answer: SyncSender<Answer>,
}

/// Runs `act` with an address of `path` that is short enough. Homes can be deep, but an address has 108 bytes: then the
/// folder is opened and the address goes through its descriptor.
pub(crate) fn with_address<T>(
    path: &Path,
    act: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    if path.as_os_str().len() < MAX_ADDRESS_BYTES {
        return act(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let folder = File::open(folder)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

/// Listens, and passes on what is asked. The caller holds the home's lock, so an old socket is nobody's.
pub(crate) fn listen<T: From<Asked> + Send + 'static>(
    layout: &Layout,
    to: Sender<T>,
) -> io::Result<()> {
    let path = layout.socket();
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = with_address(&path, |address| UnixListener::bind(address))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let connected = Arc::new(AtomicUsize::new(0));
    std::thread::Builder::new()
        .name("socket".to_owned())
        .spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    // Out of descriptors: it can only get better.
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                };
                if connected.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                    connected.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let (to, count) = (to.clone(), connected.clone());
                let serve = move || {
                    let _ = converse(stream, &to);
                    count.fetch_sub(1, Ordering::Relaxed);
                };
                if std::thread::Builder::new()
                    .name("connection".to_owned())
                    .spawn(serve)
                    .is_err()
                {
                    connected.fetch_sub(1, Ordering::Relaxed);
                }
            }
        })?;
    Ok(())
}

fn converse<T: From<Asked>>(stream: UnixStream, to: &Sender<T>) -> io::Result<()> {
    let peer = getsockopt(&stream, PeerCredentials)?.pid();
    let pid = u32::try_from(peer).unwrap_or_default();
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    loop {
        let mut line = Vec::new();
        lines
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return Err(io::Error::other("the line is too long, or was cut off"));
        }
        let answer = match parse_request(&line) {
            Err(refusal) => Answer::Error(refusal),
            Ok(request) => ask(request, pid, to),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        out.write_all(&text)?;
    }
}

fn ask<T: From<Asked>>(request: Request, pid: u32, to: &Sender<T>) -> Answer {
    let (answer, answered) = sync_channel(1);
    let asked = Asked {
        request,
        pid,
        answer,
    };
    let ending = || Answer::Error(Refusal::new("busy", "the supervisor is ending"));
    if to.send(asked.into()).is_err() {
        return ending();
    }
    answered.recv().unwrap_or_else(|_| ending())
}
