//! `instar chain light`: one header, checked without a clone and without the state.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::exit::facts;
use crate::light::{Checkpoint, TrustArgs, header_at, way_to};
use crate::verbs::NodeArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  instar chain light --chain 3f0c… --node http://127.0.0.1:8080
  instar chain light --checkpoint checkpoint.json --save checkpoint.json

Kilobytes instead of a clone: from the chain's id, or a block that you trust, over each change of the validator set to
one header. The answer is no fresher than that header; another node may know a newer one.")]
pub struct Args {
    /// The header's height; the newest of the node unless given
    #[arg(long)]
    height: Option<u64>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Write the header's block as a checkpoint, to begin at the next time
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let client = args.node.client()?;
    let header = header_at(&client, args.height)?;
    let way = way_to(&client, &args.trust.trust()?, header)?;
    let header = &way.header.header;
    if let Some(path) = &args.save {
        Checkpoint::new(header.height, way.block).write(path)?;
    }
    let value = json!({
        "block": way.block,
        "chain": header.chain,
        "changes": way.changes.len(),
        "height": header.height,
        "signatures": way.header.certificate.signatures.len(),
        "state_root": header.state_root,
        "time_ms": header.time_ms,
        "validators": header.validators,
    });
    facts(args.json, &value, |_| {
        format!(
            "chain       {}\nheight      {}\nblock       {}\nstate root  {}\ncertified   by {} validators, after {} changes of the set",
            header.chain,
            header.height,
            way.block,
            header.state_root,
            way.header.certificate.signatures.len(),
            way.changes.len()
        )
    })
}
