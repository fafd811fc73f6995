//! What cutting costs, beside what this machine can do at all: MB/s of cutting alone, of cutting with SHA-256 and of the
//! whole address on all cores, next to `memcpy` and one-core SHA-256 over the same bytes. `tests/bench/cut.sh` runs it.
//! What runs on one core is measured by that core's time, so that other work beside counts little; the last row is what a
//! clock on the wall says.
//!
//! `cargo run --release -p instar-chunks --example cut -- FILE…`: of all files together at most 256 MiB.

use std::hint::black_box;
use std::io::Read as _;
use std::time::Instant;

use instar_chunks::Profile;
use instar_chunks::block::{RAW, cid_of};
use instar_chunks::import::{Content, ImportOptions, only_cid};
use sha2::{Digest, Sha256};

/// More than any cache holds, and quick.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// The best of so many runs counts: what else the machine does is no property of the code.
const RUNS: usize = 5;
const ALL_CORES: &str = "only-cid";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut content = Vec::new();
    for path in std::env::args().skip(1) {
        let left = MAX_BYTES - content.len() as u64;
        std::fs::File::open(path)?
            .take(left)
            .read_to_end(&mut content)?;
    }
    if content.is_empty() {
        return Err("usage: cut FILE…".into());
    }
    let profile = Profile::InstarCdcV1;
    let mut copy = vec![1; content.len()];
    let rows: [(&str, &mut dyn FnMut()); 5] = [
        ("memcpy", &mut || {
            copy.copy_from_slice(&content);
            black_box(&copy);
        }),
        ("sha256", &mut || {
            black_box(Sha256::digest(&content));
        }),
        ("cut", &mut || {
            each(profile, &content, |chunk| {
                black_box(chunk.len());
            })
        }),
        ("cut+sha256", &mut || {
            each(profile, &content, |chunk| {
                black_box(cid_of(RAW, chunk));
            })
        }),
        (ALL_CORES, &mut || {
            let mut stream = content.as_slice();
            black_box(only_cid(Content::Stream(&mut stream), &ImportOptions::default()).ok());
        }),
    ];
    let (mut memcpy, mut sha256) = (0.0, 0.0);
    println!(
        "{:<12} {:>8} {:>10} {:>10}",
        "what", "MB/s", "of memcpy", "of sha256"
    );
    for (name, run) in rows {
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let (started, busy) = (Instant::now(), processor_seconds()?);
            run();
            let seconds = match name {
                ALL_CORES => started.elapsed().as_secs_f64(),
                _ => processor_seconds()? - busy,
            };
            best = best.min(seconds);
        }
        let speed = content.len() as f64 / best / 1e6;
        match name {
            "memcpy" => memcpy = speed,
            "sha256" => sha256 = speed,
            _ => {}
        }
        let share = |of: f64| match of {
            0.0 => String::new(),
            of => format!("{:.3}", speed / of),
        };
        println!(
            "{name:<12} {speed:>8.0} {:>10} {:>10}",
            share(memcpy),
            share(sha256)
        );
    }
    Ok(())
}

/// What this thread had of a processor.
fn processor_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: u64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds as f64 / 1e9)
}

fn each(profile: Profile, content: &[u8], mut chunk: impl FnMut(&[u8])) {
    let mut rest = content;
    while !rest.is_empty() {
        let (first, after) = rest.split_at(profile.cut(rest));
        chunk(first);
        rest = after;
    }
}
