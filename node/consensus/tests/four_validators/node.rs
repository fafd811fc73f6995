//! One validator: the engine, a host that keeps blocks in files, and orders on stdin.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use instar_attest::{ChainId, Digest, SecretKey};
use instar_consensus::{
    Candidate, Config, Event, Host, Next, Proposed, Start, Timeouts, Verdict, WorkSignal,
};
use instar_ledger::{Certificate, Oid, Validator, ValidatorSet};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::{mpsc, watch};

pub const VALIDATORS: usize = 4;

pub fn chain() -> ChainId {
    ChainId::from_bytes([0xc4; 32])
}

pub fn key(index: usize) -> SecretKey {
    SecretKey::from_seed(&[index as u8 + 1; 32])
}

/// Whose keys decide from which height on, as `1=0123;11=01234`: the numbers of keys, ascending heights.
#[derive(Clone)]
pub struct Schedule(Vec<(u64, Vec<usize>)>);

impl Schedule {
    pub fn parse(text: &str) -> Self {
        let part = |part: &str| {
            let (height, keys) = part.split_once('=').unwrap();
            let keys = keys.chars().map(|c| c.to_digit(10).unwrap() as usize);
            (height.parse().unwrap(), keys.collect())
        };
        Self(text.split(';').map(part).collect())
    }

    /// The set of a height.
    pub fn at(&self, height: u64) -> ValidatorSet {
        let (_, keys) = self.0.iter().rfind(|(from, _)| *from <= height).unwrap();
        let validator = |i: &usize| Validator {
            key: key(*i).public(),
            power: 1,
        };
        ValidatorSet::new(keys.iter().map(validator).collect()).unwrap()
    }
}

/// A final block as the test's host keeps it: the certificate on the first line, then the payload.
pub fn read_block(folder: &Path, height: u64) -> Option<(Certificate, Bytes)> {
    let bytes = std::fs::read(folder.join(format!("{height}.block"))).ok()?;
    let line = bytes.iter().position(|b| *b == b'\n')?;
    let certificate = Certificate::from_bytes(&bytes[..line]).unwrap();
    Some((certificate, Bytes::copy_from_slice(&bytes[line + 1..])))
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The story may have closed the pipe because it failed; there is nobody left to tell.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

struct FileHost {
    folder: PathBuf,
    height: u64,
    schedule: Schedule,
    /// Go on until this height without being told.
    target: Arc<AtomicU64>,
    /// At this height the first round's proposal is one that nobody accepts.
    bad: Arc<AtomicU64>,
    bytes: usize,
    work: WorkSignal,
    tested: BTreeMap<Oid, Bytes>,
    asked: Arc<Mutex<BTreeMap<u64, Instant>>>,
}

impl FileHost {
    fn next(&self) -> Next {
        Next {
            height: self.height + 1,
            validators: self.schedule.at(self.height + 1),
        }
    }

    fn wake(&self) {
        if self.height < self.target.load(Ordering::SeqCst) {
            self.work.notify();
        }
    }
}

impl Host for FileHost {
    async fn start(&mut self) -> Start {
        while read_block(&self.folder, self.height + 1).is_some() {
            self.height += 1;
        }
        say(&format!("start {}", self.height));
        Start {
            height: self.height + 1,
            validators: self.schedule.at(self.height + 1),
        }
    }

    async fn propose(&mut self, height: u64, round: u32) -> Result<Proposed, String> {
        assert_eq!(height, self.height + 1);
        if height > self.target.load(Ordering::SeqCst) {
            return Err("there is nothing to decide".into());
        }
        self.asked.lock().unwrap().insert(height, Instant::now());
        let bad = self.bad.load(Ordering::SeqCst) == height && round == 0;
        let mut payload =
            format!("{} {height} {round} ", if bad { "bad" } else { "good" }).into_bytes();
        payload.resize(self.bytes.max(payload.len()), height as u8);
        let payload = Bytes::from(payload);
        let block = Oid::from_bytes(*Digest::of(&payload).as_bytes());
        self.tested.insert(block, payload.clone());
        Ok(Proposed { block, payload })
    }

    async fn check(&mut self, candidate: Candidate) -> Verdict {
        assert_eq!(candidate.height, self.height + 1);
        if Digest::of(&candidate.payload).as_bytes() != candidate.block.as_bytes() {
            return Verdict::Invalid("the payload is of another block".into());
        }
        if !candidate
            .payload
            .starts_with(format!("good {} ", candidate.height).as_bytes())
        {
            return Verdict::Invalid("the payload is not good".into());
        }
        self.tested.insert(candidate.block, candidate.payload);
        Verdict::Valid
    }

    async fn decided(&mut self, certificate: Certificate, payload: Option<Bytes>) -> Next {
        let set = self.schedule.at(certificate.height);
        certificate.verify(&chain(), &set).unwrap();
        let payload = payload.or_else(|| self.tested.get(&certificate.block).cloned());
        let payload = payload.expect("a decided block was tested here");
        assert_eq!(
            Digest::of(&payload).as_bytes(),
            certificate.block.as_bytes()
        );
        self.height += 1;
        assert_eq!(certificate.height, self.height);
        self.write(&certificate, &payload);
        self.tested.clear();
        if let Some(asked) = self.asked.lock().unwrap().remove(&self.height)
            && certificate.round == 0
        {
            say(&format!("latency {}", asked.elapsed().as_micros()));
        }
        self.wake();
        self.next()
    }

    async fn decided_payload(&mut self, height: u64) -> Option<(Certificate, Bytes)> {
        read_block(&self.folder, height)
    }

    async fn grown(&mut self, certificate: Certificate) {
        let set = self.schedule.at(certificate.height);
        certificate.verify(&chain(), &set).unwrap();
        if let Some((old, payload)) = read_block(&self.folder, certificate.height) {
            assert!(old.signatures.len() < certificate.signatures.len());
            self.write(&certificate, &payload);
        }
    }
}

impl FileHost {
    fn write(&self, certificate: &Certificate, payload: &[u8]) {
        let mut bytes = certificate.to_bytes().unwrap();
        bytes.push(b'\n');
        bytes.extend_from_slice(payload);
        let new = self.folder.join("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(
            new,
            self.folder.join(format!("{}.block", certificate.height)),
        )
        .unwrap();
    }
}

fn line(event: &Event) -> String {
    match event {
        Event::Round { height, round, .. } => format!("round {height} {round}"),
        Event::Nil { height, round, .. } => format!("nil {height} {round}"),
        Event::Refused { height, round, .. } => format!("refused {height} {round}"),
        Event::Decided {
            height,
            round,
            signatures,
            ..
        } => {
            format!("decided {height} {round} {signatures}")
        }
        Event::Equivocation { height, validator } => format!("equivocation {height} {validator}"),
        Event::Following { until } => format!("following {until:?}"),
        Event::Idle { height } => format!("idle {height}"),
        Event::Alive { quorum } => format!("alive {quorum}"),
    }
}

pub fn main(args: &[String]) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(run(args));
}

async fn run(args: &[String]) {
    if let Ok(filter) = std::env::var("RUST_LOG") {
        let log = std::fs::File::create(format!("{}/log", args[1])).unwrap();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(log);
        log.with_ansi(false).init();
    }
    let index: usize = args[0].parse().unwrap();
    let folder = PathBuf::from(&args[1]);
    let ports: Vec<u16> = args[2].split(',').map(|p| p.parse().unwrap()).collect();
    let address = |port: &u16| format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let others = ports.iter().enumerate().filter(|(i, _)| *i != index);
    let work = WorkSignal::new();
    let target = Arc::new(AtomicU64::new(args[3].parse().unwrap()));
    let bad = Arc::new(AtomicU64::new(0));
    let host = FileHost {
        folder: folder.clone(),
        height: 0,
        schedule: Schedule::parse(&args[5]),
        target: Arc::clone(&target),
        bad: Arc::clone(&bad),
        bytes: args[4].parse().unwrap(),
        work: work.clone(),
        tested: BTreeMap::new(),
        asked: Arc::default(),
    };
    let config = Config {
        chain: chain(),
        key: key(args[6].parse().unwrap()),
        network_seed: [0x40 + index as u8; 32],
        listen: address(&ports[index]),
        peers: others.map(|(_, port)| address(port)).collect(),
        wal_dir: folder.join("wal"),
        marks_dir: folder.join("marks"),
        moniker: format!("validator-{index}"),
        timeouts: Timeouts::default(),
    };
    let (events, mut told) = mpsc::channel(1024);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        while let Some(event) = told.recv().await {
            say(&line(&event));
        }
    });
    let orders = work.clone();
    tokio::spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(order)) = lines.next_line().await {
            let mut words = order.split(' ');
            match (words.next(), words.next().and_then(|n| n.parse().ok())) {
                (Some("run"), Some(height)) => {
                    target.store(height, Ordering::SeqCst);
                    orders.notify();
                }
                (Some("bad"), Some(height)) => bad.store(height, Ordering::SeqCst),
                _ => break,
            }
        }
        stop.send_replace(true);
    });
    match instar_consensus::run(config, host, work, events, stopped).await {
        Ok(()) => say("stopped"),
        Err(error) => {
            say(&format!("failed {error:?}"));
            std::process::exit(1);
        }
    }
}
