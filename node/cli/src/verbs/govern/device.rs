//! `instar device`: who has a lane.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use instar_attest::{Purpose, keyfile};
use instar_chain::govern::Change;
use instar_chain::govern::ops::{DeviceAdd, DeviceRetire};
use instar_chain::record::DeviceRecord;
use instar_ledger::DeviceId;

use super::{ChainArgs, MoveArgs, ReadArgs};
use crate::exit::facts;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// List devices
    List(List),
    /// Show one device
    Show(Show),
    /// Make the application of a new device
    Apply(Apply),
    /// Move that a device be registered
    Add(Add),
    /// Move that a device's lane be closed for ever
    #[command(visible_alias = "remove")]
    Retire(Retire),
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar device list")]
pub struct List {
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar device show door --json")]
pub struct Show {
    /// Its name or its id
    device: String,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: instar device apply --key lane.json --name door --operator house --chain CHAIN > door.json"
)]
pub struct Apply {
    /// The lane key file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Its name: never used before by a validator or a device
    #[arg(long)]
    name: String,
    /// Whose it is
    #[arg(long)]
    operator: String,
    #[command(flatten)]
    chain: ChainArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar device add door.json --token-file ~/node/token")]
pub struct Add {
    /// What `instar device apply` printed
    file: PathBuf,
    #[command(flatten)]
    how: MoveArgs,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar device retire door")]
pub struct Retire {
    /// Its name or its id
    device: String,
    #[command(flatten)]
    how: MoveArgs,
}

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::List(args) => {
            let all = all(&args.read.node)?;
            facts(args.read.json, &all, |all| {
                all.iter().map(line).collect::<Vec<_>>().join("\n")
            })
        }
        Verb::Show(args) => {
            let (_, device) = find(&args.read.node, &args.device)?;
            facts(args.read.json, &device, |d| {
                serde_json::to_string_pretty(d).unwrap_or_default()
            })
        }
        Verb::Apply(args) => {
            let key = keyfile::load(&args.key, Purpose::Lane)?;
            let proof = super::prove(&args.chain.id()?, &key, Purpose::Lane, &args.operator);
            let change = Change::DeviceAdd(DeviceAdd {
                lane: key.public(),
                name: args.name,
                operator: args.operator,
                proof,
            });
            facts(true, &change, |_| String::new())
        }
        Verb::Add(args) => super::propose(super::application(&args.file, "device-add")?, &args.how),
        Verb::Retire(args) => {
            let (device, _) = find(&args.how.say.node, &args.device)?;
            super::propose(Change::DeviceRetire(DeviceRetire { device }), &args.how)
        }
    }
}

fn all(node: &crate::verbs::NodeArgs) -> Result<BTreeMap<DeviceId, DeviceRecord>> {
    node.client()?.get("/v1/devices")
}

/// The device of this name or id; names are unique.
fn find(node: &crate::verbs::NodeArgs, wanted: &str) -> Result<(DeviceId, DeviceRecord)> {
    all(node)?
        .into_iter()
        .find(|(id, d)| d.name == wanted || id.to_string() == wanted)
        .with_context(|| format!("there is no device {wanted:?}"))
}

fn line((id, d): (&DeviceId, &DeviceRecord)) -> String {
    let mut text = format!("{} ({}): {id}/{}", d.name, d.operator, d.incarnation);
    if let Some(closed) = d.closed {
        text += &format!(" · {} since height {}", closed.by.rule(), closed.since);
    }
    text
}
