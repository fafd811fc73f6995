//! `instar chain fork`: makes the genesis of a chain that goes its own way from a block of another one, and a home that
//! has it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, ensure};
use instar_attest::ChainId;
use instar_audit::Trust;
use instar_ledger::Oid;
use instar_node::core::open;
use serde_json::json;

use super::founders::{Founders, admitted};
use crate::client::Client;
use crate::exit::facts;
use crate::founding;
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
    #[command(flatten)]
    founders: Founders,
    /// Folders that `instar build` made of new dapps, or for the slot `node`; without one for that, this program
    #[arg(long, value_name = "DIR", num_args = 1..)]
    release: Vec<PathBuf>,
    /// A ledger of the mother on this machine, whose objects are read in their place; else they are fetched into the home
    #[arg(long, value_name = "PATH")]
    share: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let founders = &args.founders;
    let founding = founders.read()?;
    let home = &founding.home;
    let client = Client::new(&args.url, None);
    let header = header_at(&client, args.height)?;
    let way = way_to(&client, &Trust::Chain(args.mother), header)
        .context("the mother's block does not hold")?;
    let of_mother = way.genesis.context("the mother's genesis is not known")?;
    let (height, block): (u64, Oid) = (way.header.header.height, way.block);
    home.create()?;
    mother::fetch_state(&client, &format!("/v1/state/{height}"), home).with_context(|| {
        format!("the mother's state at height {height} can't be had from this node; it keeps the newest ones only")
    })?;
    let state = open::read_mother_state(&home.mother_state())?;
    ensure!(
        state.root() == way.header.header.state_root,
        "the node gives another state than the one that block {block} certifies"
    );
    let admitted = admitted(&args.release, &founders.home)?;
    let mut genesis = founding::genesis(&founding.plan, &founding.validators, &admitted)?;
    mother::take_over(&mut genesis, &of_mother, way.header, &state)?;
    let id = genesis.chain_id()?;
    let differs = "plan, public files, releases, height or the block's certificate differ";
    founders.confirm(id, differs)?;
    // Rules that only the state machine knows are tried before more is written.
    instar_chain::fork_writes(&genesis, &id, &state).map_err(|e| anyhow!("the genesis: {e}"))?;
    drop(state);
    let history = mother::history(args.share.as_deref(), &client, &block, home)?;
    founding::store_releases(home, &admitted)?;
    mother::images(&client, home, &genesis)?;
    home.write_config(&founders.config(&founding))?;
    open::create_fork(home, &genesis, &history)?;
    let dapps = genesis.fork.map(|f| f.dapps).unwrap_or_default();
    let value = json!({
        "block": block,
        "chain": id,
        "dapps": dapps,
        "height": height,
        "history": history,
        "home": founders.home,
        "mother": args.mother,
        "validator": founding.own.name,
        "validators": founding.validators.len(),
    });
    facts(args.json, &value, |_| {
        let at = founders.home.display();
        format!(
            "chain {id}\na fork of {} at height {height} ({block})\nits history is read from {}\n{} validators; this home is {}\ncompare the id with the other operators, then run it:\n  instar upgrader run --home {at} -- node run --home {at}",
            args.mother,
            history.display(),
            founding.validators.len(),
            founding.own.name
        )
    })
}
