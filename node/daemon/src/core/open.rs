//! Opening a node's stores, and bringing them to one height.

use std::path::Path;
use std::sync::Arc;

use instar_attest::{ChainId, Purpose};
use instar_chain::{GenesisError, Writes};
use instar_ledger::store::OpenOptions;
use instar_ledger::{Certificate, Genesis, Header, Store, ValidatorSet};
use instar_runtime::Runtime;
use instar_state::{Fork, StateStore};

use super::base::Base;
use super::{Core, CoreError, Head, OwnKeys, ledger_error, own_lane};
use crate::home::{Home, HomeError};
use crate::index::Index;

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The home folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A store.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The genesis can't be carried out.
    #[error("the genesis: {0}")]
    Genesis(String),
}

/// Makes the ledger and the state of a new home from a genesis.
pub fn create(home: &Home, genesis: &Genesis) -> Result<ChainId, OpenError> {
    create_with(home, genesis, None, |chain| {
        instar_chain::genesis_writes(genesis, chain)
    })
}

/// As [`create`], for a fork: `history` is a repository with the mother's blocks, which stays where it is, and the home
/// has a dump of the mother's state.
pub fn create_fork(home: &Home, genesis: &Genesis, history: &Path) -> Result<ChainId, OpenError> {
    let mother = mother_state(home, genesis)?;
    create_with(home, genesis, Some(history), |chain| {
        instar_chain::fork_writes(genesis, chain, &mother)
    })
}

/// The mother's state as a fork's home has it, if it is the one that the genesis names.
pub fn mother_state(home: &Home, genesis: &Genesis) -> Result<Fork, OpenError> {
    let refused = |why: String| OpenError::Genesis(why);
    let Some(fork) = &genesis.fork else {
        return Err(refused("it is of no fork".into()));
    };
    let state = read_mother_state(&home.mother_state())?;
    let (got, expected) = (state.root(), fork.header.header.state_root);
    if got != expected {
        return Err(refused(format!(
            "the state in {} has the root {got}, that of the mother at height {} is {expected}; get it from another node",
            home.mother_state().display(),
            fork.height(),
        )));
    }
    Ok(state)
}

/// Reads a dump; whose state it is, its root has to show.
pub fn read_mother_state(path: &Path) -> Result<Fork, OpenError> {
    let refused =
        |e: &dyn std::fmt::Display| OpenError::Genesis(format!("{}: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| refused(&e))?;
    instar_state::read_dump(std::io::BufReader::new(file)).map_err(|e| refused(&e))
}

fn create_with(
    home: &Home,
    genesis: &Genesis,
    mother: Option<&Path>,
    writes: impl FnOnce(&ChainId) -> Result<Writes, GenesisError>,
) -> Result<ChainId, OpenError> {
    home.create()?;
    let chain = genesis.chain_id().map_err(ledger_error)?;
    let writes = writes(&chain).map_err(|e| OpenError::Genesis(e.to_string()))?;
    let options = OpenOptions {
        mother: mother.map(Path::to_owned),
        ..options(&home.marks())
    };
    let (mut store, chain) =
        Store::create_with(&home.ledger(), genesis, &options).map_err(ledger_error)?;
    store
        .begin_incarnation(&own_lane::first(&home.key(Purpose::Lane)?.public()))
        .map_err(ledger_error)?;
    let state = StateStore::open(&home.state()).map_err(CoreError::from)?;
    state.init(chain.into(), &writes).map_err(CoreError::from)?;
    Ok(chain)
}

/// Notes that the home's consensus key has signed nothing: for whoever has just made it, and for nobody else. Without
/// the note a validator that is admitted to a chain under way only follows for some blocks, for which the others may
/// need it.
pub fn never_signed(home: &Home) -> Result<(), OpenError> {
    let key = home.key(Purpose::Consensus)?.public();
    instar_consensus::marks::Marks::create(&home.marks(), key, 0).map_err(ledger_error)?;
    Ok(())
}

impl Core {
    /// Opens a home that has a chain. `states_kept` as in [`crate::home::NodeConfig`].
    pub fn open(home: &Home, runtime: Runtime, states_kept: u64) -> Result<Self, OpenError> {
        let ledger =
            Store::open_with(&home.ledger(), &options(&home.marks())).map_err(ledger_error)?;
        let state = Arc::new(StateStore::open(&home.state()).map_err(CoreError::from)?);
        let index = Index::open(&home.index()).map_err(CoreError::from)?;
        let base = Base::of(home, &ledger)?;
        let chain = *ledger.chain();
        let genesis_block = instar_ledger::Oid::from_bytes(*chain.as_bytes());
        let lane = home.key(Purpose::Lane)?;
        let own_lane = own_lane::first(&lane.public());
        let keys = OwnKeys {
            lane,
            account: home.key(Purpose::Account)?,
            consensus: home.key(Purpose::Consensus)?.public(),
        };
        let head = read_head(&ledger, &state, genesis_block)?;
        let mut core = Self {
            chain,
            genesis_block,
            ledger,
            state,
            dapps: runtime,
            index,
            base,
            states_kept,
            keys,
            own_lane,
            news: None,
            metrics: Arc::default(),
            tails: Default::default(),
            head,
            tested: Default::default(),
            trouble: Default::default(),
            pending_ids: Default::default(),
            home: home.clone(),
            broken_slices: Default::default(),
            nil: Default::default(),
            last_nil: None,
            provisional: None,
        };
        core.repair()?;
        core.load_tails()?;
        core.trim_tails(&[]);
        core.find_own_lane()?;
        Ok(core)
    }

    /// The state's head is the truth; refs and the receipt index are brought up to it after a crash.
    fn repair(&mut self) -> Result<(), CoreError> {
        if let Some(certificate) = &self.head.certificate {
            let (height, _) = self.ledger.head();
            if height != self.head.height {
                tracing::warn!(
                    height,
                    state = self.head.height,
                    "the refs lag behind the state after a crash, moving them"
                );
                self.ledger
                    .finalize(&self.head.block, certificate)
                    .map_err(ledger_error)?;
            }
        }
        let first = self.ledger.base().unwrap_or(1);
        for height in first.max(self.index.done()? + 1)..=self.head.height {
            let Some(id) = self.ledger.block_at(height) else {
                break;
            };
            let block = self.ledger.read_block(&id).map_err(ledger_error)?;
            let changed = self.changed_validators(height, &block.header)?;
            self.index.add(height, &block.receipts, changed.as_ref())?;
        }
        Ok(())
    }

    /// The validator set that a header names, if it is another one than the header before names.
    fn changed_validators(
        &self,
        height: u64,
        header: &Header,
    ) -> Result<Option<ValidatorSet>, CoreError> {
        let before = match self.validators_after(height - 1)? {
            Some(set) if set.digest() != header.validators => set,
            _ => return Ok(None),
        };
        let view = match self.state.view_at(height) {
            Err(instar_state::StoreError::Pruned { .. }) => {
                // Light checkers that begin below it have to ask another node.
                tracing::warn!(
                    height,
                    before = %before.digest(),
                    now = %header.validators,
                    "the validators changed here, but the state of this height is pruned; the index can't name them"
                );
                return Ok(None);
            }
            view => view?,
        };
        Ok(Some(instar_chain::query::validator_set(&view)?))
    }
}

pub(crate) fn options(marks: &Path) -> OpenOptions {
    OpenOptions {
        lane_mark: Some(marks.join("lane")),
        mother: None,
    }
}

fn read_head(
    ledger: &Store,
    state: &StateStore,
    genesis_block: instar_ledger::Oid,
) -> Result<Head, CoreError> {
    let validators = instar_chain::query::validator_set(&state.view()?)?;
    match state.head()? {
        Some(head) if head.height > 0 => {
            let certificate = Certificate::from_bytes(&head.certificate).map_err(ledger_error)?;
            let block = ledger.read_block(&head.block).map_err(ledger_error)?;
            Ok(Head {
                height: head.height,
                block: head.block,
                time_ms: block.header.time_ms,
                validators,
                certificate: Some(certificate),
            })
        }
        _ => Ok(Head {
            height: 0,
            block: genesis_block,
            time_ms: ledger.genesis().time_ms,
            validators,
            certificate: None,
        }),
    }
}
