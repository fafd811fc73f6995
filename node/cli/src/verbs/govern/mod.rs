//! What is governed: motions, and the validators, operators and devices that they change.
//!
//! Whoever brings keys in makes an *application*, a JSON file that proves that he has them; any operator moves it.

pub mod device;
pub mod fork;
pub mod key;
pub mod motion;
pub mod operator;
pub mod validator;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use instar_attest::{ChainId, Digest, Purpose, SecretKey, Signature, keyfile};
use instar_chain::govern::ops::{GovernOp, Propose};
use instar_chain::govern::{Change, key_proof_bytes};
use instar_chain::ops::GOVERN;
use instar_ledger::{Entry, Outcome};
use instar_node::api::types::ReceiptAnswer;
use serde_json::json;

use super::NodeArgs;
use crate::client::Client;
use crate::exit::{Negative, facts};
use crate::founding;

/// Blocks between the vote that passes a motion and its effect, unless said otherwise.
const DEFAULT_DELAY: u64 = 2;

/// Who says something under `govern`, and through which node.
#[derive(clap::Args)]
pub struct SayArgs {
    /// An operator's account key file; else the node signs with its own account, which takes its token
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Seconds to wait for the receipt
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// How a change is moved.
#[derive(clap::Args)]
pub struct MoveArgs {
    /// How many blocks after it has passed it takes effect
    #[arg(long, value_name = "BLOCKS", default_value_t = DEFAULT_DELAY)]
    delay: u64,
    /// Why, for the others to read
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    say: SayArgs,
}

/// How facts are read.
#[derive(clap::Args)]
pub struct ReadArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// The chain that a proof is for.
#[derive(clap::Args)]
pub struct ChainArgs {
    /// The chain's id; else the node is asked
    #[arg(long, value_name = "CHAIN")]
    chain: Option<ChainId>,
    #[command(flatten)]
    node: NodeArgs,
}

impl ChainArgs {
    fn id(&self) -> Result<ChainId> {
        match self.chain {
            Some(chain) => Ok(chain),
            None => Ok(self.node.client()?.status()?.chain),
        }
    }
}

/// Shows that somebody has a key.
fn prove(chain: &ChainId, key: &SecretKey, purpose: Purpose, operator: &str) -> Signature {
    key.sign(&key_proof_bytes(chain, &key.public(), purpose, operator))
}

/// Moves a change, and says what became of it.
fn propose(change: Change, args: &MoveArgs) -> Result<()> {
    let op = GovernOp::Propose(Propose {
        change,
        delay: args.delay,
        reason: args.reason.clone(),
    });
    let (id, answer) = say(&op, &args.say)?;
    told(&id, &answer, args.say.json, |_| {
        format!(
            "motion {id}\nvalidators vote with: instar motion vote {id} yes|no\n{}",
            super::receipt::words(&answer)
        )
    })
}

/// Signs and sends what is said, and waits for its receipt.
fn say(op: &GovernOp, args: &SayArgs) -> Result<(Digest, ReceiptAnswer)> {
    let client: Client = args.node.client()?;
    let id = match &args.key {
        None => client.statement(GOVERN, op.to_value())?,
        Some(file) => {
            let key = keyfile::load(file, Purpose::Account)?;
            let nonce = client.account(&key.public())?.nonce;
            let chain = client.status()?.chain;
            let entry = Entry::sign(&chain, &key, nonce, GOVERN, op.to_value())?;
            client.submit(&entry.to_line())?;
            entry.id()
        }
    };
    let answer = client.wait_receipt(&id, Duration::from_secs(args.wait))?;
    Ok((id, answer))
}

fn told(
    id: &Digest,
    answer: &ReceiptAnswer,
    as_json: bool,
    words: impl FnOnce(&serde_json::Value) -> String,
) -> Result<()> {
    facts(as_json, &json!({"id": id, "receipt": answer}), words)?;
    match answer.receipt.outcome {
        Outcome::Applied => Ok(()),
        _ => Err(Negative("the ledger refused it".into()).into()),
    }
}

/// Reads an application of one kind.
fn application(file: &Path, kind: &str) -> Result<Change> {
    let change: Change =
        founding::read(file).with_context(|| format!("{} is no application", file.display()))?;
    ensure!(
        change.kind() == kind,
        "{} asks for {}, not for {kind}; `instar motion propose` takes any",
        file.display(),
        change.kind()
    );
    Ok(change)
}
