//! `instar receipt`: what became of an entry.

use std::time::Duration;

use anyhow::Result;
use instar_attest::Digest;
use instar_ledger::Receipt;
use instar_node::api::types::{EntryAnswer, ReceiptAnswer};

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
    if args.wait > 0 {
        let answer = client.wait_receipt(&args.id, Duration::from_secs(args.wait))?;
        return facts(args.json, &answer, words);
    }
    let Some(answer) = client.entry(&args.id)? else {
        return Err(Negative(format!(
            "this node knows no entry {}; it may be in a lane that has not reached it yet, or in a block from before a \
             snapshot that this node came by (`instar chain status` says where its history begins)",
            args.id
        ))
        .into());
    };
    facts(args.json, &answer, standing)
}

/// Where an entry stands, for people.
fn standing(answer: &EntryAnswer) -> String {
    let place = match answer.height {
        Some(height) => format!("{} in block {height}", answer.label),
        None => format!(
            "{} in lane {} at {}, no block has merged it",
            answer.label, answer.lane, answer.seq
        ),
    };
    let receipt = answer.receipt.as_ref().map(receipt_words);
    match (receipt, answer.height) {
        (Some(text), Some(_)) => format!("{place}: {text}"),
        (Some(text), None) => format!("{place}; merged now it would be: {text}"),
        (None, _) => place,
    }
}

fn receipt_words(r: &Receipt) -> String {
    let mut text = serde_json::to_value(r.outcome)
        .map(|v| v.as_str().unwrap_or_default().to_owned())
        .unwrap_or_default();
    for (what, value) in [("rule", &r.rule), ("detail", &r.detail)] {
        if let Some(value) = value {
            text += &format!("\n{what}: {value}");
        }
    }
    if let Some(output) = &r.output {
        text += &format!("\noutput: {output}");
    }
    text
}

/// A receipt for people.
pub fn words(answer: &ReceiptAnswer) -> String {
    format!(
        "{} in block {}: {}",
        answer.label,
        answer.height,
        receipt_words(&answer.receipt)
    )
}
