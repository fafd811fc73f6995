//! A process that is killed while it writes loses nothing that it was told is kept. The process that is killed is this
//! very program, so the test has a `main` of its own.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use instar_chunks::block::{RAW, cid_of};
use instar_chunks::{BlockStore, Blocks, Cid};

/// The argument before the path of the store that the child writes.
const CHILD: &str = "--write-until-killed";
const NAME: &str = "a_killed_writer_loses_nothing_that_was_acknowledged";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, path] = &arguments[..]
        && first == CHILD
    {
        write_until_killed(Path::new(path));
    }
    if arguments.iter().any(|a| a == "--list") {
        println!("{NAME}: test");
        return;
    }
    let wanted = arguments.iter().filter(|a| !a.starts_with('-'));
    let chosen = wanted.clone().next().is_none() || wanted.into_iter().any(|w| NAME.contains(w));
    if chosen {
        a_killed_writer_loses_nothing_that_was_acknowledged();
        println!("test {NAME} ... ok");
    }
    println!("test result: ok. {} passed; 0 failed", u8::from(chosen));
}

fn block(number: u32) -> (Cid, Vec<u8>) {
    let bytes = number.to_be_bytes().repeat(2500);
    (cid_of(RAW, &bytes), bytes)
}

fn write_until_killed(path: &Path) -> ! {
    let store = BlockStore::open(path).unwrap();
    let start = store.len().unwrap() as u32;
    // What a kill left half done is begun again.
    let mut number = start / 5 * 5;
    loop {
        let blocks: Vec<_> = (number..number + 5).map(block).collect();
        if number.is_multiple_of(2) {
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
        number += 5;
    }
}

fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blocks");
    let mut acknowledged = 0;
    for round in 0..6_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(CHILD)
            .arg(&path)
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
            if let Some(number) = line.strip_prefix("kept ") {
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
