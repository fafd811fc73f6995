//! `delta make OLD NEW DELTA` and `delta apply OLD DELTA NEW`: what `tests/bench/delta.sh` measures. Prints seconds and,
//! for `apply`, the resident memory at its peak in KiB and the processor seconds of the thread that has most to do, which is
//! what an idle machine would take. `delta chunks OLD NEW -` prints the bytes of new blocks.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::time::Instant;

use instar_delta::{Wanted, apply, make};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [verb, old, from, to] = args.as_slice() else {
        return Err("usage: delta make OLD NEW DELTA | delta apply OLD DELTA NEW".into());
    };
    match verb.as_str() {
        "make" => {
            let (old, new) = (fs::read(old)?, fs::read(from)?);
            let start = Instant::now();
            let delta = make(&old, &new)?;
            let seconds = start.elapsed().as_secs_f64();
            // Whoever reads the line goes on at once.
            fs::write(to, &delta)?;
            println!("{seconds:.3} {}", delta.len());
        }
        "apply" => {
            let (old, delta) = (File::open(old)?, File::open(from)?);
            let header = instar_delta::apply::header(&delta)?;
            let wanted = Wanted {
                bytes: header.sizes.new,
                sha256: header.new_sha256,
            };
            let mut out = File::create(to)?;
            let (start, began) = (Instant::now(), processor_seconds()?);
            apply(&old, &delta, wanted, &mut out)?;
            let seconds = start.elapsed().as_secs_f64();
            let busy = processor_seconds()? - began;
            let status = fs::read_to_string("/proc/self/status")?;
            let peak = status
                .lines()
                .find_map(|l| l.strip_prefix("VmHWM:"))
                .unwrap_or("?");
            println!(
                "{seconds:.4} {} {busy:.4}",
                peak.trim().trim_end_matches(" kB")
            );
        }
        "chunks" => {
            let mut known = BTreeSet::new();
            let profile = instar_chunks::Profile::InstarCdcV1;
            instar_chunks::add_file(profile, &mut File::open(old)?, &mut |cid, _| {
                known.insert(*cid);
                Ok(())
            })?;
            let mut fresh = 0;
            instar_chunks::add_file(profile, &mut File::open(from)?, &mut |cid, block| {
                if known.insert(*cid) {
                    fresh += block.len();
                }
                Ok(())
            })?;
            println!("{fresh}");
        }
        _ => return Err("the verbs are make, apply and chunks".into()),
    }
    Ok(())
}

/// What this thread had of a processor.
fn processor_seconds() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: u64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds as f64 / 1e9)
}
