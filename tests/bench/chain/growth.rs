//! What a chain costs as it grows: how long an entry takes and what the node's memory is after ten thousand entries, after ten
//! times as many, and so on; then a restart, a node that joins late and replays everything, a clone, and its verification.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use instar::client::Client;
use instar::demo::stage::Stage;
use instar::demo::traffic::quantile;
use instar::demo::wait;
use serde_json::{Value, json};

use super::load::{self, signers, trickle};

/// Where it is measured first, and the last stretch before each point.
const FIRST: u64 = 10_000;
/// What is handed over, and changes nothing: growth is a matter of the chain, not of a dapp.
const TOPIC: &str = "note";
/// How long a chain of a million entries may take for anything.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How often memory is looked at.
const EACH: Duration = Duration::from_millis(250);
/// After this long without entries a node has nothing left of what it keeps for a time: the ids of messages, for a minute.
const REST: Duration = Duration::from_secs(70);
/// After this long without entries a node counts as idle.
const IDLE: Duration = Duration::from_secs(20);

/// Resident memory of a process in MiB: its own, and what it has mapped of files, which the kernel takes back at will.
fn resident_mib(pid: u32) -> Value {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| (kib / 102.4).round() / 10.0)
    };
    json!({"all": of("VmRSS:"), "own": of("RssAnon:"), "files": of("RssFile:")})
}

fn node_mib(client: &Client) -> Value {
    resident_mib(pid_of(client))
}

fn pid_of(client: &Client) -> u32 {
    client.status().expect("the node answers").pid
}

/// A node's own memory in MiB while something goes on, each quarter of a second.
fn own_mib_during<T>(pid: u32, what: impl FnOnce() -> T) -> (T, Vec<f64>) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                seen.extend(resident_mib(pid)["own"].as_f64());
                std::thread::sleep(EACH);
            }
            seen
        });
        let done = what();
        ended.store(true, Ordering::Relaxed);
        (done, watch.join().expect("it only reads a file"))
    })
}

fn most(seen: &[f64]) -> f64 {
    seen.iter().copied().fold(0.0, f64::max)
}

fn seconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 100.0).round() / 100.0
}

fn run(program: &str, args: &[&str]) -> f64 {
    let start = Instant::now();
    let status = Command::new(program)
        .args(args)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdout(Stdio::null())
        .status()
        .expect("it starts");
    assert!(status.success(), "{program} {args:?} ended with {status}");
    seconds(start)
}

/// Size of a folder in MiB, by what it takes of the disk.
fn mib(path: &std::path::Path) -> f64 {
    let output = Command::new("du").arg("-sk").arg(path).output();
    let text = String::from_utf8(output.expect("du is there").stdout).expect("it is text");
    let kib: f64 = text
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .expect("du says a number");
    (kib / 102.4).round() / 10.0
}

/// The report.
pub fn measure(stage: &mut Stage<'_>, entries: u64) -> Value {
    std::thread::sleep(IDLE);
    let idle_fresh = node_mib(&stage.clients[0]);
    let mut signers = signers(stage.chain);
    let (mut done, mut goal) = (0u64, FIRST.min(entries));
    let mut points = Vec::new();
    let start = Instant::now();
    loop {
        stage.talk.title(&format!("{goal} entries"));
        let pid = pid_of(&stage.clients[0]);
        let mut fill = |stage: &mut Stage<'_>, want: u64| {
            own_mib_during(pid, || {
                load::part(
                    stage,
                    &mut signers,
                    |book, stage, signers, topic| {
                        load::fill(book, stage, signers, topic, |handed| handed < want);
                    },
                    TOPIC,
                )
            })
        };
        // What a chain costs by its size is asked, not what minutes under full load leave behind for some seconds: before
        // each point it rests, and has the same last stretch behind it.
        let mut most_filling = 0.0;
        if goal - done > FIRST {
            most_filling = most(&fill(stage, goal - done - FIRST).1);
            std::thread::sleep(REST);
        }
        let (full, filling) = fill(stage, FIRST.min(goal - done));
        let (slow, own) = own_mib_during(pid, || load::part(stage, &mut signers, trickle, TOPIC));
        // What filling left behind is gone in the second half: messages are kept for twenty seconds.
        let own = &own[own.len() / 2..];
        let mut resident = node_mib(&stage.clients[0]);
        resident["own"] = quantile(own, 0.5).into();
        resident["own_most"] = most(own).into();
        resident["own_most_filling"] = most(&filling).max(most_filling).into();
        done = goal;
        points.push(json!({
            "entries": done,
            "final_ms_p50_at_50": quantile(&slow.times, 0.5).round(),
            "ms_a_block_at_50": slow.spent_ms,
            "ms_a_block_filling": full.spent_ms,
            "resident_mib": resident,
            "seconds_so_far": seconds(start).round(),
        }));
        if done >= entries {
            break;
        }
        goal = (goal * 10).min(entries);
    }
    let height = stage.height().expect("it answers");
    let back = restart(stage, &mut signers);
    std::thread::sleep(IDLE);
    let idle = node_mib(&stage.clients[0]);
    json!({
        "entries": done,
        "blocks": height,
        "points": points,
        "idle_mib": {"fresh": idle_fresh, "grown": idle},
        "restart_s": back,
        "join_archive": catch_up(stage),
        "readers": readers(stage, done),
    })
}

/// Kills the node, starts it again, and hands it an entry: how long until it answers, and until that entry is final.
fn restart(stage: &mut Stage<'_>, signers: &mut [load::Signer]) -> Value {
    stage.talk.title("A restart");
    stage.validators[0].stop();
    let (program, release) = (stage.program.clone(), stage.first_node.clone());
    let start = Instant::now();
    stage.validators[0]
        .start(&program, &release)
        .expect("it starts");
    stage.validators[0].wait_ready().expect("it answers");
    let answers = seconds(start);
    let client = &stage.clients[0];
    let before = client.status().expect("it answers").height;
    client
        .submit(&signers[0].next(TOPIC).to_line())
        .expect("it takes an entry");
    wait::until("the next block", PATIENCE, || {
        Ok((client.status()?.height > before).then_some(()))
    })
    .expect("it goes on");
    json!({"answers": answers, "next_block": seconds(start)})
}

/// A node that joins by replaying everything from genesis.
fn catch_up(stage: &Stage<'_>) -> Value {
    stage.talk.title("A node joins, and replays everything");
    let home = stage.home.join("late");
    let home = home.to_string_lossy();
    let url = stage.validators[0].url();
    let chain = stage.chain.to_string();
    let program = stage.program.to_string_lossy();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let http = listener.local_addr().expect("it has one").to_string();
    drop(listener);
    let words = ["chain", "join", &url, "--id", &chain, "--name", "late"];
    let more = ["--archive", "--http", &http, "--home", &home];
    run(&program, &[&words[..], &more].concat());
    let goal = stage.height().expect("it answers");
    let start = Instant::now();
    let mut node = Ended(
        Command::new(&stage.program)
            .args(["node", "run", "--home", &home])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts"),
    );
    let client = Client::new(&format!("http://{http}"), None);
    wait::until("the late node catching up", PATIENCE, || {
        Ok(client
            .status()
            .is_ok_and(|s| s.height >= goal)
            .then_some(()))
    })
    .expect("it catches up");
    let took = seconds(start);
    let resident = resident_mib(node.0.id());
    let _ = node.0.kill();
    let per_second = (goal as f64 / took).round();
    json!({"seconds": took, "blocks_per_second": per_second, "resident_mib": resident})
}

/// A process that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A clone from the node, its verification, and plain git over the same objects.
fn readers(stage: &Stage<'_>, entries: u64) -> Value {
    stage.talk.title("A clone, and what plain git makes of it");
    let ledger = stage.validators[0].home.ledger();
    let (clone, plain) = (stage.home.join("clone.git"), stage.home.join("plain.git"));
    let (clone_text, plain_text) = (clone.to_string_lossy(), plain.to_string_lossy());
    let url = format!("{}/ledger.git", stage.validators[0].url());
    let cloned = run("git", &["clone", "-q", "--bare", &url, &clone_text]);
    let program = stage.program.to_string_lossy();
    let work = stage.home.join("verify");
    let work = work.to_string_lossy();
    let verify = ["chain", "verify", &clone_text, "--work", &work];
    let verified = run(&program, &verify);
    let node_mib = mib(&ledger.join("objects"));
    let gc = run("git", &["-C", &clone_text, "gc", "-q", "--prune=now"]);
    let gc_mib = mib(&clone.join("objects"));
    let from = format!("file://{clone_text}");
    let plain_clone = run("git", &["clone", "-q", "--bare", &from, &plain_text]);
    json!({
        "clone_s": cloned,
        "plain_clone_s": plain_clone,
        "clone_ratio": (cloned / plain_clone * 100.0).round() / 100.0,
        "ledger_mib": node_mib,
        "git_gc_mib": gc_mib,
        "git_gc_s": gc,
        "size_ratio": (node_mib / gc_mib * 100.0).round() / 100.0,
        "verify_s": verified,
        "verify_entries_per_second": (entries as f64 / verified).round(),
    })
}
