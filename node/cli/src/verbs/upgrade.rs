//! `instar upgrade`: what is proposed, voted on, live, and refused.

use anyhow::Result;
use instar_attest::Digest;
use serde_json::Value;

use super::NodeArgs;
use crate::exit::facts;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// List slots, build rounds and proposals
    List(List),
    /// Show one proposal or build round
    Show(Show),
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar upgrade list")]
pub struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar upgrade show 4f1c…(64 digits)")]
pub struct Show {
    /// The id of the proposal or round
    id: Digest,
    /// Print JSON on one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::List(args) => {
            let all: Value = args.node.client()?.get("/v1/upgrades")?;
            facts(args.json, &all, words)
        }
        Verb::Show(args) => {
            let client = args.node.client()?;
            let found: Option<Value> = client.find(&format!("/v1/upgrades/{}", args.id))?;
            let found = match found {
                Some(found) => found,
                None => client.get(&format!("/v1/rounds/{}", args.id))?,
            };
            facts(args.json, &found, |v| {
                serde_json::to_string_pretty(v).unwrap_or_default()
            })
        }
    }
}

fn words(all: &Value) -> String {
    let mut lines = Vec::new();
    for (name, slot) in all["slots"].as_object().into_iter().flatten() {
        lines.push(format!(
            "slot {name}: release {} {} since height {}",
            slot["number"],
            text(&slot["release"]),
            slot["since"]
        ));
    }
    for (id, round) in all["rounds"].as_object().into_iter().flatten() {
        lines.push(format!(
            "round {id}: {} {} · {}",
            text(&round["slot"]),
            round["number"],
            text(&round["phase"])
        ));
    }
    for (id, proposal) in all["proposals"].as_object().into_iter().flatten() {
        lines.push(format!(
            "proposal {id}: {} {} · {}",
            text(&proposal["slot"]),
            text(&proposal["release"]),
            text(&proposal["phase"])
        ));
    }
    lines.join("\n")
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
