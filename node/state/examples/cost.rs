//! Measures what a block costs: `cargo run --release -p instar-state --example cost -- [folder]`.

use std::time::{Duration, Instant};

use instar_attest::Digest;
use instar_chain::view::{StateView, Writes};
use instar_ledger::Oid;
use instar_state::{Computed, StateStore};

const ACCOUNTS: u64 = 10_000;
const BLOCKS: u64 = 200;
const WRITES: u64 = 200;

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let path = std::path::Path::new(&folder).join("instar-state-cost.redb");
    let _ = std::fs::remove_file(&path);
    let store = StateStore::open(&path).expect("the folder is writable");
    let account = |i: u64| (format!("d/coin/balance/{i:064}"), Some(b"100".to_vec()));
    let genesis: Writes = (0..ACCOUNTS).map(account).collect();
    let began = Instant::now();
    store
        .init(Oid::from_bytes([0; 32]), &genesis)
        .expect("init");
    println!("init with {ACCOUNTS} keys: {:?}", began.elapsed());
    let mut spent = [Duration::ZERO; 4];
    for height in 1..=BLOCKS {
        let block = Oid::from_bytes(*Digest::of(&height.to_be_bytes()).as_bytes());
        let writes: Writes = (0..WRITES)
            .map(|i| account((height * 7919 + i * 104_729) % ACCOUNTS))
            .collect();
        let mut step = |at: usize, work: &mut dyn FnMut()| {
            let began = Instant::now();
            work();
            spent[at] += began.elapsed();
        };
        let view = store.view().expect("view");
        step(0, &mut || {
            for key in writes.keys() {
                view.get(key).expect("get");
            }
        });
        let mut root = Digest::of(b"");
        step(1, &mut || {
            root = store.root_of(height - 1, &writes).expect("root")
        });
        let computed = Computed {
            height,
            root,
            receipts: root,
        };
        step(2, &mut || {
            store.record_computed(block, &computed).expect("record")
        });
        step(3, &mut || {
            store
                .commit(height, block, b"certificate", &writes)
                .expect("commit");
        });
    }
    for (name, total) in ["gets", "root_of", "record_computed", "commit"]
        .iter()
        .zip(spent)
    {
        println!(
            "{name}: {:?} a block of {WRITES} writes",
            total / u32::try_from(BLOCKS).expect("small")
        );
    }
    println!(
        "file: {} bytes",
        std::fs::metadata(&path).expect("it is there").len()
    );
    drop(store);
    let began = Instant::now();
    let store = StateStore::open(&path).expect("open");
    println!("open: {:?}", began.elapsed());
    let began = Instant::now();
    store.view().expect("view").verify_all().expect("whole");
    println!("verify all: {:?}", began.elapsed());
    drop(store);
    let _ = std::fs::remove_file(&path);
}
