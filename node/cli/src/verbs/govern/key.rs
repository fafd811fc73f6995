//! `instar key replace`: a new key in the place of one that is registered.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use instar_attest::{PublicKey, Purpose, keyfile};
use instar_chain::govern::Change;
use instar_chain::govern::ops::KeyReplace;
use instar_chain::query::Operator;
use instar_chain::record::{DeviceRecord, ValidatorRecord};
use instar_ledger::DeviceId;

use super::MoveArgs;
use crate::client::Client;

/// Moves that a key be replaced, whatever it is for.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  instar key new consensus -o consensus-2.json\n  instar key replace consensus-2.json --old 9d4e…(64 digits) --token-file ~/node/token\n\nThe old key is never used again. Exit codes: 0 it is moved · 1 the ledger refused it, or no answer · 2 wrong use of the command line."
)]
pub struct Replace {
    /// The new key's file; its purpose is that of the old one
    file: PathBuf,
    /// The key that is replaced
    #[arg(long, value_name = "KEY")]
    old: PublicKey,
    #[command(flatten)]
    how: MoveArgs,
}

/// Runs the verb.
pub fn replace(args: &Replace) -> Result<()> {
    let (_, purpose) = keyfile::public(&args.file)?;
    let key = keyfile::load(&args.file, purpose)?;
    let client = args.how.say.node.client()?;
    let operator = owner(&client, &args.old, purpose)?
        .with_context(|| format!("no operator has the {purpose} key {}", args.old))?;
    let proof = super::prove(&client.status()?.chain, &key, purpose, &operator);
    let change = Change::KeyReplace(KeyReplace {
        new: key.public(),
        old: args.old,
        proof,
    });
    super::propose(change, &args.how)
}

/// Whose key it is.
fn owner(client: &Client, key: &PublicKey, purpose: Purpose) -> Result<Option<String>> {
    Ok(match purpose {
        Purpose::Account => {
            let all: BTreeMap<String, Operator> = client.get("/v1/operators")?;
            let own = |(_, o): &(String, Operator)| o.accounts.contains(key);
            all.into_iter().find(own).map(|(name, _)| name)
        }
        Purpose::Lane => {
            let all: BTreeMap<DeviceId, DeviceRecord> = client.get("/v1/devices")?;
            let own = all.into_values().find(|d| d.lane_key == *key);
            own.map(|d| d.operator)
        }
        Purpose::Builder | Purpose::Consensus => {
            let all: Vec<ValidatorRecord> = client.get("/v1/validators")?;
            let own = |v: &ValidatorRecord| match purpose {
                Purpose::Builder => v.keys.builder == *key,
                _ => v.keys.consensus == *key,
            };
            all.into_iter().find(own).map(|v| v.operator)
        }
    })
}
