//! `instar vote`: a validator's vote by hand. With auto-vote on, the node votes yes when its own build matched.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use instar_attest::Digest;
use instar_ledger::Outcome;
use serde_json::json;

use super::NodeArgs;
use crate::exit::{Negative, facts};

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    Yes,
    No,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar vote 4f1c…(64 digits) no --reason 'the release notes are missing'"
)]
pub struct Args {
    /// The proposal's id
    proposal: Digest,
    /// The vote
    choice: Choice,
    /// Why, for the others to read
    #[arg(long, default_value = "by hand")]
    reason: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let client = args.node.client()?;
    let vote = match args.choice {
        Choice::Yes => "yes",
        Choice::No => "no",
    };
    let body = json!({"op": "vote", "proposal": args.proposal, "vote": vote, "rebuilt": null, "reason": args.reason});
    let id = client.statement("upgrade", body)?;
    let answer = client.wait_receipt(&id, Duration::from_secs(30))?;
    facts(args.json, &json!({"id": id, "receipt": answer}), |_| {
        format!("{id}\n{}", super::receipt::words(&answer))
    })?;
    match answer.receipt.outcome {
        Outcome::Applied => Ok(()),
        _ => Err(Negative("the ledger refused the vote".into()).into()),
    }
}
