//! The trustless gateway, asked over HTTP as its specification says.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc;

use instar_chunks::car::CarReader;
use instar_chunks::import::{Content, ImportOptions};
use instar_chunks::{BlockStore, Blocks, Cid, Limits, MemoryBlocks, missing};
use instar_ipfs::sources::{Gateway, Source, fetch_mixed};
use instar_node::gateway::serve::{ServeOptions, serve};

struct Served {
    dir: tempfile::TempDir,
    store: Arc<BlockStore>,
    root: Cid,
    large: Cid,
    host: String,
    _runtime: tokio::runtime::Runtime,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let line = |line: &&str| line.to_lowercase().starts_with(&format!("{name}:"));
        self.head
            .lines()
            .find(line)
            .map_or("", |line| line[name.len() + 1..].trim())
    }

    fn blocks(&self) -> Vec<Cid> {
        let mut car = CarReader::new(self.body.as_slice()).unwrap();
        let mut cids = Vec::new();
        while let Some((cid, _)) = car.next_block().unwrap() {
            cids.push(cid);
        }
        cids
    }
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::create_dir_all(from.join("a")).unwrap();
        let mut state = 1_u64;
        let content: Vec<u8> = (0..2_000_000)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        std::fs::write(from.join("a/large"), content).unwrap();
        std::fs::write(from.join("small"), b"small").unwrap();
        let store = BlockStore::open(&dir.path().join("s")).unwrap();
        let root = store
            .import(Content::Path(&from), &ImportOptions::default(), None)
            .unwrap()
            .cid;
        let large =
            instar_chunks::read::resolve(&store, &root, "a/large", &Limits::default()).unwrap();
        let store = Arc::new(store);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let options = ServeOptions {
            store: Arc::clone(&store),
            http: Some("127.0.0.1:0".parse().unwrap()),
            peer: None,
            seed: None,
            deltas: None,
            dht: None,
        };
        let (send, receive) = mpsc::channel();
        runtime.spawn(serve(options, move |served| send.send(served).unwrap()));
        let base = receive.recv().unwrap().http.unwrap();
        Self {
            dir,
            store,
            root,
            large,
            host: base.strip_prefix("http://").unwrap().to_owned(),
            _runtime: runtime,
        }
    }

    fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for header in headers {
            request.push_str(&format!("{header}\r\n"));
        }
        stream
            .write_all(format!("{request}\r\n").as_bytes())
            .unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
        let body = bytes[at + 4..].to_vec();
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        Answer {
            status: head[9..12].parse().unwrap(),
            body: if chunked { unchunk(&body) } else { body },
            head,
        }
    }

    fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.ask("GET", path, headers)
    }
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(at) = body.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&body[..at]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        out.extend_from_slice(&body[at + 2..at + 2 + size]);
        body = &body[at + 4 + size..];
    }
    out
}

#[test]
fn single_blocks() {
    let served = Served::new();
    let (root, bytes) = (
        served.root,
        served.store.get(&served.root).unwrap().unwrap(),
    );
    let path = format!("/ipfs/{root}");
    for (path, headers) in [
        (format!("{path}?format=raw"), vec![]),
        (path.clone(), vec!["Accept: application/vnd.ipld.raw"]),
        (
            format!("{path}?format=raw"),
            vec!["Accept: application/vnd.ipld.car"],
        ),
    ] {
        let answer = served.get(&path, &headers);
        assert_eq!((answer.status, &answer.body), (200, &bytes), "{path}");
        assert_eq!(answer.header("content-type"), "application/vnd.ipld.raw");
        assert_eq!(answer.header("etag"), format!("\"{root}.raw\""));
        assert!(answer.header("cache-control").contains("immutable"));
        assert!(
            answer
                .header("content-disposition")
                .contains(&format!("{root}.bin"))
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    let raw = format!("{path}?format=raw");
    let head = served.ask("HEAD", &raw, &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), bytes.len().to_string());
    let part = served.get(&raw, &["Range: bytes=2-5"]);
    assert_eq!((part.status, part.body.as_slice()), (206, &bytes[2..6]));
    assert_eq!(
        part.header("content-range"),
        format!("bytes 2-5/{}", bytes.len())
    );
    assert_eq!(served.get(&raw, &["Range: bytes=99999-"]).status, 416);
    let etag = format!("If-None-Match: \"x\", W/\"{root}.raw\"");
    let same = served.get(&raw, &[&etag]);
    assert_eq!((same.status, same.body.len()), (304, 0));
}

#[test]
fn what_is_refused() {
    let served = Served::new();
    let absent = instar_chunks::block::cid_of(instar_chunks::block::RAW, b"absent");
    let root = served.root;
    for (path, headers, status) in [
        (format!("/ipfs/{root}"), vec![], 400),
        (format!("/ipfs/{root}"), vec!["Accept: text/html"], 400),
        (format!("/ipfs/{root}?format=tar"), vec![], 400),
        (format!("/ipfs/{root}/small?format=raw"), vec![], 400),
        (format!("/ipfs/{root}/nobody?format=car"), vec![], 404),
        (format!("/ipfs/{root}/small/x?format=car"), vec![], 404),
        (
            format!("/ipfs/{root}?format=car&car-version=2"),
            vec![],
            400,
        ),
        (
            format!("/ipfs/{root}?format=car&dag-scope=none"),
            vec![],
            400,
        ),
        (
            format!("/ipfs/{}?format=car&entity-bytes=9000000:*", served.large),
            vec![],
            400,
        ),
        (format!("/ipfs/{absent}?format=raw"), vec![], 404),
        (format!("/ipfs/{absent}?format=car"), vec![], 404),
        (
            format!("/ipfs/{absent}?format=raw"),
            vec!["Cache-Control: only-if-cached"],
            412,
        ),
        ("/ipfs/nonsense?format=raw".to_owned(), vec![], 400),
    ] {
        let answer = served.get(&path, &headers);
        assert_eq!(answer.status, status, "{path}: {}", answer.head);
        assert!(!answer.header("cache-control").contains("immutable"));
    }
    assert_eq!(
        served
            .ask("POST", &format!("/ipfs/{root}?format=raw"), &[])
            .status,
        405
    );
}

#[test]
fn archives() {
    let served = Served::new();
    let (root, large) = (served.root, served.large);
    let get = |query: &str| served.get(&format!("/ipfs/{query}"), &[]);
    let all = get(&format!("{root}?format=car"));
    assert_eq!(
        all.header("content-type"),
        "application/vnd.ipld.car; version=1; order=dfs; dups=n"
    );
    let blocks = MemoryBlocks::default();
    let mut car = CarReader::new(all.body.as_slice()).unwrap();
    assert_eq!(car.roots(), [root]);
    while let Some((cid, bytes)) = car.next_block().unwrap() {
        blocks.put(&cid, &bytes).unwrap();
    }
    assert!(
        missing(&blocks, &root, &Limits::default())
            .unwrap()
            .is_empty()
    );
    assert_eq!(blocks.len() as u64, served.store.len().unwrap());

    let scoped = |scope: &str| get(&format!("{root}?format=car&dag-scope={scope}")).blocks();
    assert_eq!(scoped("block"), [root]);
    assert_eq!(scoped("entity"), [root]);
    // The way to the file, then the file.
    let file = get(&format!("{root}/a/large?format=car&dag-scope=entity")).blocks();
    assert_eq!((file[0], file[2]), (root, large));
    assert_eq!(
        file.len() as u64,
        served.store.len().unwrap() - 1,
        "all but `small`"
    );
    let bytes = |range: &str| {
        let query = format!("{root}/a/large?format=car&entity-bytes={range}");
        get(&query).blocks().len()
    };
    assert_eq!(bytes("0:*"), file.len());
    assert_eq!(bytes("0:0"), 4, "the way, the file's node, its first chunk");
    assert_eq!(bytes("-1:*"), 4);
    assert_eq!(bytes("5:1"), 3, "nothing asked for, the file's node alone");
    assert!((5..12).contains(&bytes("100000:200000")));
    let tags: std::collections::BTreeSet<String> = ["", "&dag-scope=block", "&entity-bytes=0:9"]
        .iter()
        .map(|more| {
            get(&format!("{large}?format=car{more}"))
                .header("etag")
                .to_owned()
        })
        .collect();
    assert_eq!(tags.len(), 3);
    // The probe of other clients.
    let probe = get("bafkqaaa?format=car");
    assert_eq!((probe.status, probe.blocks().len()), (200, 0));
    assert_eq!(get("bafkqaaa?format=raw").status, 200);
    let head = served.ask("HEAD", &format!("/ipfs/{root}?format=car"), &[]);
    assert_eq!(
        (head.status, head.body.len(), head.header("content-length")),
        (200, 0, "")
    );
}

#[test]
fn our_own_client_fetches_from_it() {
    let served = Served::new();
    let store = BlockStore::open(&served.dir.path().join("other")).unwrap();
    let sources: [Box<dyn Source>; 1] =
        [Box::new(Gateway::new(&format!("http://{}", served.host)))];
    let report = fetch_mixed(
        &store,
        &sources,
        &served.root,
        &Limits::default(),
        &|_, _| (),
    )
    .unwrap();
    assert_eq!(report.fetched_blocks, served.store.len().unwrap());
    // One more is asked for alone: the archive is for those who have nothing.
    store.remove(&[served.large]).unwrap();
    let report = fetch_mixed(
        &store,
        &sources,
        &served.root,
        &Limits::default(),
        &|_, _| (),
    )
    .unwrap();
    assert_eq!(report.fetched_blocks, 1);
}
