//! `instar pin`: keep a release on a node's embedded IPFS peer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use instar_attest::{Digest, release::Release};
use serde_json::{Value, json};

use super::NodeArgs;
use crate::client::Client;
use crate::exit::facts;

/// Between two looks at the round.
const POLL: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar pin ../coin-2 --round 4f1c…(64 digits) --token-file ~/node/token"
)]
pub struct Args {
    /// The folder that `instar build` made
    dir: PathBuf,
    /// The build round; nothing is pinned before its commitments are closed
    #[arg(long, value_name = "ID")]
    round: Digest,
    /// Seconds to wait for the round to close
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    wait: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let client = args.node.client()?;
    let round = closed_round(&client, args)?;
    let release = match round["release_json"].as_str() {
        Some(text) => Release::parse(text.as_bytes())?,
        // No agreement: what this builder built may still be wanted by those who look into it.
        None => crate::release::of_build(&args.dir, client.status()?.chain)?,
    };
    let mut blocks = 0u64;
    let root = crate::release::store(&args.dir.join("release"), &release, &mut |cid, bytes| {
        blocks += 1;
        client
            .post::<Value>(&format!("/v1/store/{cid}"), bytes)
            .map(drop)
            .map_err(std::io::Error::other)
    })?;
    let pin = serde_json::to_vec(
        &json!({"cid": root.to_string(), "name": format!("{}/{}", release.slot, release.number)}),
    )?;
    client.post::<Value>("/v1/pins", &pin)?;
    facts(
        args.json,
        &json!({"cid": root.to_string(), "blocks": blocks}),
        |_| format!("pinned {root} ({blocks} blocks)"),
    )
}

fn closed_round(client: &Client, args: &Args) -> Result<Value> {
    let start = Instant::now();
    loop {
        let round: Result<Value> = client.get(&format!("/v1/rounds/{}", args.round));
        if let Ok(round) = round
            && !matches!(round["phase"].as_str(), Some("commit" | "reveal"))
        {
            return Ok(round);
        }
        if start.elapsed() > Duration::from_secs(args.wait) {
            bail!("round {} is not closed after {} s", args.round, args.wait);
        }
        std::thread::sleep(POLL);
    }
}
