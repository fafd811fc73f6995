//! The supervised program, in all its moods.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use instar_upgrader::Reporter;
use instar_upgrader::wire::Health;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigHandler, Signal, signal};

const TICK: Duration = Duration::from_millis(10);

pub fn main(mode: &str, home: &Path) {
    // A disk that is full is an error and no signal; to the test it is a limit, which would be one.
    // SAFETY: ignoring a signal runs no code.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn).unwrap() };
    // What a node's database does: two at once can't be.
    let lock = File::create(home.join("database.lock")).unwrap();
    let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
        return note(home, "overlap");
    };
    if mode.starts_with("stubborn") || mode == "hang" {
        // SAFETY: ignoring a signal runs no code.
        unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn).unwrap() };
    }
    note(home, mode);
    match mode {
        "crash" => std::process::exit(7),
        "stubborn-crash" => {
            std::thread::sleep(Duration::from_millis(300));
            std::process::exit(7);
        }
        // Long enough in probation to be met there.
        "late" => std::thread::sleep(Duration::from_millis(400)),
        "hang" => loop {
            std::thread::park();
        },
        _ => {}
    }
    let height = Arc::new(AtomicU64::new(100));
    let seen = height.clone();
    let peers = if mode == "lonely" { 0 } else { 3 };
    let report = move || Health {
        height: seen.load(Ordering::Relaxed),
        peers,
    };
    let reporter = Reporter::start(TICK, report).unwrap();
    let began = Instant::now();
    while mode != "falls-silent" || began.elapsed() < Duration::from_millis(200) {
        std::thread::sleep(TICK);
        if mode != "stuck" {
            height.fetch_add(1, Ordering::Relaxed);
        }
        if mode == "dies-later" && began.elapsed() > Duration::from_millis(200) {
            std::process::exit(3);
        }
    }
    drop(reporter);
    loop {
        std::thread::park();
    }
}

fn note(home: &Path, what: &str) {
    let line = format!("{what} {}\n", std::process::id());
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(home.join("runs"));
    // One of the tests fills the disk.
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}
