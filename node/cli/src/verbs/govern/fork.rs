//! `instar chain merge-fork`: moves that a fork of the chain be merged, or checks such a motion before a vote.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use instar_attest::{ChainId, Digest};
use instar_audit::Trust;
use instar_chain::govern::ops::{ForkMerge, GovernOp, Propose};
use instar_chain::govern::{Change, MAX_PARTS, Motion};
use instar_chain::record::ForkRecord;
use instar_ledger::fork::{self, MAX_SLICE_BYTES, MAX_SLICE_OBJECTS};
use instar_ledger::light::SignedHeader;
use instar_ledger::{ForkPart, ForkRange, MAX_ENTRY_BYTES, Oid, Store};
use instar_node::home::Home;
use serde_json::json;

use super::MoveArgs;
use crate::client::Client;
use crate::exit::{Negative, facts};
use crate::light::{Way, header_at, way_to};
use crate::mother;

/// What an entry has besides its body.
const ENTRY_BYTES: usize = 512;

/// Moves that a fork be merged.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  instar chain merge-fork http://127.0.0.1:9080 --fork 7d21…(64 digits) --home ~/node --token-file ~/node/token
  instar chain merge-fork http://127.0.0.1:9080 --fork 7d21… --home ~/node --check 4f1c…(the motion's id)
  instar motion vote 4f1c… yes --token-file ~/node/token

The fork's blocks, up to the one that its validators certified, are fetched into the home of a node of this chain, and every
signature in them is checked. The motion cuts them into slices; once it has passed and its delay is over, nodes that have
the fork's history merge one slice a block. Entries that took effect on the fork are offered to dapps of the same name here
that take such entries (\"foreign\": true in dapp.json). A second motion goes on where the first one ended.
--check fetches and checks the same for a motion of somebody else, and lets this home's node bring slices too.
Exit codes: 0 it is moved, or the motion holds · 1 it does not, the ledger refused it, or no answer · 2 wrong use of the
command line.")]
pub struct Args {
    /// The HTTP API of a node of the fork, one that has all of its history
    #[arg(value_name = "URL")]
    url: String,
    /// The fork's id, from somewhere you trust
    #[arg(long, value_name = "CHAIN")]
    fork: ChainId,
    /// The home of a node of this chain, which takes the fork's history
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    /// Merge up to this height of the fork; to its newest block unless given
    #[arg(long)]
    height: Option<u64>,
    /// Check this motion instead of making one
    #[arg(long, value_name = "MOTION", conflicts_with_all = ["height", "print"])]
    check: Option<Digest>,
    /// Print the change instead of moving it, for `instar motion propose`
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    how: MoveArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let (fork, home) = (Client::new(&args.url, None), Home::new(&args.home));
    if let Some(motion) = args.check {
        return check(args, &fork, &home, &motion);
    }
    let way = way(&fork, &args.fork, header_at(&fork, args.height)?)?;
    let history = history(&fork, &home, &args.fork, &way.block)?;
    let (after, to) = (merged(args)?, way.header.header.height);
    ensure!(
        to > after,
        "the fork is merged up to height {after} already; it ends at {to}"
    );
    let sizes = history.block_sizes(after, to)?;
    let parts = fork::cut(sizes)?;
    if let Some(last) = parts.get(MAX_PARTS - 1).filter(|_| parts.len() > MAX_PARTS) {
        bail!(
            "the fork has to be merged in {} slices, and one motion has at most {MAX_PARTS}; begin with --height {}",
            parts.len(),
            last.height
        );
    }
    verify(&history, after, &parts)?;
    let change = Change::ForkMerge(Box::new(ForkMerge {
        chain: args.fork,
        changes: way.changes,
        genesis: history.genesis().clone(),
        header: way.header,
        parts,
    }));
    if args.print {
        return facts(true, &change, |_| String::new());
    }
    let op = GovernOp::Propose(Propose {
        change: change.clone(),
        delay: args.how.delay,
        reason: args.how.reason.clone(),
    });
    let bytes = serde_json::to_vec(&op)?.len() + ENTRY_BYTES;
    ensure!(
        bytes <= MAX_ENTRY_BYTES,
        "the motion would have {bytes} bytes, and an entry has at most {MAX_ENTRY_BYTES}: genesis, proof and slices have to \
         fit; choose a lower --height"
    );
    super::propose(change, &args.how)
}

/// That the fork's validators certified a block, from its genesis on.
fn way(fork: &Client, chain: &ChainId, header: SignedHeader) -> Result<Way> {
    way_to(fork, &Trust::Chain(*chain), header).context("the fork's block does not hold")
}

/// The fork's trunk up to a block, fetched into the home of a node of the mother.
fn history(fork: &Client, home: &Home, chain: &ChainId, block: &Oid) -> Result<Store> {
    let path = home.fork_history(chain);
    mother::fetch_history(fork, &path, block, Some(&home.ledger()))?;
    let store = Store::open_clone(&path)?;
    ensure!(
        store.chain() == chain && store.head().1 == *block,
        "{} has another history than that of block {block} of the fork; remove it",
        path.display()
    );
    Ok(store)
}

/// Up to which height the fork is merged.
fn merged(args: &Args) -> Result<u64> {
    let all: std::collections::BTreeMap<ChainId, ForkRecord> =
        args.how.say.node.client()?.get("/v1/forks")?;
    Ok(all.get(&args.fork).map_or(0, |fork| fork.height))
}

/// Reads every slice as nodes will, with every signature: a motion must not make due what nobody can merge.
fn verify(history: &Store, after: u64, parts: &[ForkPart]) -> Result<u64> {
    let (mut from, mut entries) = (after + 1, 0);
    for part in parts {
        let range = ForkRange {
            chain: *history.chain(),
            from,
            head: part.id,
            to: part.height,
        };
        let slice = history.verify_slice(&range).with_context(|| {
            format!(
                "blocks {from} to {} of the fork can't be merged",
                part.height
            )
        })?;
        entries += slice.entries.len() as u64;
        from = part.height + 1;
    }
    Ok(entries)
}

fn check(args: &Args, fork: &Client, home: &Home, id: &Digest) -> Result<()> {
    let motion: Motion = args
        .how
        .say
        .node
        .client()?
        .get(&format!("/v1/motions/{id}"))?;
    let Change::ForkMerge(op) = &motion.change else {
        bail!(
            "motion {id} is about {}, not about a fork",
            motion.change.kind()
        );
    };
    let wrong = |why: String| Err(Negative(why).into());
    if op.chain != args.fork {
        return wrong(format!("the motion is about fork {}", op.chain));
    }
    let way = way(fork, &args.fork, op.header.clone())?;
    let history = history(fork, home, &args.fork, &way.block)?;
    let after = merged(args)?;
    for part in &op.parts {
        if history.block_at(part.height) != Some(part.id) {
            return wrong(format!(
                "the motion has {} as the fork's block {}, which it is not",
                part.id, part.height
            ));
        }
    }
    let parts: Vec<ForkPart> = op
        .parts
        .iter()
        .filter(|p| p.height > after)
        .copied()
        .collect();
    fits(&history, after, &parts)?;
    let entries = verify(&history, after, &parts)?;
    let value = json!({
        "entries": entries, "fork": args.fork, "from": after + 1, "motion": id, "ok": true, "slices": parts.len(),
        "to": op.header.header.height,
    });
    facts(args.how.say.json, &value, |_| {
        format!(
            "the motion holds: blocks {} to {} of the fork in {} slices, {entries} entries that took effect there\n\
             vote with: instar motion vote {id} yes",
            after + 1,
            op.header.header.height,
            parts.len()
        )
    })
}

fn fits(history: &Store, after: u64, parts: &[ForkPart]) -> Result<()> {
    let mut before = after;
    for part in parts {
        let sizes = history.block_sizes(before, part.height)?;
        let objects: usize = sizes.iter().map(|s| s.objects).sum();
        let bytes: usize = sizes.iter().map(|s| s.bytes).sum();
        if objects > MAX_SLICE_OBJECTS || bytes > MAX_SLICE_BYTES {
            let why = format!(
                "the slice up to block {} has {objects} objects of {bytes} bytes, more than can be merged at once",
                part.height
            );
            return Err(Negative(why).into());
        }
        before = part.height;
    }
    Ok(())
}
