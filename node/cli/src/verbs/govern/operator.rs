//! `instar operator`: who may move something and run validators and devices.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use instar_attest::{Purpose, keyfile};
use instar_chain::govern::Change;
use instar_chain::govern::ops::{ByName, OperatorAdd};
use instar_chain::query::Operator;

use super::{ChainArgs, MoveArgs, ReadArgs};
use crate::exit::facts;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// List operators
    List(List),
    /// Show one operator
    Show(Show),
    /// Make the application of a new operator, or of one more account
    Apply(Apply),
    /// Move that an operator be admitted
    Add(Add),
    /// Move that an operator without validator and device be let go
    Remove(Remove),
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar operator list")]
pub struct List {
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar operator show ada-ltd --json")]
pub struct Show {
    /// Its name
    name: String,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar operator apply --key account.json --name house --chain CHAIN > house.json"
)]
pub struct Apply {
    /// The account key file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The operator's name
    #[arg(long)]
    name: String,
    #[command(flatten)]
    chain: ChainArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar operator add house.json --token-file ~/node/token")]
pub struct Add {
    /// What `instar operator apply` printed
    file: PathBuf,
    #[command(flatten)]
    how: MoveArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar operator remove house")]
pub struct Remove {
    /// Its name
    name: String,
    #[command(flatten)]
    how: MoveArgs,
}

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::List(args) => facts(args.read.json, &all(&args.read)?, |all| {
            all.iter().map(line).collect::<Vec<_>>().join("\n")
        }),
        Verb::Show(args) => {
            let found = all(&args.read)?.remove(&args.name);
            let found = found.with_context(|| format!("there is no operator {:?}", args.name))?;
            facts(args.read.json, &found, |o| {
                serde_json::to_string_pretty(o).unwrap_or_default()
            })
        }
        Verb::Apply(args) => {
            let key = keyfile::load(&args.key, Purpose::Account)?;
            let proof = super::prove(&args.chain.id()?, &key, Purpose::Account, &args.name);
            let change = Change::OperatorAdd(OperatorAdd {
                account: key.public(),
                name: args.name,
                proof,
            });
            facts(true, &change, |_| String::new())
        }
        Verb::Add(args) => {
            super::propose(super::application(&args.file, "operator-add")?, &args.how)
        }
        Verb::Remove(args) => super::propose(
            Change::OperatorRemove(ByName { name: args.name }),
            &args.how,
        ),
    }
}

fn all(read: &ReadArgs) -> Result<BTreeMap<String, Operator>> {
    read.node.client()?.get("/v1/operators")
}

fn line((name, o): (&String, &Operator)) -> String {
    match o.removed {
        Some(height) => format!("{name}: let go at height {height}"),
        None => format!(
            "{name}: validators [{}], {} devices, {} accounts",
            o.validators.join(", "),
            o.devices.len(),
            o.accounts.len()
        ),
    }
}
