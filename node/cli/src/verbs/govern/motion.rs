//! `instar motion`: what is moved, and votes on it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use instar_attest::Digest;
use instar_chain::govern::Motion;
use instar_chain::govern::ops::{GovernOp, MotionVote, Withdraw};
use instar_chain::ops::Ballot;

use super::{MoveArgs, ReadArgs, SayArgs};
use crate::exit::facts;
use crate::founding;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// List motions
    List(List),
    /// Show one motion with its votes
    Show(Show),
    /// Vote on a motion with a validator's account
    Vote(Vote),
    /// Move any change that a file holds
    Propose(Propose),
    /// Take a motion back that is still voted on
    Withdraw(WithdrawArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar motion list")]
pub struct List {
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar motion show 4f1c…(64 digits) --json")]
pub struct Show {
    /// The motion's id
    id: Digest,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    Yes,
    No,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar motion vote 4f1c…(64 digits) yes --token-file ~/node/token\n\nExit codes: 0 the vote counts · 1 the ledger refused it, or no answer · 2 wrong use of the command line."
)]
pub struct Vote {
    /// The motion's id
    motion: Digest,
    /// The vote
    choice: Choice,
    /// Why, for the others to read
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    say: SayArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar motion propose change.json --delay 10")]
pub struct Propose {
    /// An application, or a change written by hand: docs/formats/chain.md has the shapes
    file: PathBuf,
    #[command(flatten)]
    how: MoveArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar motion withdraw 4f1c…(64 digits)")]
pub struct WithdrawArgs {
    /// The motion's id
    motion: Digest,
    #[command(flatten)]
    say: SayArgs,
}

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::List(args) => {
            let all: BTreeMap<Digest, Motion> = args.read.node.client()?.get("/v1/motions")?;
            facts(args.read.json, &all, |all| {
                let lines: Vec<String> = all.values().map(line).collect();
                lines.join("\n")
            })
        }
        Verb::Show(args) => {
            let path = format!("/v1/motions/{}", args.id);
            let motion: Motion = args.read.node.client()?.get(&path)?;
            facts(args.read.json, &motion, words)
        }
        Verb::Vote(args) => {
            let vote = match args.choice {
                Choice::Yes => Ballot::Yes,
                Choice::No => Ballot::No,
            };
            said(
                &GovernOp::Vote(MotionVote {
                    motion: args.motion,
                    reason: args.reason,
                    vote,
                }),
                &args.say,
            )
        }
        Verb::Propose(args) => super::propose(founding::read(&args.file)?, &args.how),
        Verb::Withdraw(args) => said(
            &GovernOp::Withdraw(Withdraw {
                motion: args.motion,
            }),
            &args.say,
        ),
    }
}

fn said(op: &GovernOp, args: &SayArgs) -> Result<()> {
    let (id, answer) = super::say(op, args)?;
    super::told(&id, &answer, args.json, |_| {
        format!("{id}\n{}", crate::verbs::receipt::words(&answer))
    })
}

fn line(m: &Motion) -> String {
    let mut text = format!("motion {}: {} · {}", m.id, m.change.kind(), phase(m));
    if let Some(rule) = &m.rule {
        text += &format!(" · {rule}");
    }
    text
}

fn phase(m: &Motion) -> String {
    let phase = serde_json::to_value(m.phase).unwrap_or_default();
    phase.as_str().unwrap_or_default().to_owned()
}

fn words(m: &Motion) -> String {
    let (yes, no) = (m.power_of(Ballot::Yes), m.power_of(Ballot::No));
    let mut text = format!(
        "{}\nmoved by {} at height {}\npower    {yes} yes, {no} no, of {}",
        line(m),
        m.operator,
        m.proposed_at,
        m.total_power()
    );
    if let Some(reason) = &m.reason {
        text += &format!("\nreason   {reason}");
    }
    if let Some(height) = m.effective_at {
        text += &format!("\neffect   at the start of block {height}");
    }
    if let Some(detail) = &m.detail {
        text += &format!("\n{detail}");
    }
    for (name, vote) in &m.votes {
        let says = if vote.vote == Ballot::Yes {
            "yes"
        } else {
            "no"
        };
        let reason = vote.reason.as_deref().unwrap_or_default();
        text += &format!("\n  {name} {says} {reason}");
    }
    let change = serde_json::to_string_pretty(&m.change).unwrap_or_default();
    format!("{text}\n{change}")
}
