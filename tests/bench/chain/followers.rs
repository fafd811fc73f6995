//! What followers cost a validator: its processor time at fifty entries a second, alone and with so many that follow it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use instar::demo::stage::Stage;
use instar::demo::traffic::quantile;
use instar_ledger::sync;
use serde_json::{Value, json};

use super::load::{self, Signer, signers, trickle};

/// What is handed over: growth and followers are a matter of the chain, not of a dapp.
const TOPIC: &str = "note";
/// A follower of this benchmark does nothing but wait and read.
const STACK_BYTES: usize = 256 << 10;

/// Processor time that a process has used, in milliseconds.
fn cpu_ms(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // After the name in brackets: user and system time are the 12th and 13th.
    let rest = stat.rsplit_once(')').expect("it has a name").1;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    // SAFETY: a question to the system without arguments in memory.
    ticks * 1000.0 / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
}

/// One part: milliseconds of processor time a block, the median latency, and how many blocks there were.
fn part(stage: &Stage<'_>, signers: &mut [Signer]) -> (f64, f64, u64) {
    let status = || stage.clients[0].status().expect("the node answers");
    let before = status();
    let cpu_before = cpu_ms(before.pid);
    let part = load::part(stage, signers, trickle, TOPIC);
    let (cpu, blocks) = (
        cpu_ms(before.pid) - cpu_before,
        status().height - before.height,
    );
    (cpu / blocks as f64, quantile(&part.times, 0.5), blocks)
}

/// The report.
pub fn measure(stage: &Stage<'_>, followers: u64) -> Value {
    let mut signers = signers(stage.chain);
    stage.talk.title("Nobody follows");
    let (alone_ms, alone_p50, _) = part(stage, &mut signers);
    stage.talk.title(&format!("{followers} follow"));
    let stop = Arc::new(AtomicBool::new(false));
    let (read, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let from = stage.height().expect("it answers") + 1;
    let threads: Vec<_> = (0..followers)
        .map(|_| {
            let url = stage.validators[0].url();
            let (stop, read, asked) = (Arc::clone(&stop), Arc::clone(&read), Arc::clone(&asked));
            let follow = move || {
                let agent = ureq::Agent::new_with_defaults();
                let mut height = from;
                while !stop.load(Ordering::Relaxed) {
                    let url = format!("{url}/v1/sync/{height}?wait_ms=1000");
                    let Ok(mut answer) = agent.get(&url).call() else {
                        continue;
                    };
                    let bytes = answer.body_mut().read_to_vec().expect("an answer");
                    let blocks = sync::read(&bytes).expect("whole blocks").len() as u64;
                    height += blocks;
                    read.fetch_add(blocks, Ordering::Relaxed);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            };
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn(follow).expect("a thread")
        })
        .collect();
    let (with_ms, with_p50, blocks) = part(stage, &mut signers);
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a follower reads to the end");
    }
    let round = |ms: f64| (ms * 100.0).round() / 100.0;
    json!({
        "followers": followers,
        "cpu_ms_a_block": {"alone": round(alone_ms), "followed": round(with_ms)},
        "cpu_us_a_follower_and_block": round((with_ms - alone_ms) * 1000.0 / followers as f64),
        "final_ms_p50": {"alone": alone_p50.round(), "followed": with_p50.round()},
        "blocks": blocks,
        "blocks_read_by_each": read.load(Ordering::Relaxed) / followers,
        "blocks_an_answer": round(read.load(Ordering::Relaxed) as f64 / asked.load(Ordering::Relaxed) as f64),
    })
}
