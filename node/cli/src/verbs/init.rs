//! `instar chain init`: makes the genesis that a plan and the operators' public files describe, and a home that has it.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::founders::{Founders, admitted};
use crate::exit::facts;
use crate::founding;

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  instar chain init --home ~/node --plan plan.json --validator val-*.json --release coin-1\n\nplan.json: {\"chain_name\":\"my-baby\",\"time_ms\":1795262400000,\"accounts\":{\"coin\":{\"balance\":{\"KEY\":\"1000\"}}}}\nEverybody with the same plan, public files and releases gets the same chain id; compare it before you start."
)]
pub struct Args {
    #[command(flatten)]
    founders: Founders,
    /// Folders that `instar build` made of what the chain starts with; without one for the slot `node`, this program
    #[arg(long, value_name = "DIR", num_args = 1..)]
    release: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let founders = &args.founders;
    let founding = founders.read()?;
    let admitted = admitted(&args.release, &founders.home)?;
    let genesis = founding::genesis(&founding.plan, &founding.validators, &admitted)?;
    let id = genesis.chain_id()?;
    founders.confirm(id, "plan, public files or releases differ")?;
    // Rules that only the state machine knows are tried before anything is written.
    instar_chain::genesis_writes(&genesis, &id).map_err(|e| anyhow::anyhow!("the genesis: {e}"))?;
    founding.home.write_config(&founders.config(&founding))?;
    founding::found(&founding.home, &genesis, &admitted)?;
    let releases: Vec<_> = admitted
        .iter()
        .map(|a| json!({"slot": a.slot, "release": a.root}))
        .collect();
    let value = json!({"chain": id, "home": founders.home, "validator": founding.own.name, "validators": founding.validators.len(), "releases": releases});
    facts(args.json, &value, |_| {
        let home = founders.home.display();
        format!(
            "chain {id}\n{} validators; this home is {}\ncompare the id with the other operators, then run it:\n  instar upgrader run --home {home} -- node run --home {home}",
            founding.validators.len(),
            founding.own.name
        )
    })
}
