//! `instar receipt`: what became of an entry.

use std::time::Duration;

use anyhow::Result;
use instar_attest::Digest;
use instar_node::api::types::ReceiptAnswer;

use super::NodeArgs;
use crate::exit::{Negative, facts};

/// Example: instar receipt 4f1c… --wait 10
#[derive(clap::Args)]
#[command(after_help = "Example: instar receipt 4f1c…(64 digits) --wait 10")]
pub struct Args {
    /// The entry's id
    id: Digest,
    /// Seconds to wait for it to become final
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let client = args.node.client()?;
    let answer = if args.wait > 0 {
        Some(client.wait_receipt(&args.id, Duration::from_secs(args.wait))?)
    } else {
        client.receipt(&args.id, Duration::ZERO)?
    };
    let Some(answer) = answer else {
        return Err(Negative(format!(
            "no final block holds entry {}; it may be pending, or the node never saw it",
            args.id
        ))
        .into());
    };
    facts(args.json, &answer, words)
}

/// A receipt for people.
pub fn words(answer: &ReceiptAnswer) -> String {
    let r = &answer.receipt;
    let outcome = serde_json::to_value(r.outcome)
        .map(|v| v.as_str().unwrap_or_default().to_owned())
        .unwrap_or_default();
    let mut text = format!("{outcome} in block {} ({})", answer.height, answer.label);
    if let Some(rule) = &r.rule {
        text += &format!("\nrule: {rule}");
    }
    if let Some(detail) = &r.detail {
        text += &format!("\n{detail}");
    }
    if let Some(output) = &r.output {
        text += &format!("\noutput: {output}");
    }
    text
}
