//! A process that is killed while it writes loses nothing that it was told is kept.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use instar_chunks::block::{RAW, cid_of};
use instar_chunks::{BlockStore, Blocks, Cid};

/// Names the store that the child writes; without it the child's test does nothing.
const CHILD: &str = "INSTAR_TEST_STORE";

fn block(number: u32) -> (Cid, Vec<u8>) {
    let bytes = number.to_be_bytes().repeat(2500);
    (cid_of(RAW, &bytes), bytes)
}

/// Not a test of its own: what the other one starts and kills.
#[test]
#[ignore = "the child of the test beside it"]
fn child() {
    let path = std::env::var(CHILD).unwrap();
    let store = BlockStore::open(Path::new(&path)).unwrap();
    let start = store.len().unwrap() as u32;
    // What a kill left half done is begun again.
    for number in (start / 5 * 5..).step_by(5) {
        let blocks: Vec<_> = (number..number + 5).map(block).collect();
        if number % 2 == 0 {
            store.put_many(&blocks).unwrap();
        } else {
            // One by one, and durable with the pin.
            for (cid, bytes) in &blocks {
                store.put_later(cid, bytes).unwrap();
            }
            store.pin("last", &blocks[4].0).unwrap();
        }
        println!("kept {number}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blocks");
    let mut acknowledged = 0;
    for round in 0..6_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        // The timer is unrelated to the writes, so that kills fall anywhere in them.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(700 + 37 * round));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        for line in lines.lines().map_while(Result::ok) {
            if let Some(number) = line.split("kept ").nth(1) {
                acknowledged = number.parse::<u32>().unwrap() + 5;
            }
        }
        killer.join().unwrap();
        let store = BlockStore::open(&path).unwrap();
        let held = store.len().unwrap() as u32;
        assert!(
            held >= acknowledged,
            "{held} held, {acknowledged} acknowledged"
        );
        assert!(
            held < acknowledged + 10,
            "{held} held, {acknowledged} acknowledged"
        );
        for number in 0..held {
            let (cid, bytes) = block(number);
            assert!(store.get(&cid).unwrap() == Some(bytes), "block {number}");
        }
    }
    assert!(
        acknowledged >= 50,
        "only {acknowledged} blocks were written at all"
    );
}
