//! `instar pin`: keep content in several places, and say which of them hold it.

mod round;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use cid::Cid;
use instar_attest::Digest;
use instar_chunks::import::{Content, ImportOptions};
use instar_chunks::traverse::{Scope, Traverse};
use instar_chunks::{BlockStore, Limits, Profile};
use instar_ipfs::pin::{KuboPins, with_retries};
use serde_json::json;

use crate::client::{BlockUpload, Client};
use crate::exit::{Negative, facts};
use crate::store::StoreArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  instar pin coin-2 --kubo http://127.0.0.1:5001 --node http://127.0.0.1:8080 --token-file ~/node/token
  instar pin bafybei… --kubo http://a:5001 --kubo http://b:5001 --min-copies 2
  instar pin ../coin-2 --round 4f1c…(64 digits) --token-file ~/node/token

Each place is reported. Exit code 0 if at least --min-copies places hold all of it, else 1.")]
pub struct Args {
    /// A CID that the local store holds, a file or folder; with --round the folder that `instar build` made
    what: PathBuf,
    /// Pin the release of this build round, once its commitments are closed
    #[arg(long, value_name = "ID")]
    round: Option<Digest>,
    /// Seconds to wait for the round to close
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 3600,
        requires = "round"
    )]
    wait: u64,
    /// A node of ours, whose embedded peer serves it; may be given several times
    /// [default, if no place is named: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "INSTAR_NODE", value_delimiter = ',')]
    node: Vec<String>,
    /// File with the nodes' write token
    #[arg(long, value_name = "FILE", env = "INSTAR_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The RPC of a Kubo node; may be given several times
    #[arg(long, value_name = "URL", conflicts_with = "round")]
    kubo: Vec<String>,
    /// Places that must hold it [default: all that are named]
    #[arg(long, value_name = "N", conflicts_with = "round")]
    min_copies: Option<usize>,
    /// Name of the pin [default: the CID]
    #[arg(long, conflicts_with = "round")]
    name: Option<String>,
    /// How a file or folder is cut
    #[arg(long, value_name = "NAME", default_value = "instar-cdc-v1", value_parser = super::add::profile)]
    profile: Profile,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where nodes listen unless told otherwise.
const DEFAULT_NODE: &str = "http://127.0.0.1:8080";

impl Args {
    fn nodes(&self) -> Vec<String> {
        match self.node.is_empty() && self.kubo.is_empty() {
            true => vec![DEFAULT_NODE.to_owned()],
            false => self.node.clone(),
        }
    }

    fn client(&self, node: &str) -> Result<Client> {
        let token = self
            .token_file
            .as_deref()
            .map(super::read_token)
            .transpose()?;
        Ok(Client::new(node, token))
    }
}

/// What became of one place.
struct Place {
    name: String,
    result: Result<(), String>,
    attempts: u32,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    if let Some(id) = &args.round {
        return round::run(args, id);
    }
    let nodes = args.nodes();
    let wanted = args.min_copies.unwrap_or(nodes.len() + args.kubo.len());
    ensure!(
        wanted <= nodes.len() + args.kubo.len(),
        "--min-copies asks for {wanted} places and only {} are named",
        nodes.len() + args.kubo.len()
    );
    let store = Arc::new(args.store.open()?);
    let root = root(args, &store)?;
    let _lease = instar_chunks::Blocks::lease(&*store);
    let name = args.name.clone().unwrap_or_else(|| root.to_string());
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(args.client(node)?);
    }
    // Side by side: the slowest place says how long it takes.
    let places: Vec<Place> = std::thread::scope(|scope| {
        let (store, root, name) = (&*store, &root, name.as_str());
        let at_nodes = clients.into_iter().map(|client| {
            scope.spawn(move || {
                let (result, attempts) = with_retries(
                    |error: &anyhow::Error| is_passing(error),
                    || at_node(&client, store, root, name),
                );
                Place {
                    name: format!("node {}", client.base()),
                    result: result.map_err(|e| format!("{e:#}")),
                    attempts,
                }
            })
        });
        let at_kubos = args.kubo.iter().map(|base| {
            scope.spawn(move || {
                let (result, attempts) = KuboPins::new(base).keep(store, root, &Limits::default());
                Place {
                    name: format!("kubo {base}"),
                    result: result.map_err(|e| e.to_string()),
                    attempts,
                }
            })
        });
        let running: Vec<_> = at_nodes
            .collect::<Vec<_>>()
            .into_iter()
            .chain(at_kubos)
            .collect();
        running
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Place {
                    name: "a place".into(),
                    result: Err("the thread ended early".into()),
                    attempts: 0,
                })
            })
            .collect()
    });
    tell(args, &root, &places, wanted)
}

fn root(args: &Args, store: &BlockStore) -> Result<Cid> {
    if let Some(cid) = args.what.to_str().and_then(|text| text.parse::<Cid>().ok()) {
        let absent = instar_chunks::missing(store, &cid, &Limits::default())?;
        ensure!(
            absent.is_empty(),
            "the local store doesn't hold all of {cid}: {} is missing; fetch it first, e.g. `instar get {cid} -o PATH --gateway URL`",
            absent[0]
        );
        return Ok(cid);
    }
    let options = ImportOptions {
        profile: args.profile,
        hidden: false,
    };
    let pin = args.name.as_deref().unwrap_or_default();
    Ok(store
        .import(Content::Path(&args.what), &options, Some(pin))?
        .cid)
}

fn at_node(client: &Client, store: &BlockStore, root: &Cid, name: &str) -> Result<()> {
    let mut upload = BlockUpload::new(client);
    let mut traverse = Traverse::new(store, root, Scope::All, Limits::default())?;
    while let Some((cid, bytes)) = traverse.next_block()? {
        upload.put(&cid, &bytes)?;
    }
    upload.finish()?;
    // The node looks whether it holds every block before it says yes.
    client.pin(name, root)
}

/// Whether trying again may help: the node couldn't be reached, or said so itself.
fn is_passing(error: &anyhow::Error) -> bool {
    let unreachable = error.chain().any(|cause| cause.is::<ureq::Error>());
    unreachable || error.to_string().contains("answered 503")
}

fn tell(args: &Args, root: &Cid, places: &[Place], wanted: usize) -> Result<()> {
    let copies = places.iter().filter(|place| place.result.is_ok()).count();
    let value = json!({
        "cid": root.to_string(),
        "copies": copies,
        "min_copies": wanted,
        "places": places.iter().map(|place| json!({
            "name": place.name,
            "pinned": place.result.is_ok(),
            "attempts": place.attempts,
            "error": place.result.as_ref().err(),
        })).collect::<Vec<_>>(),
    });
    facts(args.json, &value, |_| {
        let lines = places.iter().map(|place| match &place.result {
            Ok(()) => format!("pinned at {}", place.name),
            Err(why) => format!("not at {} ({} tries): {why}", place.name, place.attempts),
        });
        let all: Vec<String> = std::iter::once(root.to_string()).chain(lines).collect();
        all.join("\n")
    })?;
    if copies < wanted {
        return Err(Negative(format!(
            "{copies} places hold {root}, {wanted} are asked for"
        ))
        .into());
    }
    Ok(())
}
