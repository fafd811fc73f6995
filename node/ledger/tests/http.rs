//! A clone over HTTP by stock git, through a server as small as can be.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use instar_ledger::http::{self, ServeError, UploadPack};
use support::*;

#[derive(Default)]
struct Seen {
    gzip: AtomicUsize,
    version_2: AtomicUsize,
    other: AtomicUsize,
}

/// Answers what stock git asks for, and counts how it asked.
fn serve(served: UploadPack) -> (String, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ledger.git", listener.local_addr().unwrap());
    let seen = Arc::new(Seen::default());
    let counted = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (served, seen) = (served.clone(), counted.clone());
            std::thread::spawn(move || answer(stream.unwrap(), &served, &seen));
        }
    });
    (url, seen)
}

fn answer(stream: TcpStream, served: &UploadPack, seen: &Seen) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let header = |name: &str| {
        lines.iter().skip(1).find_map(|line| {
            let (n, value) = line.split_once(": ")?;
            n.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let protocol = header("Git-Protocol");
    if protocol.as_deref() == Some("version=2") {
        seen.version_2.fetch_add(1, Ordering::Relaxed);
    }
    let mut body = vec![0; header("Content-Length").map_or(0, |n| n.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let encoding = header("Content-Encoding");
    if encoding.is_some() {
        seen.gzip.fetch_add(1, Ordering::Relaxed);
    }
    let mut reply = Vec::new();
    let (result, kind) = match lines.first().map(String::as_str) {
        Some("GET /ledger.git/info/refs?service=git-upload-pack HTTP/1.1") => (
            served.advertise(protocol.as_deref(), &mut reply),
            http::ADVERTISEMENT_TYPE,
        ),
        Some("POST /ledger.git/git-upload-pack HTTP/1.1") => (
            served.rpc(protocol.as_deref(), encoding.as_deref(), &body, &mut reply),
            http::RESULT_TYPE,
        ),
        _ => {
            seen.other.fetch_add(1, Ordering::Relaxed);
            (Err(ServeError::Request("unknown")), "text/plain")
        }
    };
    let status = if result.is_ok() {
        "200 OK"
    } else {
        "400 Bad Request"
    };
    let mut stream = stream;
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nCache-Control: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        http::CACHE_CONTROL,
        reply.len(),
    );
    let _ = stream.write_all(&reply);
}

fn clone(from: &str, to: &Path, version: &str) -> Result<String, String> {
    let config = format!("protocol.version={version}");
    let to = to.to_str().unwrap();
    git(Path::new("/"), &["-c", &config, "clone", "-q", from, to])
}

#[test]
fn stock_git_clones_and_fetches_over_http() {
    let mut net = Net::new(1);
    let head = net.round(2);
    net.stores[0].flush().unwrap();
    let (url, seen) = serve(UploadPack::new(net.stores[0].path()));
    for version in ["0", "2"] {
        let folder = net.dir.path().join(format!("clone{version}"));
        clone(&url, &folder, version).unwrap();
        let said = git(&folder, &["fsck", "--strict", "--full"]).unwrap();
        assert!(
            !said.contains("warning") && !said.contains("error"),
            "{said}"
        );
        let branch = git(&folder, &["symbolic-ref", "HEAD"]).unwrap();
        assert_eq!(branch.trim(), "refs/heads/trunk");
        assert_eq!(
            git(&folder, &["rev-parse", "HEAD"]).unwrap().trim(),
            head.to_hex()
        );
    }
    assert!(seen.version_2.load(Ordering::Relaxed) >= 3);
    // A clone with much history says all of it in a request that git compresses.
    for _ in 0..40 {
        net.round(1);
    }
    net.stores[0].flush().unwrap();
    let folder = net.dir.path().join("clone2");
    git(&folder, &["fetch", "-q"]).unwrap();
    for _ in 0..2 {
        net.round(1);
        net.stores[0].flush().unwrap();
        git(&folder, &["fetch", "-q"]).unwrap();
    }
    assert!(
        seen.gzip.load(Ordering::Relaxed) > 0,
        "no request was compressed"
    );
    let tip = git(&folder, &["rev-parse", "origin/trunk"]).unwrap();
    assert_eq!(tip.trim(), net.stores[0].head().1.to_hex());
    assert_eq!(seen.other.load(Ordering::Relaxed), 0);
    // Nobody pushes.
    git(&folder, &["push", "-q", "origin", "HEAD:refs/heads/mine"]).unwrap_err();
    assert!(seen.other.load(Ordering::Relaxed) > 0);
}

/// The tip that was advertised is gone from the refs when the client asks for it: as if the chain had moved on within
/// the clone.
#[test]
fn clone_in_flight_while_the_tip_moves() {
    let mut net = Net::new(1);
    net.round(1);
    net.stores[0].flush().unwrap();
    let old_tip = git(net.stores[0].path(), &["rev-parse", "tip"]).unwrap();
    net.round(1);
    net.stores[0].flush().unwrap();
    let (url, _) = serve(UploadPack::new(net.stores[0].path()));
    for version in ["0", "2"] {
        let folder = net.dir.path().join(format!("fetch{version}"));
        clone(&url, &folder, version).unwrap();
        let config = format!("protocol.version={version}");
        let fetch = ["-c", &config, "fetch", "-q", "origin", old_tip.trim()];
        git(&folder, &fetch).unwrap();
    }
}

#[test]
fn requests_over_a_bound_are_refused() {
    let mut net = Net::new(1);
    net.round(1);
    net.stores[0].flush().unwrap();
    let served = UploadPack::new(net.stores[0].path());
    let mut reply = Vec::new();
    let large = vec![b'0'; http::MAX_REQUEST_BYTES + 1];
    let refused = served.rpc(None, None, &large, &mut reply);
    assert!(matches!(refused, Err(ServeError::Request(_))));
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&large).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 100_000);
    let refused = served.rpc(None, Some("gzip"), &bomb, &mut reply);
    assert!(matches!(
        refused,
        Err(ServeError::Request("the body is too large"))
    ));
    let refused = served.rpc(None, Some("br"), b"", &mut reply);
    assert!(matches!(refused, Err(ServeError::Request(_))));
    let refused = served.advertise(Some("version=2;rm -rf"), &mut Vec::new());
    assert!(matches!(refused, Err(ServeError::Request(_))));
    let refused = served.rpc(None, None, b"garbage", &mut reply);
    assert!(matches!(refused, Err(ServeError::Git(_))));
    assert!(reply.is_empty());
}

/// A reader that takes nothing until it is told to.
struct Slow(Arc<Mutex<()>>);

impl std::io::Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _turn = self.0.lock().unwrap();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn clones_at_once_are_bounded() {
    let mut net = Net::new(1);
    net.round(1);
    net.stores[0].flush().unwrap();
    let served = UploadPack::new(net.stores[0].path());
    let gate = Arc::new(Mutex::new(()));
    let turn = gate.lock().unwrap();
    let waiting: Vec<_> = (0..http::MAX_PROCESSES)
        .map(|_| {
            let (served, gate) = (served.clone(), gate.clone());
            std::thread::spawn(move || served.advertise(Some("version=2"), &mut Slow(gate)))
        })
        .collect();
    while served.running() < http::MAX_PROCESSES {
        std::thread::yield_now();
    }
    let busy = served.advertise(Some("version=2"), &mut Vec::new());
    assert!(matches!(busy, Err(ServeError::Busy)));
    drop(turn);
    for thread in waiting {
        thread.join().unwrap().unwrap();
    }
    served
        .advertise(Some("version=2"), &mut Vec::new())
        .unwrap();
    assert_eq!(served.running(), 0);
}
