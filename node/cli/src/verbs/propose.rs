//! `instar propose`: open a build round for a commit, or propose what a round agreed on.
//!
//! Both are statements of the node's operator: the node signs them with its own account.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use instar_attest::Digest;
use serde_json::{Value, json};

use super::NodeArgs;
use crate::client::Client;
use crate::exit::{Negative, facts};
use instar_ledger::Outcome;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  instar propose --open REPO --rev main --slot dapps/coin --number 2 --name coin\n  instar propose --round 4f1c…(64 digits)"
)]
pub struct Args {
    /// Open a build round for a commit of this git repository
    #[arg(long, value_name = "REPO", conflicts_with = "round", requires_all = ["rev", "slot", "number", "name"])]
    open: Option<PathBuf>,
    /// The commit
    #[arg(long)]
    rev: Option<String>,
    /// What the release replaces: `node` or `dapps/NAME`
    #[arg(long)]
    slot: Option<String>,
    /// The release number; it only goes up
    #[arg(long)]
    number: Option<u64>,
    /// The program's name
    #[arg(long)]
    name: Option<String>,
    /// The targets to build
    #[arg(
        long,
        value_name = "TRIPLE",
        default_value = "x86_64-unknown-linux-gnu"
    )]
    target: Vec<String>,
    /// Propose the release of this round
    #[arg(long, value_name = "ID", required_unless_present = "open")]
    round: Option<Digest>,
    /// The release to propose, where it is not the one the ledger computed
    #[arg(long, value_name = "CID", requires = "round")]
    release: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let client = args.node.client()?;
    let (topic, body) = match (&args.open, &args.round) {
        (Some(repo), _) => ("build", open_body(args, repo)?),
        (None, Some(round)) => (
            "upgrade",
            propose_body(&client, round, args.release.as_deref())?,
        ),
        (None, None) => bail!("name a repository with --open, or a round with --round"),
    };
    let id = client.statement(topic, body)?;
    let answer = client.wait_receipt(&id, Duration::from_secs(30))?;
    facts(args.json, &json!({"id": id, "receipt": answer}), |_| {
        format!("{id}\n{}", super::receipt::words(&answer))
    })?;
    match answer.receipt.outcome {
        Outcome::Applied => Ok(()),
        _ => Err(Negative("the ledger refused it".into()).into()),
    }
}

fn open_body(args: &Args, repo: &std::path::Path) -> Result<Value> {
    let rev = args.rev.as_deref().unwrap_or("HEAD");
    let source = instar_builder::source::resolve(repo, rev)?.source;
    let slot = args.slot.as_deref().unwrap_or_default();
    Ok(json!({
        "op": "open",
        "slot": slot,
        "number": args.number,
        "name": args.name,
        "activation": if slot == "node" { "rolling" } else { "dapp" },
        "protocol": 1,
        "source": source,
        "targets": args.target,
    }))
}

fn propose_body(client: &Client, round: &Digest, release: Option<&str>) -> Result<Value> {
    let release = match release {
        Some(cid) => cid.to_owned(),
        None => {
            let state: Value = client.get(&format!("/v1/rounds/{round}"))?;
            match state["release"].as_str() {
                Some(cid) => cid.to_owned(),
                None => bail!("round {round} has agreed on no release: {}", state["phase"]),
            }
        }
    };
    Ok(json!({"op": "propose", "round": round, "release": release}))
}
