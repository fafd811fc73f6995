//! Sources that lie: each stands before a real node and changes one thing in what that says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use instar_attest::json;
use instar_ledger::light::SignedHeader;
use instar_node::snapshots::SnapshotList;

/// What a source does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Hands on so many chunks and then says nothing any more.
    StallsAfter(usize),
    /// Turns a bit of every chunk.
    Chunks,
    /// Leaves the last chunk out of its list.
    List,
    /// Names the address of a block that is no chunk.
    OtherBlock,
    /// Offers a height that does not exist.
    Height,
    /// Names another state root in the header.
    Root,
    /// Answers with more than there is room for.
    Flood,
}

/// A source; it goes on until the process ends.
pub struct Liar {
    /// Its address.
    pub url: String,
    /// Hears of every chunk that was handed on, and of the one that was not.
    pub chunks: mpsc::Receiver<usize>,
}

impl Liar {
    /// Stands before the node at `behind`.
    pub fn before(behind: &str, lie: Lie) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, chunks) = mpsc::channel();
        let behind = behind.to_owned();
        let count = Arc::new(AtomicUsize::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (behind, tell, count) = (behind.clone(), tell.clone(), count.clone());
                // A client that goes away is no failure of the story.
                std::thread::spawn(move || drop(answer(stream, &behind, lie, &count, &tell)));
            }
        });
        Self { url, chunks }
    }
}

fn answer(
    mut stream: TcpStream,
    behind: &str,
    lie: Lie,
    count: &AtomicUsize,
    tell: &mpsc::Sender<usize>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    if path.starts_with("/ipfs/") {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let _ = tell.send(n);
        if matches!(lie, Lie::StallsAfter(max) if n >= max) {
            std::thread::sleep(Duration::from_secs(600));
        }
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let mut response = agent
        .get(format!("{behind}{path}"))
        .call()
        .map_err(std::io::Error::other)?;
    let status = response.status();
    let mut body = Vec::new();
    response.body_mut().as_reader().read_to_end(&mut body)?;
    if status.is_success() {
        body = changed(&path, lie, body);
    }
    write!(
        stream,
        "HTTP/1.1 {} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        status.as_u16(),
        body.len()
    )?;
    stream.write_all(&body)
}

fn changed(path: &str, lie: Lie, mut body: Vec<u8>) -> Vec<u8> {
    let list = path.starts_with("/v1/snapshots/") && !path.contains("/ledger");
    match lie {
        Lie::Chunks if path.starts_with("/ipfs/") => {
            if let Some(last) = body.last_mut() {
                *last ^= 1;
            }
        }
        Lie::Flood if path.starts_with("/ipfs/") => body.resize(64 << 20, 0),
        Lie::List if list => {
            let mut list = SnapshotList::from_bytes(&body).unwrap();
            list.chunks.pop();
            body = list.to_bytes().unwrap();
        }
        Lie::OtherBlock if list => {
            let mut list = SnapshotList::from_bytes(&body).unwrap();
            let folder = list.folder().unwrap().0.to_string();
            list.chunks[0].cid = folder;
            body = list.to_bytes().unwrap();
        }
        Lie::Height if path == "/v1/snapshots" => {
            let text = String::from_utf8(body).unwrap();
            body = text.replacen("\"height\":", "\"height\":9", 1).into();
        }
        Lie::Root if path.starts_with("/v1/headers/") => {
            let mut header = SignedHeader::from_bytes(&body).unwrap();
            header.header.state_root = instar_attest::Digest::of(b"a richer state");
            body = json::to_vec(&header).unwrap();
        }
        _ => {}
    }
    body
}
