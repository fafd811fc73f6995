//! `instar store serve`: the local store for others, without a chain.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use instar_node::gateway::serve::{MakeDeltas, ServeOptions, serve};
use serde_json::json;

use crate::dht::DhtArgs;
use crate::exit::facts;
use crate::store::StoreArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  instar store serve --http 127.0.0.1:8081
  instar store serve --peer /ip4/0.0.0.0/tcp/4001 --deltas
  instar store serve --peer /ip4/0.0.0.0/tcp/4001 --dht /ip4/203.0.113.7/tcp/4001/p2p/12D3…

The gateway gives raw blocks and CAR files, which clients verify; nothing can be written. What is
added meanwhile by another process can't be: a store belongs to one process at a time.")]
pub struct Args {
    /// Where the trustless gateway listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Multiaddress where the bitswap peer listens, e.g. /ip4/127.0.0.1/tcp/0
    #[arg(long, value_name = "MULTIADDR")]
    peer: Option<String>,
    /// Also make deltas between pinned things for any peer that asks, one at a time at the lowest priority
    #[arg(long, requires = "peer")]
    deltas: bool,
    #[command(flatten)]
    dht: DhtArgs,
    /// Answer others in the DHT too; for a peer that they can reach and that stays
    #[arg(long, requires = "peer")]
    dht_serve: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        args.http.is_some() || args.peer.is_some(),
        "nothing to serve on; name --http ADDRESS, --peer MULTIADDR or both"
    );
    let peer = args
        .peer
        .as_deref()
        .map(|text| {
            text.parse()
                .with_context(|| format!("{text:?} is no multiaddress"))
        })
        .transpose()?;
    let deltas = match args.deltas {
        false => None,
        true => Some(MakeDeltas {
            folder: args.store.folder()?.join("deltas"),
            program: std::env::current_exe()?,
        }),
    };
    let dht = args.dht.config(args.dht_serve)?;
    ensure!(
        dht.is_none() || peer.is_some(),
        "the DHT leads others to a peer, and none is served; name --peer MULTIADDR"
    );
    let options = ServeOptions {
        store: Arc::new(args.store.open_existing()?),
        http: args.http,
        peer,
        seed: None,
        deltas,
        dht,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let json = args.json;
    runtime.block_on(serve(options, |served| {
        let value = json!({"http": served.http, "peer": served.peer});
        // A reader that went away is no reason to stop serving.
        let _ = facts(json, &value, |_| {
            let http = served.http.iter().map(|base| format!("gateway {base}"));
            let peers = served
                .peer
                .iter()
                .map(|address| format!("peer    {address}"));
            http.chain(peers).collect::<Vec<_>>().join("\n")
        });
    }))?;
    Ok(())
}
