//! `delta make OLD NEW DELTA` and `delta apply OLD DELTA NEW`: what `tests/bench/delta.sh` measures. Prints seconds and,
//! for `apply`, the resident memory at its peak in KiB. `delta chunks OLD NEW -` prints the bytes of new blocks.

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
            println!("{:.3} {}", start.elapsed().as_secs_f64(), delta.len());
            fs::write(to, delta)?;
        }
        "apply" => {
            let (old, delta) = (File::open(old)?, File::open(from)?);
            let header = instar_delta::apply::header(&delta)?;
            let wanted = Wanted {
                bytes: header.sizes.new,
                sha256: header.new_sha256,
            };
            let mut out = File::create(to)?;
            let start = Instant::now();
            apply(&old, &delta, wanted, &mut out)?;
            let seconds = start.elapsed().as_secs_f64();
            let status = fs::read_to_string("/proc/self/status")?;
            let peak = status
                .lines()
                .find_map(|l| l.strip_prefix("VmHWM:"))
                .unwrap_or("?");
            println!("{seconds:.4} {}", peak.trim().trim_end_matches(" kB"));
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
