//! A disk that is full: what was acknowledged stays, and what is there can be read. The process whose disk is full is
//! this very program, so the tests have a `main` of their own. Once files can't grow any more; once the disk itself is
//! full: a small one in memory, which only this process sees.

// The lint knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use instar_chunks::block::{RAW, cid_of};
use instar_chunks::{BlockError, BlockStore, Blocks, Cid};

/// The argument before the path of the store that the child fills.
const CHILD: &str = "--write-until-full";
/// Files of the child can't grow over this: what a full disk looks like to it.
const MAX_FILE_BYTES: u64 = 6 * 1024 * 1024;
/// The argument before the path of a folder in which the child finds a small disk.
const SMALL: &str = "--fill-a-small-disk";
/// Bytes of that disk: the 16 MiB that stay free for the index, and something.
const SMALL_BYTES: u64 = 28 * 1024 * 1024;
const TESTS: [(&str, fn()); 2] = [
    (
        "a_full_disk_loses_nothing_that_was_acknowledged",
        a_full_disk_loses_nothing_that_was_acknowledged,
    ),
    (
        "a_small_disk_that_fills_up_is_named_and_goes_on_with_room",
        a_small_disk_that_fills_up_is_named_and_goes_on_with_room,
    ),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, path] = &arguments[..]
        && first == CHILD
    {
        return write_until_full(Path::new(path));
    }
    if let [first, path] = &arguments[..]
        && first == SMALL
    {
        return fill_a_small_disk(Path::new(path));
    }
    if arguments.iter().any(|a| a == "--list") {
        for (name, _) in TESTS {
            println!("{name}: test");
        }
        return;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let mut passed = 0;
    for (name, test) in TESTS {
        if wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str())) {
            test();
            println!("test {name} ... ok");
            passed += 1;
        }
    }
    println!("test result: ok. {passed} passed; 0 failed");
}

/// Alone in namespaces of its own, so that nobody else sees the disk, and so that it needs no privilege.
fn fill_a_small_disk(folder: &Path) {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .expect("this kernel forbids user namespaces; `instar doctor` says what else needs them");
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).unwrap();
    let disk = |flags, bytes: u64| {
        let size = format!("size={bytes}");
        mount(
            Some("none"),
            folder,
            Some("tmpfs"),
            flags,
            Some(size.as_str()),
        )
        .unwrap();
    };
    disk(MsFlags::empty(), SMALL_BYTES);
    let path = folder.join("s.redb");
    let store = BlockStore::open(&path).unwrap();
    let mut kept = 0;
    let error = loop {
        let (cid, bytes) = block(kept);
        match store.put(&cid, &bytes) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BlockError::Full { .. }), "{error}");
    assert!(error.to_string().contains("disk is full"), "{error}");
    assert!(kept > 20, "{kept}");
    let whole = |store: &BlockStore| {
        for number in 0..kept {
            let (cid, bytes) = block(number);
            assert!(store.get(&cid).unwrap() == Some(bytes), "block {number}");
        }
    };
    whole(&store);
    // Room is made by forgetting, which needs some of the disk itself.
    let (gone, _) = block(kept - 1);
    assert_eq!(store.remove(&[gone]).unwrap(), 1);
    let (cid, bytes) = block(kept - 1);
    drop(store);
    disk(MsFlags::MS_REMOUNT, 2 * SMALL_BYTES);
    let store = BlockStore::open(&path).unwrap();
    store.put(&cid, &bytes).unwrap();
    whole(&store);
    assert!(store.verify(&mut |_| ()).unwrap().corrupt.is_empty());
}

fn a_small_disk_that_fills_up_is_named_and_goes_on_with_room() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .arg(SMALL)
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(child.success());
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
