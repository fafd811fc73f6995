//! `instar key`: make and show keys, one purpose each.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use instar_attest::{Purpose, keyfile};
use instar_node::home::Home;

use super::NodeArgs;
use crate::exit::facts;
use crate::founding::{self, PublicFormat, PublicValidator};

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Make a key file, readable by its owner only, or all keys of a validator
    New(New),
    /// Show the public half of a key file
    Show(Show),
    /// Print the chain's lane keys as an OpenSSH allowed-signers file, for `git verify-commit`
    AllowedSigners(AllowedSigners),
}

#[derive(Clone, Copy, ValueEnum)]
enum PurposeArg {
    Consensus,
    Lane,
    Builder,
    Account,
}

impl From<PurposeArg> for Purpose {
    fn from(arg: PurposeArg) -> Self {
        match arg {
            PurposeArg::Consensus => Self::Consensus,
            PurposeArg::Lane => Self::Lane,
            PurposeArg::Builder => Self::Builder,
            PurposeArg::Account => Self::Account,
        }
    }
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  instar key new account -o account.json\n  instar key new --home ~/node --name val-1 --operator alice \\\n    --consensus /ip4/192.0.2.7/tcp/7001 --data /ip4/192.0.2.7/tcp/7002 > val-1.json"
)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["purpose", "home"]))]
pub struct New {
    /// What the key may sign; a key has one purpose only
    #[arg(requires = "output")]
    purpose: Option<PurposeArg>,
    /// Where to write it; an existing file is never overwritten
    #[arg(short, long, value_name = "FILE", requires = "purpose")]
    output: Option<PathBuf>,
    /// Make all keys of a validator in this node's home, and print its public file for the other operators
    #[arg(long, value_name = "DIR", requires_all = ["name", "consensus", "data"])]
    home: Option<PathBuf>,
    /// The validator's name on the ledger
    #[arg(long, requires = "home")]
    name: Option<String>,
    /// The person or organisation it belongs to; its name, unless said otherwise
    #[arg(long, requires = "home")]
    operator: Option<String>,
    /// Its voting power
    #[arg(long, requires = "home", default_value_t = 1)]
    power: u64,
    /// Multiaddress where the others reach its consensus swarm
    #[arg(long, value_name = "MULTIADDR", requires = "home")]
    consensus: Option<String>,
    /// Multiaddress where the others reach its data swarm
    #[arg(long, value_name = "MULTIADDR", requires = "home")]
    data: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar key show account.json")]
pub struct Show {
    /// The key file
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example: instar key allowed-signers > allowed_signers")]
pub struct AllowedSigners {
    #[command(flatten)]
    node: NodeArgs,
}

fn one(purpose: PurposeArg, output: &Path, json: bool) -> Result<()> {
    let purpose = purpose.into();
    let key = keyfile::generate(output, purpose)?;
    let value = serde_json::json!({"purpose": purpose, "public": key.public(), "file": output});
    facts(json, &value, |_| {
        format!("{purpose} key {} in {}", key.public(), output.display())
    })
}

/// A validator's keys. What is printed is its public file, whose only form is JSON.
fn validator(args: &New, home: &Path) -> Result<()> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let keys = founding::make_keys(&Home::new(home))?;
    let public = PublicValidator {
        consensus: text(&args.consensus),
        data: text(&args.data),
        format: PublicFormat::V1,
        keys,
        name: text(&args.name),
        operator: args.operator.clone().unwrap_or_else(|| text(&args.name)),
        power: args.power,
    };
    facts(true, &public, |_| String::new())
}

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::New(args) => match (&args.purpose, &args.output, &args.home) {
            (Some(purpose), Some(output), _) => one(*purpose, output, args.json),
            (_, _, Some(home)) => validator(&args, home),
            // The command line's own rules leave no third case.
            _ => Err(anyhow!(
                "name a purpose with --output, or a validator's --home"
            )),
        },
        Verb::Show(args) => {
            let (key, purpose) = keyfile::load_any(&args.file)?;
            let public = key.public();
            let value = serde_json::json!({"purpose": purpose, "public": public});
            facts(args.json, &value, |_| format!("{purpose} key {public}"))
        }
        Verb::AllowedSigners(args) => {
            print!("{}", args.node.client()?.text("/v1/allowed-signers")?);
            Ok(())
        }
    }
}
