//! SIGKILL in the middle of writing: what was acknowledged is there, and git finds the repository whole.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use instar_ledger::Store;
use support::*;

/// The child's folder; set only when this program runs itself as the child.
const CHILD: &str = "INSTAR_LEDGER_CRASH_CHILD";

/// Appends, makes blocks and finalizes for ever, and says what was acknowledged.
#[test]
fn child_that_is_killed() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let mut store = Store::open_with(&repo_path(&dir, 0), &options(&dir, 0)).unwrap();
    let chain = *store.chain();
    for nonce in 0.. {
        let entry = transfer(&chain, 0, nonce);
        let commit = store
            .append_lane(&key("lane", 0), &lane_of(0), &[entry], TIME_MS / 1000)
            .unwrap();
        println!("\nlane {} {}", commit.seq, commit.id);
        // Lanes are merged every third commit, and the store is flushed at odd moments.
        if commit.seq.is_multiple_of(3) {
            let merged = store.lane_range(&commit.id, last_merged(&store)).unwrap();
            let merged = merged.iter().map(|id| store.lane_commit(id).unwrap());
            let draft = draft(&store, &[merged.collect()]);
            let block = store.write_block(&draft).unwrap();
            let certificate = certificate(&chain, draft.header.height, 0, block);
            store.finalize(&block, &certificate).unwrap();
            println!("\nfinal {} {block}", draft.header.height);
        }
        if commit.seq.is_multiple_of(5) {
            store.flush().unwrap();
        }
    }
}

fn last_merged(store: &Store) -> u64 {
    let (height, head) = store.head();
    if height == 0 {
        return 0;
    }
    store.read_block(&head).unwrap().header.lanes[0].to
}

#[test]
fn killed_while_it_writes() {
    let net = Net::new(1);
    let dir = net.dir;
    drop(net.stores);
    let (mut lane, mut last) = ((0, String::new()), (0, String::new()));
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, receive) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        // Killed at another moment each time, and never before it has said something.
        let mut lines = Vec::new();
        while lines.len() < 16 {
            lines.push(receive.recv_timeout(Duration::from_secs(60)).unwrap());
        }
        std::thread::sleep(Duration::from_millis(round * 7));
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
        lines.extend(receive.try_iter());
        let before = lane.0;
        for line in &lines {
            let words: Vec<_> = line.split(' ').collect();
            if let [what, number, id] = words[..]
                && id.len() == 64
            {
                let number: u64 = number.parse().unwrap();
                let place = if what == "lane" { &mut lane } else { &mut last };
                assert!(number > place.0, "{what} {number} was said twice");
                *place = (number, id.to_owned());
            }
        }
        assert!(lane.0 > before, "nothing in round {round}: {lines:?}");

        let repo = repo_path(dir.path(), 0);
        let store = Store::open_with(&repo, &options(dir.path(), 0)).unwrap();
        let (head, seq) = store.lane_head(&lane_of(0)).unwrap();
        // At most one commit more than was said: it was durable, and killed before it could say so.
        assert!(
            (lane.0..=lane.0 + 1).contains(&seq),
            "{seq} after {}",
            lane.0
        );
        let at = store.lane_commit_at(&head, lane.0).unwrap().unwrap();
        assert_eq!(at.to_hex(), lane.1);
        let (height, _) = store.head();
        assert!(
            (last.0..=last.0 + 1).contains(&height),
            "{height} after {}",
            last.0
        );
        if last.0 > 0 {
            assert_eq!(store.block_at(last.0).unwrap().to_hex(), last.1);
        }
        lane.0 = seq;
        last.0 = height;
        let said = git(&repo, &["fsck", "--strict", "--full"]).unwrap();
        assert!(
            !said.contains("error") && !said.contains("missing"),
            "{said}"
        );
    }
    assert!(last.0 > 3, "no block became final");
}
