//! `instar chain join`: makes a home that follows a chain, from any node of it and the chain's id.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use instar_attest::{ChainId, Purpose};
use instar_audit::Trust;
use instar_ledger::Genesis;
use instar_node::home::{
    AutoVoteSetting, Home, NodeConfig, PeerAddress, SNAPSHOT_EVERY, STATES_KEPT,
};
use serde_json::json;

use super::founders::vacant;
use crate::client::Client;
use crate::exit::{Negative, facts};
use crate::joining::{self, Joined, Sources, WORTH_BLOCKS};
use crate::light::CheckpointArg;
use crate::{founding, mother};

/// Peers that are taken from a node's list; one that lists more is not asked to fill this node's configuration.
const MAX_PEERS: usize = 256;

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  instar chain join http://192.0.2.7:8080 --id 5f0c…(64 digits) --home ~/follower
  instar node run --home ~/follower

The id is what is trusted; take it from somebody you trust, not from the node. Any other chain is refused.

A long chain is joined by a snapshot, if one is offered: its header is checked by the certified changes of the validator
set, and each piece of the state against that header, before it is kept. The node then has no history from before it.
With --archive, or where there is no snapshot, it replays the chain from genesis. A join that was interrupted goes on
where it was: give the same command again.

The node then takes blocks from the URLs, checks every certificate and runs every merge test itself. It needs no key of
its own on the ledger; once it is registered there as a device it may append, and as a validator it certifies.")]
pub struct Args {
    /// A node's HTTP API; may be given several times, so that no single node decides what this one hears
    #[arg(value_name = "URL", required = true)]
    url: Vec<String>,
    /// The chain's id
    #[arg(long, value_name = "CHAIN")]
    id: ChainId,
    /// A block that you trust, to begin the check of the validators at: HEIGHT:ID, or a file that `chain light --save`
    /// wrote
    #[arg(long, value_name = "HEIGHT:ID|FILE", conflicts_with = "archive")]
    checkpoint: Option<CheckpointArg>,
    /// Replay the whole chain from genesis, and keep every state and every block
    #[arg(long)]
    archive: bool,
    /// The new home; keys that `instar key new --home` made there are kept
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    /// For a fork: a ledger on this machine with its mother's history, which is read in its place; else it is fetched
    #[arg(long, value_name = "PATH")]
    share: Option<PathBuf>,
    /// What this node is called
    #[arg(long, default_value = "follower")]
    name: String,
    /// Where the node's HTTP API will listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Multiaddress where its data swarm will listen
    #[arg(long, value_name = "MULTIADDR", default_value = "/ip4/127.0.0.1/tcp/0")]
    data: String,
    /// Multiaddress where its consensus swarm will listen, should it become a validator
    #[arg(long, value_name = "MULTIADDR", default_value = "/ip4/127.0.0.1/tcp/0")]
    consensus: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let home = vacant(&args.home)?;
    let (url, genesis, peers) = ask(args)?;
    if genesis.fork.is_none() {
        instar_chain::genesis_writes(&genesis, &args.id)
            .map_err(|e| anyhow::anyhow!("the genesis: {e}"))?;
    }
    let made_here = !home.key_file(Purpose::Consensus).exists();
    let keys = founding::make_keys(&home)?;
    // A key that was there may have signed in another home, so nothing is said of that.
    if made_here {
        instar_node::core::open::never_signed(&home)?;
    }
    home.write_config(&NodeConfig {
        auto_vote: AutoVoteSetting::OwnBuild,
        name: args.name.clone(),
        http: args.http,
        consensus: args.consensus.clone(),
        data: args.data.clone(),
        delta_patience_s: 0,
        dht: None,
        stuck_after_s: instar_node::watchdog::DEFAULT_STUCK_S,
        peers,
        follow: args.url.clone(),
        states_kept: if args.archive { 0 } else { STATES_KEPT },
        history_kept: args.archive.then_some(0),
        snapshot_every: SNAPSHOT_EVERY,
    })?;
    let joined = begin(args, &home, &genesis, &url)?;
    let snapshot = joined.as_ref().ok().map(|j| {
        let dropped: Vec<_> = j
            .dropped
            .iter()
            .map(|(url, why)| json!({"url": url, "why": why}))
            .collect();
        json!({"chunks": j.chunks, "dropped": dropped, "height": j.height, "resumed": j.resumed})
    });
    let value = json!({
        "chain": args.id,
        "home": args.home,
        "keys": keys,
        "name": genesis.chain_name,
        "follow": args.url,
        "snapshot": snapshot,
    });
    facts(args.json, &value, |_| {
        let how = match &joined {
            Ok(j) => format!(
                "state of height {} from a snapshot of {} chunks ({} of them were here); no history from before",
                j.height, j.chunks, j.resumed
            ),
            Err(why) => format!("it replays the chain from genesis: {why}"),
        };
        format!(
            "chain {} ({})\n{how}\nrun it:\n  instar node run --home {}",
            args.id,
            genesis.chain_name,
            args.home.display()
        )
    })
}

/// Joins by a snapshot; or makes a home that begins at genesis, and says why.
fn begin(args: &Args, home: &Home, genesis: &Genesis, url: &str) -> Result<Result<Joined, String>> {
    let trust = match &args.checkpoint {
        Some(checkpoint) => checkpoint.trust(),
        None => Trust::Chain(args.id),
    };
    let why = if genesis.fork.is_some() {
        "a fork begins with its mother's state and history".to_owned()
    } else if args.archive {
        "--archive keeps all of it".to_owned()
    } else {
        let mut sources = Sources::ask(&args.url);
        match sources.newest() {
            Some(height) if height > WORTH_BLOCKS => {
                return joining::join(&mut sources, home, genesis, &trust).map(Ok);
            }
            Some(height) => {
                format!("the newest snapshot is of height {height}, from which it is not far")
            }
            None => "no node offers a snapshot".to_owned(),
        }
    };
    ensure!(
        args.checkpoint.is_none(),
        "{why}; a checkpoint is of use for a join by snapshot alone"
    );
    instar_node::join::Joining::forget(home)?;
    match genesis.fork {
        None => drop(instar_node::core::open::create(home, genesis)?),
        Some(_) => {
            let client = Client::new(url, None);
            mother::join(&client, home, genesis, args.share.as_deref())?;
        }
    }
    Ok(Err(why))
}

/// The genesis and the peers, from the first node that answers with the right chain.
fn ask(args: &Args) -> Result<(String, Genesis, Vec<PeerAddress>)> {
    let mut failures = Vec::new();
    for url in &args.url {
        match ask_one(url, &args.id) {
            Ok((genesis, peers)) => return Ok((url.clone(), genesis, peers)),
            // Another chain is never taken for this one, and whoever named it should look again.
            Err(e) if e.is::<Negative>() => return Err(e),
            Err(e) => failures.push(format!("{e:#}")),
        }
    }
    bail!("no node could be asked: {}", failures.join("; "))
}

fn ask_one(url: &str, wanted: &ChainId) -> Result<(Genesis, Vec<PeerAddress>)> {
    let client = Client::new(url, None);
    let bytes = client
        .find_bytes("/v1/genesis")?
        .with_context(|| format!("{url} has no genesis to give; is it a node?"))?;
    let genesis =
        Genesis::from_bytes(&bytes).with_context(|| format!("{url} gives a broken genesis"))?;
    let id = genesis.chain_id()?;
    if id != *wanted {
        return Err(Negative(format!(
            "{url} has chain {id} ({}), not {wanted}; nothing was written",
            genesis.chain_name
        ))
        .into());
    }
    let mut peers: Vec<PeerAddress> = client.get("/v1/peers")?;
    peers.truncate(MAX_PEERS);
    Ok((genesis, peers))
}
