//! `kill -9` in a loop: a reopened store is at the block before or at the block that was being committed, whole.
//!
//! This test has no harness: it is its own child, which commits until it is killed.

#![allow(clippy::unwrap_used)] // a test may fail by panic, helpers too

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use instar_attest::Digest;
use instar_chain::view::Writes;
use instar_ledger::Oid;
use instar_state::{Computed, Fork, StateStore};

const ROUNDS: u64 = 25;

fn block(height: u64) -> Oid {
    Oid::from_bytes(*Digest::of(&height.to_be_bytes()).as_bytes())
}

/// A block's writes are a function of its height, so that the parent knows every root.
fn writes(height: u64) -> Writes {
    (0..20)
        .map(|i| {
            let key = format!("d/coin/balance/{}", (height * 7 + i * i) % 97);
            let value = (i % 5 != 0).then(|| height.to_be_bytes().to_vec());
            (key, value)
        })
        .collect()
}

fn child(path: &Path) {
    let store = StateStore::open(path).unwrap();
    store.init(block(0), &writes(0)).unwrap();
    let mut out = std::io::stdout();
    let first = store.head().unwrap().unwrap().height + 1;
    for height in first.. {
        let root = store.root_of(height - 1, &writes(height)).unwrap();
        let receipts = Digest::of(b"receipts");
        store
            .record_computed(
                block(height),
                &Computed {
                    height,
                    root,
                    receipts,
                },
            )
            .unwrap();
        writeln!(out, "computed {height}").unwrap();
        store
            .commit(
                height,
                block(height),
                &height.to_be_bytes(),
                &writes(height),
            )
            .unwrap();
        writeln!(out, "committed {height}").unwrap();
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("--child") {
        return child(Path::new(&args.next().unwrap()));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let mut expected = Fork::empty();
    let mut roots = vec![expected.apply(&writes(0)).unwrap()];
    let mut stopped_at = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--child")
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        // Not at the same place twice: between 0 and 48 ms after the first sign of life.
        std::thread::sleep(Duration::from_millis(40 + round * 37 % 49));
        child.kill().unwrap();
        child.wait().unwrap();
        let (mut computed, mut committed) = (0, 0);
        for line in out.lines() {
            let line = line.unwrap();
            // The kill may cut the last line short; a number that is cut is smaller, never larger.
            match line.split_once(' ') {
                Some(("computed", height)) => {
                    computed = height.parse().unwrap_or(computed).max(computed)
                }
                Some(("committed", height)) => {
                    committed = height.parse().unwrap_or(committed).max(committed)
                }
                _ => {}
            }
        }
        let store = StateStore::open(&path).unwrap();
        let Some(head) = store.head().unwrap() else {
            continue;
        };
        assert!(
            head.height >= committed,
            "block {committed} was lost, head is {}",
            head.height
        );
        if committed > 0 {
            assert!(head.height <= committed + 1);
        }
        while roots.len() as u64 <= head.height {
            let root = expected.apply(&writes(roots.len() as u64)).unwrap();
            roots.push(root);
        }
        assert_eq!(head.block, block(head.height));
        assert_eq!(head.root, roots[head.height as usize]);
        let view = store.view().unwrap();
        assert_eq!(view.root(), head.root);
        view.verify_all().unwrap();
        if computed > 0 {
            let kept = store
                .computed(block(computed))
                .unwrap()
                .expect("it was on disk before it was told");
            assert_eq!(kept.height, computed);
        }
        stopped_at.push(head.height);
    }
    stopped_at.dedup();
    assert!(
        stopped_at.len() > 10,
        "the child hardly got anywhere: {stopped_at:?}"
    );
    println!(
        "test kill_9_leaves_old_or_new ... ok ({ROUNDS} kills, height {})",
        roots.len() - 1
    );
}
