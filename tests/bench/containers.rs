//! What a container costs: one is made, runs a program that does nothing, and ends, again and again, as with every block of
//! a chain that has a dapp. The last line is JSON; times are of all processors, whoever used them.

#![allow(
    clippy::expect_used,
    reason = "a benchmark stops at the first surprise"
)]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use instar_sandbox::{
    Job, Limits, Mount, Profile, Root, Running, Sandbox, SandboxError, Stream, spawn,
};

/// Before anything is counted.
const WARM_UP: u32 = 20;

fn main() {
    instar_sandbox::init();
    let count: u32 = std::env::args()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(500);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().canonicalize().expect("it is there");
    nothing(&root);
    for folder in ["tmp", "proc", "dev"] {
        std::fs::create_dir(root.join(folder)).expect("a folder");
    }
    let job = job(&root);
    let alone = measure(count, || run(|| spawn(&job)));
    let sandbox = Sandbox::new(&job, 1).expect("a sandbox");
    let shared = measure(count, || run(|| sandbox.spawn()));
    let peer = measure(count, || bubblewrap(&root));
    println!(
        "{}",
        serde_json::json!({ "containers": count, "alone": alone, "in_one_sandbox": shared, "bubblewrap": peer })
    );
}

/// `one` gives the milliseconds until its container runs.
fn measure(count: u32, one: impl Fn() -> f64) -> serde_json::Value {
    for _ in 0..WARM_UP {
        one();
    }
    let (busy, clock) = (busy_ms(), Instant::now());
    let mut started_ms: Vec<f64> = (0..count).map(|_| one()).collect();
    let wall_ms = clock.elapsed().as_secs_f64() * 1000.0 / f64::from(count);
    let cpu_ms = (busy_ms() - busy) / f64::from(count);
    started_ms.sort_by(f64::total_cmp);
    serde_json::json!({
        "cpu_ms_each": round(cpu_ms),
        "wall_ms_each": round(wall_ms),
        "start_ms_p50": round(started_ms[started_ms.len() / 2]),
    })
}

/// A program that links to nothing and does nothing.
fn nothing(root: &Path) {
    let source = root.join("nothing.c");
    std::fs::write(&source, "int main(void) { return 0; }\n").expect("a source");
    let compiled = Command::new("cc")
        .args(["-static", "-O2", "-o"])
        .arg(root.join("nothing"))
        .arg(&source)
        .status();
    assert!(compiled.expect("a C compiler").success(), "cc fails");
}

fn job(root: &Path) -> Job {
    Job {
        root: Root::Folder(root.to_path_buf()),
        mounts: vec![Mount::tmpfs("/tmp", 4 << 20)],
        argv: vec!["/nothing".to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        hostname: "bench".to_owned(),
        limits: Limits {
            memory_bytes: 128 << 20,
            address_space_bytes: None,
            pids: 16,
            cpu_s: Some(10),
            cpu_percent: None,
            wall_ms: 10_000,
            file_bytes: 4 << 20,
            open_files: 64,
        },
        profile: Profile::Dapp,
        stdin: Stream::Pipe,
        stdout: Stream::Pipe,
        stderr: Stream::Pipe,
    }
}

/// The milliseconds until it runs.
fn run(spawn: impl Fn() -> Result<Running, SandboxError>) -> f64 {
    let clock = Instant::now();
    let mut running = spawn().expect("a container");
    let started = clock.elapsed();
    assert!(running.wait().expect("its end").success());
    started.as_secs_f64() * 1000.0
}

/// The same view of the same root, without cgroups, filters or limits; it runs until it ends, as far as can be seen.
fn bubblewrap(root: &Path) -> f64 {
    let clock = Instant::now();
    let status = Command::new("bwrap")
        .args(["--unshare-all", "--die-with-parent", "--ro-bind"])
        .arg(root)
        .args(["/", "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev"])
        .arg("/nothing")
        .status();
    let status = status.expect("bubblewrap (Debian: apt-get install bubblewrap)");
    assert!(status.success(), "bwrap fails");
    clock.elapsed().as_secs_f64() * 1000.0
}

/// What all processors of this machine have done so far.
fn busy_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("a Linux machine");
    let line = stat.lines().next().expect("the first line is of all");
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|number| number.parse().ok())
        .collect();
    // user, nice, system, then idle and waiting, then interrupts, soft and hard.
    let busy: f64 = ticks[..3].iter().chain(&ticks[5..7]).sum();
    // SAFETY: a question to the system without arguments in memory.
    busy * 1000.0 / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
