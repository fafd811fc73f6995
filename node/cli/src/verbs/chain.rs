//! `instar chain`: look at a chain through a node.

mod light;
mod prove;
mod verify;

use anyhow::Result;
use instar_ledger::ReceiptLine;
use instar_node::api::types::{Role, Status};

use super::NodeArgs;
use crate::exit::facts;

/// Blocks that `log` shows unless asked for more.
const DEFAULT_LOG: u64 = 10;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Make a chain's genesis from what its operators agreed on, and a home that has it
    Init(super::init::Args),
    /// Begin a chain of its own on a block of another one, with its history and its dapps' state
    Fork(super::fork::Args),
    /// Move that a fork of the chain be merged back, or check such a motion
    MergeFork(super::govern::fork::Args),
    /// Make a home that follows a chain, from any node of it and the chain's id
    Join(super::join::Args),
    /// Say where the chain stands
    Status(StatusArgs),
    /// Show the newest blocks
    Log(LogArgs),
    /// Check a clone: every byte, signature, certificate, receipt and state root, from genesis on; offline
    Verify(verify::Args),
    /// Check one header by the certified changes of the validator set, without a clone
    Light(light::Args),
    /// Prove what the state says of a key, in a file that anybody can check offline
    Prove(prove::Prove),
    /// Check a file that `prove` wrote; offline
    CheckProof(prove::Check),
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar chain status --node http://127.0.0.1:8080 --json")]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar chain log -n 3")]
pub struct LogArgs {
    /// How many blocks
    #[arg(short, default_value_t = DEFAULT_LOG)]
    n: u64,
    /// Print JSON, one block a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Init(args) => super::init::run(&args),
        Verb::Fork(args) => super::fork::run(&args),
        Verb::MergeFork(args) => super::govern::fork::run(&args),
        Verb::Join(args) => super::join::run(&args),
        Verb::Status(args) => facts(args.json, &args.node.client()?.status()?, words),
        Verb::Log(args) => log(&args),
        Verb::Verify(args) => verify::run(&args),
        Verb::Light(args) => light::run(&args),
        Verb::Prove(args) => prove::prove(&args),
        Verb::CheckProof(args) => prove::check(&args),
    }
}

fn words(s: &Status) -> String {
    let mut text = format!(
        "chain    {}\nheight   {} ({})\nnode     {} ({}) \"{}\", pid {}\nrelease  {}\npeers    {} on the data swarm\npending  {} entries",
        s.chain,
        s.height,
        s.head,
        s.name,
        s.role,
        s.codename,
        s.pid,
        s.release.as_deref().unwrap_or("not supervised"),
        s.data_peers,
        s.pending
    );
    if s.role == Role::Follower {
        text += &match s.fresh_ms {
            Some(ms) => format!(
                "\nfresh    as of {} s ago, by validators' signatures",
                ms.div_ceil(1000)
            ),
            None => "\nfresh    unknown: too few validators have said that nothing newer is final"
                .into(),
        };
    }
    if s.history_from > 1 {
        text += &format!(
            "\nhistory  from block {} on; an archive has all",
            s.history_from
        );
    }
    if let Some(closed) = &s.lane.closed {
        text += &format!(
            "\nlane     {} is closed since height {}: {}",
            s.lane.lane,
            closed.since,
            closed.by.rule()
        );
    }
    if let Some(mother) = &s.mother {
        text += &format!(
            "\nmother   {} at height {} ({})",
            mother.chain, mother.height, mother.block
        );
    }
    for q in &s.quarantined {
        text += &format!(
            "\nquarantined: device {} ({}, {}) since height {}",
            q.name, q.operator, q.device, q.since
        );
    }
    for (rule, count) in &s.nil_prevotes {
        text += &format!("\nnil prevotes: {count} × {rule}");
    }
    text
}

fn log(args: &LogArgs) -> Result<()> {
    let client = args.node.client()?;
    let height = client.status()?.height;
    for h in (height.saturating_sub(args.n) + 1..=height).rev() {
        let Some(block) = client.block(h)? else {
            continue;
        };
        facts(args.json, &block, |b| {
            let entries = b
                .receipts
                .iter()
                .filter(|r| matches!(r, ReceiptLine::Entry(_)))
                .count();
            let mut text = format!(
                "block {h} {} · {entries} entries, {} lanes · round {}, {} precommits",
                b.id,
                b.header.lanes.len(),
                b.certificate.round,
                b.certificate.signatures.len()
            );
            for fork in &b.header.forks {
                text += &format!(
                    "\n  merges blocks {} to {} of fork {}",
                    fork.from, fork.to, fork.chain
                );
            }
            for line in &b.receipts {
                if let ReceiptLine::Event(e) = line {
                    text += &format!("\n  {} {}", e.event, e.body);
                }
            }
            text
        })?;
    }
    Ok(())
}
