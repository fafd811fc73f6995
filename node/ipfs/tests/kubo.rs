//! Kubo's RPC as its reference documents it, spoken by a server of our own: what is sent to a Kubo
//! node, and what its answers mean. A real Kubo is the business of the cross-checks.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use instar_chunks::car::CarReader;
use instar_chunks::import::{Content, ImportOptions};
use instar_chunks::{BlockStore, Blocks, Cid, Limits, MemoryBlocks, missing};
use instar_ipfs::pin::{KuboPins, MAX_ATTEMPTS, PinError};
use instar_ipfs::sources::{Kubo, Source, fetch_mixed};

/// A node that holds blocks and pins in memory.
#[derive(Default)]
struct Node {
    blocks: MemoryBlocks,
    pins: Mutex<BTreeSet<String>>,
    /// Answers 503 this many times before it works.
    sulks: Mutex<u32>,
    forgets_pins: bool,
}

fn start(node: Node) -> (String, Arc<Node>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let node = Arc::new(node);
    let shared = Arc::clone(&node);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let node = Arc::clone(&shared);
            std::thread::spawn(move || answer(&node, stream.unwrap()));
        }
    });
    (base, node)
}

fn body(reader: &mut BufReader<TcpStream>, head: &str) -> Vec<u8> {
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let size = u64::from_str_radix(line.trim(), 16).unwrap();
            reader.take(size).read_to_end(&mut body).unwrap();
            reader.read_line(&mut String::new()).unwrap();
            if size == 0 {
                return body;
            }
        }
    }
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "));
    let length = length.map_or(0, |l| l.trim().parse().unwrap());
    reader.take(length).read_to_end(&mut body).unwrap();
    body
}

fn answer(node: &Node, stream: TcpStream) {
    let mut out = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut head = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line.to_lowercase());
    }
    let body = body(&mut reader, &head);
    let (status, said) = speak(node, &first, &body);
    let length = said.len();
    write!(
        out,
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    out.write_all(&said).unwrap();
}

fn speak(node: &Node, first: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let error = |why: &str| {
        let said = format!("{{\"Message\":\"{why}\",\"Code\":0,\"Type\":\"error\"}}");
        (500, said.into_bytes())
    };
    let mut sulks = node.sulks.lock().unwrap();
    if *sulks > 0 {
        *sulks -= 1;
        return (503, b"busy".to_vec());
    }
    // Kubo takes POST alone.
    let Some(path) = first.strip_prefix("POST /api/v0/") else {
        return (405, Vec::new());
    };
    let (call, query) = path
        .split_whitespace()
        .next()
        .unwrap()
        .split_once('?')
        .unwrap();
    let cid = query.split('&').find_map(|p| p.strip_prefix("arg="));
    let cid: Option<Cid> = cid.map(|c| c.parse().unwrap());
    match call {
        "dag/import" => {
            let at = body.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
            let end = body.windows(4).rposition(|w| w == b"\r\n--").unwrap();
            let mut car = CarReader::new(&body[at + 4..end]).unwrap();
            while let Ok(Some((cid, bytes))) = car.next_block() {
                node.blocks.put(&cid, &bytes).unwrap();
            }
            let said = format!("{{\"Stats\":{{\"BlockCount\":{}}}}}\n", node.blocks.len());
            (200, said.into_bytes())
        }
        "pin/add" => {
            let absent = missing(&node.blocks, &cid.unwrap(), &Limits::default()).unwrap();
            if !absent.is_empty() {
                return error("pin: context deadline exceeded");
            }
            node.pins.lock().unwrap().insert(cid.unwrap().to_string());
            (
                200,
                format!("{{\"Pins\":[\"{}\"]}}", cid.unwrap()).into_bytes(),
            )
        }
        "pin/ls" => {
            let cid = cid.unwrap().to_string();
            if node.forgets_pins || !node.pins.lock().unwrap().contains(&cid) {
                return error(&format!("path '{cid}' is not pinned"));
            }
            (
                200,
                format!("{{\"Keys\":{{\"{cid}\":{{\"Type\":\"recursive\"}}}}}}").into_bytes(),
            )
        }
        "block/get" => match node.blocks.get(&cid.unwrap()).unwrap() {
            Some(bytes) => (200, bytes),
            None => error("block was not found locally (offline): ipld: could not find"),
        },
        other => error(&format!("no call {other}")),
    }
}

fn store(dir: &std::path::Path) -> (BlockStore, Cid) {
    let store = BlockStore::open(&dir.join("s")).unwrap();
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut stream = content.as_slice();
    let added = store.import(
        Content::Stream(&mut stream),
        &ImportOptions::default(),
        None,
    );
    (store, added.unwrap().cid)
}

#[test]
fn what_is_pinned_there_can_be_fetched_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let (store, root) = store(dir.path());
    let (base, node) = start(Node::default());
    let kubo = KuboPins::new(&base);
    assert!(!kubo.is_pinned(&root).unwrap());
    let (result, tries) = kubo.keep(&store, &root, &Limits::default());
    result.unwrap();
    assert_eq!(tries, 1);
    assert!(kubo.is_pinned(&root).unwrap());
    assert_eq!(node.blocks.len() as u64, store.len().unwrap());
    let other = BlockStore::open(&dir.path().join("other")).unwrap();
    let sources: [Box<dyn Source>; 1] = [Box::new(Kubo::new(&base))];
    let report = fetch_mixed(&other, &sources, &root, &Limits::default(), &|_, _| ()).unwrap();
    assert_eq!(report.fetched_blocks, store.len().unwrap());
    let absent = instar_chunks::block::cid_of(instar_chunks::block::RAW, b"absent");
    assert_eq!(Kubo::new(&base).get(&absent).unwrap(), None);
}

#[test]
fn a_node_that_is_busy_for_a_moment_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, root) = store(dir.path());
    let (base, _) = start(Node {
        sulks: Mutex::new(2),
        ..Node::default()
    });
    let (result, tries) = KuboPins::new(&base).keep(&store, &root, &Limits::default());
    result.unwrap();
    assert_eq!(tries, 3);
}

#[test]
fn a_place_that_only_says_yes_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let (store, root) = store(dir.path());
    let (base, _) = start(Node {
        forgets_pins: true,
        ..Node::default()
    });
    let (result, _) = KuboPins::new(&base).keep(&store, &root, &Limits::default());
    assert!(matches!(result.unwrap_err(), PinError::NotListed));
    // What isn't whole here can't be kept there.
    store.remove(&[root]).unwrap();
    let (base, _) = start(Node::default());
    let (result, _) = KuboPins::new(&base).keep(&store, &root, &Limits::default());
    assert!(matches!(result.unwrap_err(), PinError::Refused { .. }));
    // And nobody there is an error that was tried again.
    let (result, tries) =
        KuboPins::new("http://127.0.0.1:9").keep(&store, &root, &Limits::default());
    assert!(matches!(result.unwrap_err(), PinError::Call { .. }));
    assert_eq!(tries, MAX_ATTEMPTS);
}
