//! `instar upgrader`: the small supervisor, as a verb. `instar-upgrader` is the same code.

use std::path::PathBuf;

use anyhow::Result;
use instar_upgrader::{Config, First, Timings, history, revert, status};

use crate::exit::facts;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Supervise a node: start it, restart it, swap its binary, go back
    Run(Run),
    /// Say what runs and what is under way
    Status(Home),
    /// Say what was swapped and how it ended
    History(Home),
    /// Go back to the last good program
    Revert(Revert),
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar upgrader run --home ~/node -- node run --home ~/node")]
pub struct Run {
    /// The node's home; the upgrader keeps everything in its folder `upgrader`
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    /// The program for a fresh home; a home that has one ignores it
    #[arg(long, value_name = "FILE")]
    first: Option<PathBuf>,
    /// The release that the first program is
    #[arg(long, value_name = "CID", requires = "first")]
    release: Option<String>,
    /// Blocks that a new program must see made final to be kept
    #[arg(long, default_value_t = Timings::default().probation_blocks)]
    probation_blocks: u64,
    /// Milliseconds that it has for it
    #[arg(long, default_value_t = Timings::default().probation_ms)]
    probation_ms: u64,
    /// Stop when the process that started this one ends
    #[arg(long)]
    end_with_parent: bool,
    /// The program's arguments
    #[arg(last = true, required = true)]
    args: Vec<String>,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar upgrader status --home ~/node --json")]
pub struct Home {
    /// The node's home
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar upgrader revert --home ~/node --reason 'the door does not open'"
)]
pub struct Revert {
    /// The node's home
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    /// Why, for the history
    #[arg(long, default_value = "by hand")]
    reason: String,
}

/// The kernel sends SIGTERM when the parent is gone. A parent that is gone already has left this process to another.
fn end_with_parent() -> Result<()> {
    let parent = nix::unistd::getppid();
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
    anyhow::ensure!(
        nix::unistd::getppid() == parent,
        "the process that started this one has ended"
    );
    Ok(())
}

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Run(args) => {
            if args.end_with_parent {
                end_with_parent()?;
            }
            let path = args.first.map_or_else(std::env::current_exe, Ok)?;
            let timings = Timings {
                probation_blocks: args.probation_blocks,
                probation_ms: args.probation_ms,
                ..Timings::default()
            };
            let first = First {
                path,
                release: args.release,
                protocol: crate::release::PROTOCOL,
            };
            Ok(instar_upgrader::run(Config {
                home: args.home,
                args: args.args,
                first,
                timings,
            })?)
        }
        Verb::Status(args) => facts(args.json, &status(&args.home)?, |s| {
            let outcome = s.outcome.as_ref().map_or_else(String::new, |o| {
                let how = if o.kept {
                    "kept".to_owned()
                } else {
                    format!("went back: {}", o.reason)
                };
                format!(
                    "\nlast swap {} (generation {}): {how}",
                    o.release, o.generation
                )
            });
            format!("{} · running {}{outcome}", s.phase, s.running.release)
        }),
        Verb::History(args) => {
            for record in history(&args.home)? {
                facts(args.json, &record, |r| {
                    serde_json::to_string(r).unwrap_or_default()
                })?;
            }
            Ok(())
        }
        Verb::Revert(args) => Ok(revert(&args.home, &args.reason)?),
    }
}
