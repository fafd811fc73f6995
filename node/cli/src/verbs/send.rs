//! `instar send`: sign an entry with an account key and hand it to a node.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use instar_attest::{Purpose, keyfile};
use instar_ledger::{Entry, Outcome};
use serde_json::Value;

use super::NodeArgs;
use crate::exit::{Negative, facts};

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar send coin '{\"op\":\"transfer\",\"to\":\"9d…\",\"amount\":\"5\"}' --key account.json"
)]
pub struct Args {
    /// The topic: a dapp's name, `build`, `upgrade`, or `govern`
    topic: String,
    /// The body, a JSON object; amounts are decimal strings
    body: String,
    /// The account's key file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The entry's nonce, where the node's answer is not to be used
    #[arg(long)]
    nonce: Option<u64>,
    /// Don't wait for the receipt; print the entry's id
    #[arg(long)]
    no_wait: bool,
    /// Seconds to wait for the receipt
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let body: Value = serde_json::from_str(&args.body).context("the body is not JSON")?;
    let key = keyfile::load(&args.key, Purpose::Account)?;
    let client = args.node.client()?;
    let chain = client.status()?.chain;
    let nonce = match args.nonce {
        Some(nonce) => nonce,
        None => client.account(&key.public())?.next_nonce,
    };
    let entry = Entry::sign(&chain, &key, nonce, &args.topic, body)?;
    client.submit(&entry.to_line())?;
    if args.no_wait {
        return facts(args.json, &serde_json::json!({"id": entry.id()}), |_| {
            entry.id().to_hex()
        });
    }
    let answer = client.wait_receipt(&entry.id(), Duration::from_secs(args.wait))?;
    facts(args.json, &answer, |a| {
        format!("entry {}\n{}", entry.id(), super::receipt::words(a))
    })?;
    match answer.receipt.outcome {
        Outcome::Applied => Ok(()),
        _ => Err(Negative("the entry is final but had no effect".into()).into()),
    }
}
