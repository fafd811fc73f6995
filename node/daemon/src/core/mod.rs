//! What one node knows and may change, behind one lock: the ledger, the state, the dapps, and the lanes not yet merged.
//!
//! Everything here is blocking; the loops around it call from threads that may wait.

pub mod base;
mod block;
mod fork;
mod lanes;
mod light;
mod lookup;
pub mod open;
pub(crate) mod own_lane;
mod provisional;
mod prune;
mod serve;
mod slices;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use instar_attest::{ChainId, Digest, PublicKey, SecretKey};
use instar_chain::StateError;
use instar_ledger::{Certificate, Lane, Oid, ReceiptLine, ValidatorSet};
use instar_runtime::Runtime;
use instar_state::StateStore;

use crate::home::Home;
use crate::index::{Index, IndexError};
use crate::metrics::Metrics;

pub use instar_chain::merge::Refusal;
pub(crate) use lanes::Tail;
pub use lanes::{LaneMessage, MAX_LANE_MESSAGE_BYTES};
pub use provisional::Standing;

/// What can go wrong inside a node, apart from a proposal that is merely refused.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The git store.
    #[error("the ledger: {0}")]
    Ledger(String),
    /// The disk, or what this user may write on it, is full.
    #[error("this node has no room on its disk: {0}")]
    NoRoom(String),
    /// Something of a block from before this node's history.
    #[error("{what} is of block {height}; the history of this node begins with block {first}")]
    Before {
        /// What was asked for.
        what: String,
        /// Where it stands.
        height: u64,
        /// Where this node begins.
        first: u64,
    },
    /// The state store, or a value in it.
    #[error("the state: {0}")]
    State(#[from] StateError),
    /// The receipt index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Something that a peer sent.
    #[error("refused: {0}")]
    Refused(String),
    /// Something that no honest peer sends, whatever this node lacks.
    #[error("refused: {0}")]
    Forged(String),
    /// Something of a device that this node doesn't know.
    #[error("refused: device {0} is not registered")]
    Stranger(instar_ledger::DeviceId),
}

impl CoreError {
    /// The same once more, for another one who waits for it.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Ledger(why) => Self::Ledger(why.clone()),
            Self::NoRoom(why) => Self::NoRoom(why.clone()),
            other => Self::Ledger(other.to_string()),
        }
    }
}

impl From<instar_state::StoreError> for CoreError {
    fn from(e: instar_state::StoreError) -> Self {
        Self::State(e.into())
    }
}

pub(crate) fn ledger_error(e: impl std::fmt::Display) -> CoreError {
    CoreError::Ledger(e.to_string())
}

/// A block whose merge test this node ran itself, and what it found.
pub(crate) struct Tested {
    pub writes: instar_chain::Writes,
    pub receipts: Vec<ReceiptLine>,
    pub ranges: Vec<instar_ledger::LaneRange>,
    pub time_ms: u64,
    pub validators: ValidatorSet,
}

/// The head of the trunk as this node has it.
#[derive(Debug, Clone)]
pub struct Head {
    /// Height of the newest final block; 0 is the genesis.
    pub height: u64,
    /// Its id.
    pub block: Oid,
    /// Its time.
    pub time_ms: u64,
    /// The validators of the next height.
    pub validators: ValidatorSet,
    /// What made it final; none for the genesis.
    pub certificate: Option<Certificate>,
}

/// The node's own keys that the core signs with.
pub struct OwnKeys {
    /// Signs lane commits.
    pub lane: SecretKey,
    /// Signs the node's statements.
    pub account: SecretKey,
    /// Names the node as proposer.
    pub consensus: PublicKey,
}

/// One node's knowledge.
pub struct Core {
    pub(crate) chain: ChainId,
    pub(crate) genesis_block: Oid,
    pub(crate) ledger: instar_ledger::Store,
    pub(crate) state: Arc<StateStore>,
    pub(crate) dapps: Runtime,
    pub(crate) index: Index,
    /// What this node's history begins with, if it came by a snapshot or let go of what was before.
    pub(crate) base: Option<base::Base>,
    /// Heights whose state is kept; 0 keeps all.
    pub(crate) states_kept: u64,
    pub(crate) keys: OwnKeys,
    pub(crate) own_lane: Lane,
    /// What this node found out and appended to its lane by itself, to be told to its peers.
    pub(crate) news: Option<Vec<u8>>,
    pub(crate) tails: BTreeMap<Lane, Tail>,
    pub(crate) head: Head,
    pub(crate) tested: BTreeMap<Oid, Tested>,
    /// Dapps that this node could not run, or saw answer otherwise than the proposer, at the height under way.
    pub(crate) trouble: BTreeSet<String>,
    /// Entries that are in a lane or on the trunk, so that a client's second try is not appended twice.
    pub(crate) pending_ids: BTreeSet<Digest>,
    /// Where the histories of forks are.
    pub(crate) home: Home,
    /// The last blocks of slices that can't be merged, as this node found out.
    pub(crate) broken_slices: BTreeSet<Oid>,
    /// Nil prevotes by reason.
    pub(crate) nil: BTreeMap<String, u64>,
    pub(crate) last_nil: Option<String>,
    /// What the unmerged lanes would come to, as last computed; nothing after either changed.
    pub(crate) provisional: Option<provisional::Provisional>,
    /// Where the time goes.
    pub(crate) metrics: Arc<Metrics>,
}

impl Core {
    /// The newest final block.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Whether this node's key certifies the next block.
    pub fn is_validator(&self) -> bool {
        self.head
            .validators
            .power_of(&self.keys.consensus)
            .is_some()
    }

    /// The chain.
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// The state store, for readers that should not hold the lock.
    pub fn state(&self) -> Arc<StateStore> {
        Arc::clone(&self.state)
    }

    /// The account that this node signs statements with.
    pub fn account(&self) -> PublicKey {
        self.keys.account.public()
    }

    /// The ledger.
    pub fn ledger(&self) -> &instar_ledger::Store {
        &self.ledger
    }

    /// Writes what waits into git, so that stock git sees it.
    pub fn flush(&mut self) -> Result<(), CoreError> {
        self.ledger.flush().map_err(ledger_error)
    }

    /// The dapps.
    pub fn dapps(&mut self) -> &mut Runtime {
        &mut self.dapps
    }

    /// What this node's history begins with, if it came by a snapshot or let go of what was before.
    pub fn base(&self) -> Option<&base::Base> {
        self.base.as_ref()
    }

    /// The receipt index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Nil prevotes by reason, and the newest reason in full.
    pub fn nil_prevotes(&self) -> (BTreeMap<String, u64>, Option<String>) {
        (self.nil.clone(), self.last_nil.clone())
    }
}
