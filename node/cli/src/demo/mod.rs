//! `instar demo`: a whole baby chain on this machine, upgraded end to end while a client uses it.
//!
//! Every step uses what a real chain uses: processes, keys, containers, git, consensus. What was not done is not claimed.

mod audit;
pub mod chain;
pub mod coin;
mod node_upgrade;
mod repo;
pub mod report;
pub mod runner;
pub mod stage;
mod stop;
mod story;
pub mod traffic;
pub mod validators;
pub mod wait;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::exit::facts;
use report::Report;

/// How many validators the chain has: the fewest that survive one fault.
pub const VALIDATORS: usize = 4;

/// The demo's arguments.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  instar demo\n  instar demo --keep --home ~/baby\n  instar demo --json | tail -n 1"
)]
pub struct Args {
    /// Print the report as JSON, as the last line of standard output
    #[arg(long)]
    json: bool,
    /// Leave the chain running at the end and print the commands to play with it
    #[arg(long)]
    keep: bool,
    /// The folder of the chain; a new temporary one by default, removed at the end
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Build the node's release hermetically on all four runners: takes many minutes
    #[arg(long)]
    full: bool,
    /// Leave out the upgrade of the node's own binary
    #[arg(long)]
    no_node: bool,
}

/// Progress for people, on standard error, with the time since the start.
pub struct Talk {
    start: Instant,
}

impl Default for Talk {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Talk {
    /// A new part of the story.
    pub fn title(&self, text: &str) {
        eprintln!("\n{:>6.1} s  {text}", self.start.elapsed().as_secs_f64());
    }
    /// Something that happened.
    pub fn say(&self, text: impl std::fmt::Display) {
        eprintln!("{:>6.1} s    {text}", self.start.elapsed().as_secs_f64());
    }
    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

/// Runs the demo.
pub fn run(args: &Args) -> Result<()> {
    let talk = Talk::default();
    for finding in crate::verbs::doctor::examine() {
        if finding.needed && !finding.ok {
            bail!("{} is missing: {}", finding.what, finding.detail);
        }
    }
    stop::watch()?;
    let temporary;
    let home = match &args.home {
        Some(home) => {
            if home.exists() && std::fs::read_dir(home)?.next().is_some() {
                bail!(
                    "{} is not empty; the demo makes a new chain and overwrites nothing, name another folder",
                    home.display()
                );
            }
            std::fs::create_dir_all(home)
                .with_context(|| format!("{} can't be made", home.display()))?;
            home.canonicalize()?
        }
        None => {
            temporary = tempfile::Builder::new().prefix("instar-demo-").tempdir()?;
            let path = temporary.path().canonicalize()?;
            if args.keep {
                let _ = temporary.keep();
                path
            } else {
                // Removed when `temporary` goes out of scope, after the processes are stopped.
                let report = story::tell(args, &talk, &path)
                    .with_context(|| "the demo did not do all that it claims")?;
                return finish(args, &report);
            }
        }
    };
    let report = story::tell(args, &talk, &home).with_context(|| {
        format!(
            "the demo did not do all that it claims; its folder is {}",
            home.display()
        )
    })?;
    finish(args, &report)
}

fn finish(args: &Args, report: &Report) -> Result<()> {
    facts(args.json, report, summary)
}

fn summary(r: &Report) -> String {
    let t = &r.transfers;
    let mut lines = vec![
        String::new(),
        format!(
            "A baby chain of {} validators, {} blocks in {:.0} s. Sandbox: {}.",
            r.validators, r.height, r.seconds, r.sandbox
        ),
        format!(
            "Transfers: {} sent, {} final, {} rejected; final after {} ms (median), {} ms (p99), compilers running beside.",
            t.sent, t.applied, t.rejected, t.final_ms_p50, t.final_ms_p99
        ),
    ];
    for u in &r.upgrades {
        lines.push(format!(
            "Upgraded {}: {} builders matched ({}), {} yes, {} no, live at height {}; longest gap {} ms (p99 before: {} ms), {} second rounds, {} absent precommits; {:.0} s from commit to live.",
            u.slot,
            u.builders_matched,
            if u.hermetic { "hermetic, built twice each" } else { "from a warm target folder, not hermetic" },
            u.votes.yes,
            u.votes.no,
            u.activated_at,
            u.gap_ms,
            u.gap_ms_before_p99,
            u.rounds_over_0,
            u.absent_signatures,
            u.seconds_from_commit
        ));
        lines.push(format!("    {} → {}", u.from, u.to));
    }
    for f in &r.refused {
        lines.push(format!(
            "Refused {}: {} ({}), says {}",
            f.release, f.rule, f.detail, f.entry
        ));
    }
    lines.push(format!(
        "Killed {} with SIGKILL: back in the round after {:.1} s.",
        r.killed.validator, r.killed.seconds
    ));
    lines.push(format!(
        "Audit from a stock git clone: fsck --strict clean, {} lane commits pass git verify-commit, {} steps of custody verified.",
        r.audit.lane_commits_verified, r.audit.steps
    ));
    for what in &r.left_out {
        lines.push(format!("Left out: {what}"));
    }
    lines.join("\n")
}
