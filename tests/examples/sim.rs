//! Runs seeds of the simulation: `--seeds N --from S`, `--trace` to show all that happens. The command is
//! `tests/bench/sim`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use instar_tests::sim::{Options, run};

fn main() -> ExitCode {
    let (mut seeds, mut from, mut options) = (1_000, 0, Options::default());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse::<u64>().ok());
        match arg.as_str() {
            "--seeds" => seeds = number().unwrap_or(seeds),
            "--from" => from = number().unwrap_or(from),
            "--trace" => options.trace = true,
            _ => {
                eprintln!("usage: sim [--seeds N] [--from S] [--trace]");
                return ExitCode::from(2);
            }
        }
    }
    let begin = Instant::now();
    let (mut heights, mut events, mut entries, mut cuts) = (0, 0, 0, 0);
    let (mut rounds, mut followed) = (0, 0);
    let (mut refused, mut ended) = (BTreeMap::new(), BTreeMap::new());
    for seed in from..from + seeds {
        match run(seed, options) {
            Ok(s) => {
                heights += s.heights;
                events += s.events;
                entries += s.entries;
                cuts += s.cuts;
                rounds += s.late_rounds;
                followed += s.followed;
                for (rule, times) in s.refused {
                    *refused.entry(rule).or_insert(0) += times;
                }
                for (why, times) in s.ended {
                    *ended.entry(why).or_insert(0) += times;
                }
            }
            Err(failure) => {
                println!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds in {seconds:.1} s ({:.1} seeds/s): {heights} heights, {events} events, {entries} entries, {cuts} \
         power cuts, {rounds} later rounds, {followed} times followed",
        seeds as f64 / seconds
    );
    println!("refused proposals: {refused:?}");
    println!("validators that ended by themselves: {ended:?}");
    ExitCode::SUCCESS
}
