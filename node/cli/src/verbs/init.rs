//! `instar chain init`: makes the genesis that a plan and the operators' public files describe, and a home that has it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use instar_attest::ChainId;
use instar_node::home::{
    AutoVoteSetting, Home, NodeConfig, PeerAddress, SNAPSHOT_EVERY, STATES_KEPT,
};
use serde_json::json;

use crate::exit::{Negative, facts};
use crate::founding::{self, Admitted, Plan, PublicValidator};

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  instar chain init --home ~/node --plan plan.json --validator val-*.json --release coin-1\n\nplan.json: {\"chain_name\":\"my-baby\",\"time_ms\":1795262400000,\"accounts\":{\"coin\":{\"balance\":{\"KEY\":\"1000\"}}}}\nEverybody with the same plan, public files and releases gets the same chain id; compare it before you start."
)]
pub struct Args {
    /// The home that `instar key new --home` made
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    /// What all operators agreed on: name, time, accounts, policy
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// The public files of all validators, the own one among them
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    validator: Vec<PathBuf>,
    /// Folders that `instar build` made of what the chain starts with; without one for the slot `node`, this program
    #[arg(long, value_name = "DIR", num_args = 1..)]
    release: Vec<PathBuf>,
    /// Where the node's HTTP API will listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Go on only if this is the chain's id
    #[arg(long, value_name = "CHAIN")]
    id: Option<ChainId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let home = Home::new(&args.home);
    ensure!(
        !home.ledger().exists(),
        "{} has a chain already; a chain is never made over another one",
        args.home.display()
    );
    let plan: Plan = founding::read(&args.plan)?;
    let validators = args
        .validator
        .iter()
        .map(|path| founding::read(path))
        .collect::<Result<Vec<PublicValidator>>>()?;
    let keys = founding::public_keys(&home)
        .context("the home has no keys; make them with `instar key new --home`")?;
    let own = validators
        .iter()
        .find(|v| v.keys == keys)
        .context("none of the public files has this home's keys; name the own file too")?;
    let admitted = admitted(&args.release, &args.home)?;
    let genesis = founding::genesis(&plan, &validators, &admitted)?;
    let id = genesis.chain_id()?;
    if let Some(wanted) = args.id
        && wanted != id
    {
        return Err(Negative(format!(
            "this is chain {id}, not {wanted}: plan, public files or releases differ from the others'"
        ))
        .into());
    }
    // Rules that only the state machine knows are tried before anything is written.
    instar_chain::genesis_writes(&genesis, &id).map_err(|e| anyhow::anyhow!("the genesis: {e}"))?;
    home.write_config(&config(args.http, own, &validators))?;
    founding::found(&home, &genesis, &admitted)?;
    let releases: Vec<_> = admitted
        .iter()
        .map(|a| json!({"slot": a.slot, "release": a.root}))
        .collect();
    let value = json!({"chain": id, "home": args.home, "validator": own.name, "validators": validators.len(), "releases": releases});
    facts(args.json, &value, |_| {
        let home = args.home.display();
        format!(
            "chain {id}\n{} validators; this home is {}\ncompare the id with the other operators, then run it:\n  instar upgrader run --home {home} -- node run --home {home}",
            validators.len(),
            own.name
        )
    })
}

pub(super) fn admitted(dirs: &[PathBuf], home: &Path) -> Result<Vec<Admitted>> {
    let mut admitted = dirs
        .iter()
        .map(|dir| founding::admit_built(dir))
        .collect::<Result<Vec<_>>>()?;
    if admitted.iter().all(|a| a.slot != "node") {
        let dir = home.join("genesis-node");
        let zero = ChainId::from_bytes([0; 32]);
        let source = crate::release::unknown_source();
        let program = std::env::current_exe()?;
        admitted.push(founding::admit(
            crate::release::of_program(&program, &dir, zero, source)?,
            dir,
        )?);
    }
    Ok(admitted)
}

pub(super) fn config(
    http: SocketAddr,
    own: &PublicValidator,
    validators: &[PublicValidator],
) -> NodeConfig {
    NodeConfig {
        auto_vote: AutoVoteSetting::OwnBuild,
        name: own.name.clone(),
        http,
        consensus: own.consensus.clone(),
        data: own.data.clone(),
        delta_patience_s: 0,
        dht: None,
        stuck_after_s: instar_node::watchdog::DEFAULT_STUCK_S,
        peers: validators
            .iter()
            .filter(|v| v.keys != own.keys)
            .map(|v| PeerAddress {
                name: v.name.clone(),
                consensus: v.consensus.clone(),
                data: v.data.clone(),
            })
            .collect(),
        follow: Vec::new(),
        states_kept: STATES_KEPT,
        snapshot_every: SNAPSHOT_EVERY,
    }
}
