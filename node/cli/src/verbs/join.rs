//! `instar chain join`: makes a home that follows a chain, from any node of it and the chain's id.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use instar_attest::ChainId;
use instar_ledger::Genesis;
use instar_node::home::{AutoVoteSetting, Home, NodeConfig, PeerAddress};
use serde_json::json;

use crate::client::Client;
use crate::exit::{Negative, facts};
use crate::founding;

/// Peers that are taken from a node's list; one that lists more is not asked to fill this node's configuration.
const MAX_PEERS: usize = 256;

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  instar chain join http://192.0.2.7:8080 --id 5f0c…(64 digits) --home ~/follower
  instar node run --home ~/follower

The id is what is trusted; take it from somebody you trust, not from the node. Any other chain is refused. The node then
takes blocks from the URLs, checks every certificate and runs every merge test itself. It needs no key of its own on the
ledger; once it is registered there as a device it may append, and as a validator it certifies.")]
pub struct Args {
    /// A node's HTTP API; may be given several times, so that no single node decides what this one hears
    #[arg(value_name = "URL", required = true)]
    url: Vec<String>,
    /// The chain's id
    #[arg(long, value_name = "CHAIN")]
    id: ChainId,
    /// The new home; keys that `instar key new --home` made there are kept
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
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
    let home = Home::new(&args.home);
    ensure!(
        !home.ledger().exists(),
        "{} has a chain already; a chain is never made over another one",
        args.home.display()
    );
    let (genesis, peers) = ask(args)?;
    instar_chain::genesis_writes(&genesis, &args.id)
        .map_err(|e| anyhow::anyhow!("the genesis: {e}"))?;
    let keys = founding::make_keys(&home)?;
    home.write_config(&NodeConfig {
        auto_vote: AutoVoteSetting::OwnBuild,
        name: args.name.clone(),
        http: args.http,
        consensus: args.consensus.clone(),
        data: args.data.clone(),
        delta_patience_s: 0,
        dht: None,
        peers,
        follow: args.url.clone(),
    })?;
    instar_node::core::open::create(&home, &genesis)?;
    let value = json!({
        "chain": args.id,
        "home": args.home,
        "keys": keys,
        "name": genesis.chain_name,
        "follow": args.url,
    });
    facts(args.json, &value, |_| {
        let home = args.home.display();
        format!(
            "chain {} ({})\nrun it:\n  instar node run --home {home}",
            args.id, genesis.chain_name
        )
    })
}

/// The genesis and the peers, from the first node that answers with the right chain.
fn ask(args: &Args) -> Result<(Genesis, Vec<PeerAddress>)> {
    let mut failures = Vec::new();
    for url in &args.url {
        match ask_one(url, &args.id) {
            Ok(found) => return Ok(found),
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
