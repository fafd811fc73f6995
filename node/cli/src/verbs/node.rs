//! `instar node`: run a node.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use instar_node::rehearse::{Rehearsal, rehearse};
use instar_node::run::{NodeOptions, run as run_node};

use crate::exit::facts;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Run a node until it is told to stop
    Run(Run),
    /// Run past blocks with a new release on a fork of the state; the node calls this
    #[command(hide = true)]
    Rehearse(Rehearse),
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar node run --home ~/my-node\nFor unattended upgrades: instar upgrader run --home ~/my-node -- node run --home ~/my-node"
)]
pub struct Run {
    /// The node's home folder
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
}

#[derive(clap::Args)]
pub struct Rehearse {
    #[arg(long)]
    snapshot: PathBuf,
    #[arg(long)]
    ledger: PathBuf,
    #[arg(long)]
    images: PathBuf,
    #[arg(long)]
    blocks: PathBuf,
    #[arg(long)]
    from: u64,
    #[arg(long)]
    to: u64,
    #[arg(long)]
    slot: String,
    #[arg(long)]
    release: String,
}

/// Runs the verb.
pub fn run(verb: Verb, codename: &str) -> Result<()> {
    match verb {
        Verb::Run(args) => {
            instar_node::log::init();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .worker_threads(2)
                .build()?;
            let result = runtime.block_on(run_node(NodeOptions {
                home: args.home,
                codename: codename.trim().to_owned(),
            }));
            // Loops that wait for ever are not waited for.
            runtime.shutdown_background();
            result.context("the node ended")
        }
        Verb::Rehearse(args) => {
            let what = Rehearsal {
                snapshot: args.snapshot,
                ledger: args.ledger,
                images: args.images,
                blocks: args.blocks,
                from: args.from,
                to: args.to,
                slot: args.slot,
                release: args.release,
            };
            facts(true, &rehearse(&what)?, |_| String::new())
        }
    }
}
