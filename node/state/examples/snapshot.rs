//! Measures what a snapshot costs, and what blocks feel of it while it is made:
//! `cargo run --release -p instar-state --example snapshot -- [folder] [keys]`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use instar_attest::Digest;
use instar_chain::view::Writes;
use instar_ledger::Oid;
use instar_state::snapshot::{self, Restore};
use instar_state::{StateStore, StoreError};

const WRITES: u64 = 200;
const BLOCKS: u64 = 100;

fn block(height: u64) -> Oid {
    Oid::from_bytes(*Digest::of(&height.to_be_bytes()).as_bytes())
}

fn account(i: u64) -> (String, Option<Vec<u8>>) {
    (format!("d/coin/balance/{i:064}"), Some(b"100".to_vec()))
}

/// Commits blocks until `stop`, at least some; how long each took, sorted.
fn commit(store: &StateStore, keys: u64, stop: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    while (took.len() as u64) < BLOCKS || !stop.load(Ordering::Relaxed) {
        let height = store.head().expect("head").expect("a head").height + 1;
        let at = |i| (height * 7919 + i * 104_729) % keys;
        let writes: Writes = (0..WRITES).map(|i| account(at(i))).collect();
        let began = Instant::now();
        store
            .commit(height, block(height), b"", &writes)
            .expect("commit");
        took.push(began.elapsed());
    }
    took.sort();
    took
}

fn say(what: &str, took: &[Duration]) {
    let at = |part: usize| took[(took.len() - 1) * part / 100];
    println!(
        "{what}: {} blocks of {WRITES} writes, p50 {:?}, p99 {:?}",
        took.len(),
        at(50),
        at(99)
    );
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| ".".to_owned());
    let keys: u64 = args
        .next()
        .map_or(200_000, |k| k.parse().expect("a number"));
    let (from, to) = (
        Path::new(&folder).join("snapshot-from.redb"),
        Path::new(&folder).join("snapshot-to.redb"),
    );
    let _ = (std::fs::remove_file(&from), std::fs::remove_file(&to));
    let store = StateStore::open(&from).expect("the folder is writable");
    store.init(block(0), &Writes::new()).expect("init");
    for (height, first) in (0..keys).step_by(10_000).enumerate() {
        let writes: Writes = (first..keys.min(first + 10_000)).map(account).collect();
        let height = height as u64 + 1;
        store
            .commit(height, block(height), b"", &writes)
            .expect("commit");
    }
    println!("{keys} keys, peak memory so far {} MiB", peak_mib());
    say(
        "without a snapshot",
        &commit(&store, keys, &AtomicBool::new(true)),
    );
    let target = store.head().expect("head").expect("a head");
    let view = store.view_aside(target.height).expect("a view");
    let done = AtomicBool::new(false);
    let mut chunks = Vec::new();
    let (took, spent) = std::thread::scope(|scope| {
        let blocks = scope.spawn(|| commit(&store, keys, &done));
        let began = Instant::now();
        snapshot::make(&view, &mut |_, bytes| {
            chunks.push(bytes);
            Ok::<_, StoreError>(())
        })
        .expect("make");
        let spent = began.elapsed();
        done.store(true, Ordering::Relaxed);
        (blocks.join().expect("no block fails"), spent)
    });
    say("while one is made without rest", &took);
    let bytes: usize = chunks.iter().map(Vec::len).sum();
    println!(
        "made in {spent:?}: {} chunks, {bytes} bytes ({} MiB of them kept in this process), peak memory {} MiB",
        chunks.len(),
        bytes >> 20,
        peak_mib()
    );
    let began = Instant::now();
    let mut restore = Restore::open(&to, &target).expect("a new file");
    for chunk in &chunks {
        restore.add(chunk).expect("it proves");
    }
    let restored = restore.finish().expect("whole");
    println!("proven and restored in {:?}", began.elapsed());
    assert_eq!(restored.head().expect("head"), Some(target));
}
