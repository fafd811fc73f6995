//! `instar get`: content by its address, every block hashed before it is used.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use cid::Cid;
use instar_chunks::{BlockStore, Limits, export};
use serde_json::json;

use super::NodeArgs;
use crate::exit::facts;

#[derive(clap::Args)]
#[command(after_help = "Example: instar get bafybei… -o coin-2 --node http://127.0.0.1:8080")]
pub struct Args {
    /// The root CID
    cid: Cid,
    /// Where to write it; must not exist
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        !args.output.exists(),
        "{} exists; nothing is overwritten",
        args.output.display()
    );
    let scratch = tempfile::tempdir()?;
    let store = BlockStore::open(&scratch.path().join("blocks.redb"))?;
    let blocks = super::audit::fetch(&args.node.client()?, &store, &args.cid)?;
    export(&store, &args.cid, None, &args.output, &Limits::default())?;
    facts(
        args.json,
        &json!({"cid": args.cid.to_string(), "blocks": blocks, "path": args.output}),
        |_| {
            format!(
                "{} in {} ({blocks} blocks, each verified)",
                args.cid,
                args.output.display()
            )
        },
    )
}
