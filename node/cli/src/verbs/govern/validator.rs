//! `instar validator`: who decides, and how one comes and goes.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use instar_attest::Purpose;
use instar_chain::govern::Change;
use instar_chain::govern::ops::{ByName, Proofs, ValidatorAdd, ValidatorPower};
use instar_chain::record::ValidatorRecord;
use instar_node::home::Home;

use super::{ChainArgs, MoveArgs, ReadArgs};
use crate::exit::facts;
use crate::founding;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// List validators with their power
    List(List),
    /// Show one validator
    Show(Show),
    /// Make the application of a new validator: its keys, each proven
    Apply(Apply),
    /// Move that a validator be admitted
    Add(Add),
    /// Move that a validator be let go
    Remove(Remove),
    /// Move that a validator get another power
    Power(Power),
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar validator list --json")]
pub struct List {
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar validator show ada")]
pub struct Show {
    /// Its name
    name: String,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  instar key new --home ~/node --name eve --consensus /ip4/192.0.2.9/tcp/7001 --data /ip4/192.0.2.9/tcp/7002 > eve.json\n  instar validator apply --home ~/node --name eve --chain CHAIN > eve-application.json"
)]
pub struct Apply {
    /// The home with its keys
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    /// Its name: never used before by a validator or a device
    #[arg(long)]
    name: String,
    /// The person or organisation it belongs to; its name, unless said otherwise
    #[arg(long)]
    operator: Option<String>,
    /// Its voting power
    #[arg(long, default_value_t = 1)]
    power: u64,
    /// The account key is the operator's already
    #[arg(long)]
    known_account: bool,
    /// The lane key is that of a device that the operator has already
    #[arg(long)]
    known_device: bool,
    #[command(flatten)]
    chain: ChainArgs,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar validator add eve-application.json --delay 20 --token-file ~/node/token\n\nExit codes: 0 it is moved · 1 the ledger refused it, or no answer · 2 wrong use of the command line."
)]
pub struct Add {
    /// What `instar validator apply` printed
    file: PathBuf,
    #[command(flatten)]
    how: MoveArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar validator remove dan --reason 'gone since May'")]
pub struct Remove {
    /// Its name
    name: String,
    #[command(flatten)]
    how: MoveArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar validator power ada 3")]
pub struct Power {
    /// Its name
    name: String,
    /// Its new power
    power: u64,
    #[command(flatten)]
    how: MoveArgs,
}

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::List(args) => facts(args.read.json, &all(&args.read)?, |all| {
            let total: u64 = all.iter().map(|v| v.power).sum();
            let line = |v: &ValidatorRecord| {
                format!("{} ({}): power {} of {total}", v.name, v.operator, v.power)
            };
            all.iter().map(line).collect::<Vec<_>>().join("\n")
        }),
        Verb::Show(args) => {
            let found = all(&args.read)?.into_iter().find(|v| v.name == args.name);
            let found = found.with_context(|| format!("there is no validator {:?}", args.name))?;
            facts(args.read.json, &found, |v| {
                serde_json::to_string_pretty(v).unwrap_or_default()
            })
        }
        Verb::Apply(args) => apply(&args),
        Verb::Add(args) => {
            super::propose(super::application(&args.file, "validator-add")?, &args.how)
        }
        Verb::Remove(args) => super::propose(
            Change::ValidatorRemove(ByName { name: args.name }),
            &args.how,
        ),
        Verb::Power(args) => super::propose(
            Change::ValidatorPower(ValidatorPower {
                name: args.name,
                power: args.power,
            }),
            &args.how,
        ),
    }
}

fn all(read: &ReadArgs) -> Result<Vec<ValidatorRecord>> {
    read.node.client()?.get("/v1/validators")
}

fn apply(args: &Apply) -> Result<()> {
    let home = Home::new(&args.home);
    let keys = founding::public_keys(&home)
        .context("the home has no keys; make them with `instar key new --home`")?;
    let chain = args.chain.id()?;
    let operator = args.operator.clone().unwrap_or_else(|| args.name.clone());
    let by = |purpose: Purpose| -> Result<_> {
        Ok(super::prove(
            &chain,
            &home.key(purpose)?,
            purpose,
            &operator,
        ))
    };
    let new = |known: bool, purpose| (!known).then(|| by(purpose)).transpose();
    let proofs = Proofs {
        account: new(args.known_account, Purpose::Account)?,
        builder: by(Purpose::Builder)?,
        consensus: by(Purpose::Consensus)?,
        lane: new(args.known_device, Purpose::Lane)?,
    };
    let change = Change::ValidatorAdd(Box::new(ValidatorAdd {
        keys,
        name: args.name.clone(),
        operator,
        power: args.power,
        proofs,
    }));
    facts(true, &change, |_| String::new())
}
