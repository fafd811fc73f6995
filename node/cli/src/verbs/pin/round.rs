//! `instar pin --round`: the release of a build round, once its commitments are closed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use instar_attest::{Digest, release::Release};
use serde_json::{Value, json};

use super::Args;
use crate::client::{BlockUpload, Client};
use crate::exit::facts;

/// Between two looks at the round.
const POLL: Duration = Duration::from_millis(200);

/// Runs the verb.
pub(super) fn run(args: &Args, id: &Digest) -> Result<()> {
    let nodes = args.nodes();
    let client = args.client(nodes.first().map_or(super::DEFAULT_NODE, String::as_str))?;
    let round = closed_round(&client, args, id)?;
    let release = match round["release_json"].as_str() {
        Some(text) => Release::parse(text.as_bytes())?,
        // No agreement: what this builder built may still be wanted by those who look into it.
        None => crate::release::of_build(&args.what, client.status()?.chain)?,
    };
    let mut upload = BlockUpload::new(&client);
    let root = crate::release::store(&args.what.join("release"), &release, &mut |cid, bytes| {
        upload.put(cid, bytes).map_err(std::io::Error::other)
    })?;
    upload.finish()?;
    let blocks = upload.blocks;
    client.pin(&format!("{}/{}", release.slot, release.number), &root)?;
    facts(
        args.json,
        &json!({"cid": root.to_string(), "blocks": blocks}),
        |_| format!("pinned {root} ({blocks} blocks)"),
    )
}

fn closed_round(client: &Client, args: &Args, id: &Digest) -> Result<Value> {
    let start = Instant::now();
    loop {
        let round: Result<Value> = client.get(&format!("/v1/rounds/{}", id));
        if let Ok(round) = round
            && !matches!(round["phase"].as_str(), Some("commit" | "reveal"))
        {
            return Ok(round);
        }
        if start.elapsed() > Duration::from_secs(args.wait) {
            bail!("round {} is not closed after {} s", id, args.wait);
        }
        std::thread::sleep(POLL);
    }
}
