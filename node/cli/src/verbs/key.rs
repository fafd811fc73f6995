//! `instar key`: make and show keys, one purpose each.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;
use instar_attest::{Purpose, SecretKey, VerifyKey, keyfile};
use instar_node::home::Home;
use zeroize::Zeroizing;

use super::NodeArgs;
use crate::exit::facts;
use crate::founding::{self, PublicFormat, PublicValidator};

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Make a key file, readable by its owner only, or all keys of a validator
    New(New),
    /// Show the public half of a key file
    Show(Show),
    /// Move that a key be replaced on the ledger by a new one
    Replace(super::govern::key::Replace),
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
    after_help = "Examples:\n  instar key new account -o account.json\n  INSTAR_KEY_PASSPHRASE=… instar key new builder --seal -o builder.json\n  instar key new --home ~/node --name val-1 --operator alice \\\n    --consensus /ip4/192.0.2.7/tcp/7001 --data /ip4/192.0.2.7/tcp/7002 > val-1.json"
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
    /// Seal the secret half with a passphrase, taken from INSTAR_KEY_PASSPHRASE or from a file
    #[arg(long, requires = "purpose")]
    seal: bool,
    /// A file with the passphrase; its first line counts
    #[arg(long, value_name = "FILE", requires = "seal")]
    passphrase_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which key signs. A verb where nothing else can sign makes `key` required.
#[derive(clap::Args)]
pub struct KeyArgs {
    /// The key file, or `env:NAME` for a variable that holds its content
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A file with the passphrase of a sealed key; else INSTAR_KEY_PASSPHRASE
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl KeyArgs {
    /// The key, if it is there for `purpose`.
    pub fn load(&self, purpose: Purpose) -> Result<SecretKey> {
        let key = self
            .key
            .as_ref()
            .context("which key signs? name its file with --key")?;
        let words = passphrase(self.passphrase_file.as_deref())?;
        let words = words.as_ref().map(|w| w.as_str());
        let variable = key.to_str().and_then(|k| k.strip_prefix("env:"));
        let Some(variable) = variable else {
            return Ok(keyfile::load_with(key, purpose, words)?);
        };
        let text = std::env::var(variable)
            .map(Zeroizing::new)
            .with_context(|| format!("the variable {variable} can't be read"))?;
        Ok(keyfile::from_text(&text, key, purpose, words)?)
    }
}

/// The passphrase from a file, or from the environment; nothing if there is neither.
fn passphrase(file: Option<&Path>) -> Result<Option<Zeroizing<String>>> {
    let Some(file) = file else {
        return Ok(std::env::var("INSTAR_KEY_PASSPHRASE")
            .ok()
            .map(Zeroizing::new));
    };
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.with_context(|| format!("the passphrase file {}", file.display()))?;
    Ok(Some(Zeroizing::new(
        text.lines().next().unwrap_or_default().to_owned(),
    )))
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  instar key show account.json\n  instar key show builder.json --pem > builder.pem      # for cosign, sigstore-js, in-toto, OpenSSL"
)]
pub struct Show {
    /// The key file, sealed or not
    file: PathBuf,
    /// Print the public half as PEM
    #[arg(long, conflicts_with = "json")]
    pem: bool,
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

fn one(args: &New, purpose: PurposeArg, output: &Path) -> Result<()> {
    let purpose = purpose.into();
    let key = if args.seal {
        let words = passphrase(args.passphrase_file.as_deref())?.context(
            "no passphrase: set INSTAR_KEY_PASSPHRASE, or name a file with --passphrase-file",
        )?;
        let key = SecretKey::from_seed(&*keyfile::os_seed()?);
        keyfile::create_sealed(output, purpose, &key, &words)?;
        key
    } else {
        keyfile::generate(output, purpose)?
    };
    let value = serde_json::json!({"purpose": purpose, "public": key.public(), "file": output});
    facts(args.json, &value, |_| {
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
            (Some(purpose), Some(output), _) => one(&args, *purpose, output),
            (_, _, Some(home)) => validator(&args, home),
            // The command line's own rules leave no third case.
            _ => Err(anyhow!(
                "name a purpose with --output, or a validator's --home"
            )),
        },
        Verb::Show(args) => {
            let (public, purpose) = keyfile::public(&args.file)?;
            if args.pem {
                print!("{}", VerifyKey::Ed25519(public).to_pem());
                return Ok(());
            }
            let value = serde_json::json!({"purpose": purpose, "public": public, "key_id": public.key_id()});
            facts(args.json, &value, |_| format!("{purpose} key {public}"))
        }
        Verb::Replace(args) => super::govern::key::replace(&args),
        Verb::AllowedSigners(args) => {
            print!("{}", args.node.client()?.text("/v1/allowed-signers")?);
            Ok(())
        }
    }
}
