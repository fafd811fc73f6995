//! `instar chain fork`: makes the genesis of a chain that goes its own way from a block of another one, and a home that
//! has it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, ensure};
use instar_attest::ChainId;
use instar_audit::Trust;
use instar_ledger::Oid;
use instar_node::core::open;
use instar_node::home::Home;
use serde_json::json;

use crate::client::Client;
use crate::exit::{Negative, facts};
use crate::founding::{self, Plan, PublicValidator};
use crate::light::{header_at, way_to};
use crate::mother;

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  instar key new --home ~/fork --name ada --consensus /ip4/192.0.2.7/tcp/4001 --data /ip4/192.0.2.7/tcp/4002 >ada.json
  instar chain fork http://127.0.0.1:8080 --mother 5f0c…(64 digits) --home ~/fork --plan plan.json --validator ada.json

The fork has the mother's history, and its dapps begin with what they hold on the mother at that height. Validators,
operators, devices and policy are those of the plan and the public files. Nothing that is signed for one of the two chains
counts on the other. plan.json is as for `instar chain init`; its time lies after the mother's block, and its accounts are
for dapps that the mother has not.
Everybody with the same plan, public files, releases and height gets the same chain id. The newest block's certificate may
differ from node to node, so several operators name a height below it. The node keeps the states of its newest 1024 heights.")]
pub struct Args {
    /// The HTTP API of a node of the mother
    #[arg(value_name = "URL")]
    url: String,
    /// The mother's id, from somewhere you trust
    #[arg(long, value_name = "CHAIN")]
    mother: ChainId,
    /// Where the fork leaves her; at the newest block unless given
    #[arg(long)]
    height: Option<u64>,
    /// The home that `instar key new --home` made
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    /// What all operators agreed on: name, time, accounts of new dapps, policy
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// The public files of all validators of the fork, the own one among them
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    validator: Vec<PathBuf>,
    /// Folders that `instar build` made of new dapps, or for the slot `node`; without one for that, this program
    #[arg(long, value_name = "DIR", num_args = 1..)]
    release: Vec<PathBuf>,
    /// A ledger of the mother on this machine, whose objects are read in their place; else they are fetched into the home
    #[arg(long, value_name = "PATH")]
    share: Option<PathBuf>,
    /// Where the node's HTTP API will listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Go on only if this is the fork's id
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
    let client = Client::new(&args.url, None);
    let header = header_at(&client, args.height)?;
    let way = way_to(&client, &Trust::Chain(args.mother), header)
        .context("the mother's block does not hold")?;
    let of_mother = way.genesis.context("the mother's genesis is not known")?;
    let (height, block): (u64, Oid) = (way.header.header.height, way.block);
    home.create()?;
    mother::fetch_state(&client, &format!("/v1/state/{height}"), &home).with_context(|| {
        format!("the mother's state at height {height} can't be had from this node; it keeps the newest ones only")
    })?;
    let state = open::read_mother_state(&home.mother_state())?;
    ensure!(
        state.root() == way.header.header.state_root,
        "the node gives another state than the one that block {block} certifies"
    );
    let admitted = super::init::admitted(&args.release, &args.home)?;
    let mut genesis = founding::genesis(&plan, &validators, &admitted)?;
    mother::take_over(&mut genesis, &of_mother, way.header, &state)?;
    let id = genesis.chain_id()?;
    if let Some(wanted) = args.id
        && wanted != id
    {
        return Err(Negative(format!(
            "this is chain {id}, not {wanted}: plan, public files, releases, height or the block's certificate differ from \
             the others'"
        ))
        .into());
    }
    // Rules that only the state machine knows are tried before more is written.
    instar_chain::fork_writes(&genesis, &id, &state).map_err(|e| anyhow!("the genesis: {e}"))?;
    drop(state);
    let history = mother::history(args.share.as_deref(), &client, &block, &home)?;
    founding::store_releases(&home, &admitted)?;
    mother::images(&client, &home, &genesis)?;
    home.write_config(&super::init::config(args.http, own, &validators))?;
    open::create_fork(&home, &genesis, &history)?;
    let dapps = genesis.fork.map(|f| f.dapps).unwrap_or_default();
    let value = json!({
        "block": block,
        "chain": id,
        "dapps": dapps,
        "height": height,
        "history": history,
        "home": args.home,
        "mother": args.mother,
        "validator": own.name,
        "validators": validators.len(),
    });
    facts(args.json, &value, |_| {
        let at = args.home.display();
        format!(
            "chain {id}\na fork of {} at height {height} ({block})\nits history is read from {}\n{} validators; this home is {}\ncompare the id with the other operators, then run it:\n  instar upgrader run --home {at} -- node run --home {at}",
            args.mother,
            history.display(),
            validators.len(),
            own.name
        )
    })
}
