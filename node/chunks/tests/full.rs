//! A disk that is full: what was acknowledged stays, and what is there can be read. The process whose disk is full is
//! this very program, so the test has a `main` of its own.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use instar_chunks::block::{RAW, cid_of};
use instar_chunks::{BlockStore, Blocks, Cid};

/// The argument before the path of the store that the child fills.
const CHILD: &str = "--write-until-full";
/// Files of the child can't grow over this: what a full disk looks like to it.
const MAX_FILE_BYTES: u64 = 6 * 1024 * 1024;
const NAME: &str = "a_full_disk_loses_nothing_that_was_acknowledged";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, path] = &arguments[..]
        && first == CHILD
    {
        return write_until_full(Path::new(path));
    }
    if arguments.iter().any(|a| a == "--list") {
        println!("{NAME}: test");
        return;
    }
    let wanted = arguments.iter().filter(|a| !a.starts_with('-'));
    let chosen = wanted.clone().next().is_none() || wanted.into_iter().any(|w| NAME.contains(w));
    if chosen {
        a_full_disk_loses_nothing_that_was_acknowledged();
        println!("test {NAME} ... ok");
    }
    println!("test result: ok. {} passed; 0 failed", u8::from(chosen));
}

fn block(number: u32) -> (Cid, Vec<u8>) {
    let mut state = u64::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes: Vec<u8> = (0..50_000)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect();
    (cid_of(RAW, &bytes), bytes)
}

fn write_until_full(path: &Path) {
    let limit = libc::rlimit {
        rlim_cur: MAX_FILE_BYTES,
        rlim_max: MAX_FILE_BYTES,
    };
    // SAFETY: both calls take plain values, and `limit` outlives the second.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
    let store = BlockStore::open(path).unwrap();
    for number in 0.. {
        let (cid, bytes) = block(number);
        if let Err(error) = store.put(&cid, &bytes) {
            println!("full {error}");
            // What is there can still be read.
            assert!(store.get(&block(0).0).unwrap().is_some());
            return;
        }
        println!("kept {number}");
        std::io::stdout().flush().unwrap();
    }
}

fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg(CHILD)
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut kept, mut full) = (0, false);
    for line in BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
    {
        if let Some(number) = line.strip_prefix("kept ") {
            kept = number.parse::<u32>().unwrap() + 1;
        }
        full |= line.starts_with("full ");
    }
    assert!(child.wait().unwrap().success(), "what was kept is readable");
    assert!(full, "the disk was full after {kept} blocks");
    assert!(kept > 50, "{kept}");
    let store = BlockStore::open(&path).unwrap();
    for number in 0..kept {
        let (cid, bytes) = block(number);
        assert!(store.get(&cid).unwrap() == Some(bytes), "block {number}");
    }
    // And with room it goes on.
    let (cid, bytes) = block(kept + 1);
    store.put(&cid, &bytes).unwrap();
    assert!(store.verify(&mut |_| ()).unwrap().corrupt.is_empty());
}
