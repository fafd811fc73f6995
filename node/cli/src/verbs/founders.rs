//! What the verbs that begin a chain share: what its operators have agreed on, and the home that has the keys.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use instar_attest::ChainId;
use instar_node::home::{
    AutoVoteSetting, Home, NodeConfig, PeerAddress, SNAPSHOT_EVERY, STATES_KEPT,
};

use crate::exit::Negative;
use crate::founding::{self, Admitted, Plan, PublicValidator};

/// What all operators of a chain agreed on, and this one's home.
#[derive(clap::Args)]
pub struct Founders {
    /// The home that `instar key new --home` made
    #[arg(long, value_name = "DIR")]
    pub home: PathBuf,
    /// What all operators agreed on: name, time, accounts, policy
    #[arg(long, value_name = "FILE")]
    pub plan: PathBuf,
    /// The public files of all validators, the own one among them
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub validator: Vec<PathBuf>,
    /// Where the node's HTTP API will listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    /// Go on only if this is the new chain's id
    #[arg(long, value_name = "CHAIN")]
    pub id: Option<ChainId>,
    /// Keep every state and every block, for auditors and for those who join by replaying; a chain needs one or two such
    #[arg(long)]
    pub archive: bool,
}

/// The same, read.
pub struct Founding {
    /// The home; it has no chain yet.
    pub home: Home,
    /// The plan.
    pub plan: Plan,
    /// All validators.
    pub validators: Vec<PublicValidator>,
    /// The one of this home.
    pub own: PublicValidator,
}

impl Founders {
    /// Reads all of it.
    pub fn read(&self) -> Result<Founding> {
        let home = vacant(&self.home)?;
        let plan: Plan = founding::read(&self.plan)?;
        let validators = self
            .validator
            .iter()
            .map(|path| founding::read(path))
            .collect::<Result<Vec<PublicValidator>>>()?;
        let keys = founding::public_keys(&home)
            .context("the home has no keys; make them with `instar key new --home`")?;
        let own = validators
            .iter()
            .find(|v| v.keys == keys)
            .context("none of the public files has this home's keys; name the own file too")?
            .clone();
        Ok(Founding {
            home,
            plan,
            validators,
            own,
        })
    }

    /// Refuses another id than the one that was asked for, if one was. `differs` says what may be the cause.
    pub fn confirm(&self, id: ChainId, differs: &str) -> Result<()> {
        match self.id {
            Some(wanted) if wanted != id => Err(Negative(format!(
                "this is chain {id}, not {wanted}: {differs} from the others'"
            ))
            .into()),
            _ => Ok(()),
        }
    }

    /// The node's configuration.
    pub fn config(&self, founding: &Founding) -> NodeConfig {
        let Founding {
            own, validators, ..
        } = founding;
        NodeConfig {
            auto_vote: AutoVoteSetting::OwnBuild,
            name: own.name.clone(),
            http: self.http,
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
            states_kept: if self.archive { 0 } else { STATES_KEPT },
            history_kept: self.archive.then_some(0),
            snapshot_every: SNAPSHOT_EVERY,
        }
    }
}

/// The home at `path`, which must have no chain.
pub(super) fn vacant(path: &Path) -> Result<Home> {
    let home = Home::new(path);
    ensure!(
        !home.ledger().exists(),
        "{} has a chain already; a chain is never made over another one",
        path.display()
    );
    Ok(home)
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
