//! How the parameters of `instar-cdc-v1` were chosen: for each candidate, what a second version of
//! the same content costs, how many blocks there are, and how fast it cuts. Takes pairs of files.
//!
//! `cargo run --release -p instar-chunks --example measure -- OLD NEW [OLD NEW]…`

use std::collections::HashSet;
use std::time::Instant;

use fastcdc::v2020::{FastCDC, Normalization};
use sha2::{Digest, Sha256};

/// What a block costs beside its content, about: its link, its key in the store, its request.
const BLOCK_OVERHEAD_BYTES: usize = 200;

fn main() -> Result<(), std::io::Error> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    for pair in files.chunks_exact(2) {
        let (old, new) = (std::fs::read(&pair[0])?, std::fs::read(&pair[1])?);
        println!("{} -> {} ({} bytes)", pair[0], pair[1], new.len());
        for (min, avg, max) in [
            (4, 16, 64),
            (8, 32, 128),
            (8, 32, 256),
            (16, 64, 256),
            (16, 64, 512),
            (32, 128, 512),
            (32, 128, 1024),
            (64, 256, 1024),
        ] {
            for level in [
                Normalization::Level1,
                Normalization::Level2,
                Normalization::Level3,
            ] {
                let cut = |data: &[u8]| -> (HashSet<[u8; 32]>, usize, usize, f64) {
                    let started = Instant::now();
                    let chunks: Vec<_> =
                        FastCDC::with_level(data, min * 1024, avg * 1024, max * 1024, level)
                            .collect();
                    let seconds = started.elapsed().as_secs_f64();
                    let mut set = HashSet::new();
                    let mut bytes = 0;
                    for c in &chunks {
                        if set.insert(Sha256::digest(&data[c.offset..c.offset + c.length]).into()) {
                            bytes += c.length;
                        }
                    }
                    (set, bytes, chunks.len(), seconds)
                };
                let (old_set, ..) = cut(&old);
                let (_, _, count, seconds) = cut(&new);
                let mut fresh = (0, 0);
                let mut seen = old_set;
                for c in FastCDC::with_level(&new, min * 1024, avg * 1024, max * 1024, level) {
                    let digest = Sha256::digest(&new[c.offset..c.offset + c.length]).into();
                    if seen.insert(digest) {
                        fresh = (fresh.0 + 1, fresh.1 + c.length);
                    }
                }
                println!(
                    "  {min:>3}/{avg:>3}/{max:>4} KiB {level:?}: {count:>6} blocks, second version {:>6.2} % \
                     ({} blocks; with overhead {:>6.2} %), cuts {:>5.0} MB/s",
                    100.0 * fresh.1 as f64 / new.len() as f64,
                    fresh.0,
                    100.0 * (fresh.1 + fresh.0 * BLOCK_OVERHEAD_BYTES + count * 50) as f64
                        / new.len() as f64,
                    new.len() as f64 / seconds / 1e6,
                );
            }
        }
    }
    Ok(())
}
