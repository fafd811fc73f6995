//! `instar key`: make and show keys, one purpose each.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use instar_attest::{Purpose, keyfile};

use super::NodeArgs;
use crate::exit::facts;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Make a key file, readable by its owner only
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
#[command(after_help = "Example: instar key new account -o account.json")]
pub struct New {
    /// What the key may sign; a key has one purpose only
    purpose: PurposeArg,
    /// Where to write it; an existing file is never overwritten
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
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

/// Runs the verb.
pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::New(args) => {
            let purpose = args.purpose.into();
            let key = keyfile::generate(&args.output, purpose)?;
            let value = serde_json::json!({"purpose": purpose, "public": key.public(), "file": args.output});
            facts(args.json, &value, |_| {
                format!(
                    "{purpose} key {} in {}",
                    key.public(),
                    args.output.display()
                )
            })
        }
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
