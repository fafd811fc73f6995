//! `instar dapp`: ask a dapp.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::NodeArgs;
use crate::exit::facts;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Ask a dapp a question; nothing is written
    Query(Query),
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar dapp query coin '{\"op\":\"balance\",\"account\":\"9d…\"}'"
)]
pub struct Query {
    /// The dapp's name
    dapp: String,
    /// The question, a JSON object
    question: String,
    /// Answer from what a quorum has said alone, without the lanes that no block has merged yet
    #[arg(long = "final")]
    only_final: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    let Verb::Query(args) = verb;
    let question: Value =
        serde_json::from_str(&args.question).context("the question is not JSON")?;
    let question = instar_attest::json::to_vec(&question)?;
    let answer: Value = args.node.client()?.post(
        &format!("/v1/query/{}?final={}", args.dapp, args.only_final),
        &question,
    )?;
    facts(args.json, &answer, |a| {
        format!(
            "{} ({}, height {})",
            a["answer"],
            a["label"].as_str().unwrap_or("?"),
            a["height"]
        )
    })
}
