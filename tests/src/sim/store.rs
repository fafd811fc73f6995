//! What of a node's ledger and state is on its disk.

use std::collections::BTreeMap;

use instar_chain::Writes;
use instar_ledger::grammar::Object;
use instar_ledger::{Certificate, LaneRange, Oid, ValidatorSet};

/// A block that is final here.
#[derive(Debug, Clone)]
pub struct Final {
    /// What made it so.
    pub certificate: Certificate,
    /// The certificate of the block before it, as the block carries it.
    pub previous: Option<Certificate>,
    /// Its pack.
    pub pack: Vec<u8>,
    /// What it changed.
    pub writes: Writes,
    /// What it merged.
    pub ranges: Vec<LaneRange>,
    /// Its time.
    pub time_ms: u64,
    /// Who certifies the next one.
    pub validators: ValidatorSet,
}

/// A commit of the own lane: commit, tree, blob.
pub type OwnCommit = (Oid, Vec<Object>);

/// Ledger and state. The state follows from the blocks.
#[derive(Debug, Default)]
pub struct Store {
    /// Height 1 first.
    pub finals: Vec<Final>,
    /// How many of them outlive a power cut.
    pub synced: usize,
    /// The packs of blocks that were taken in and are not final.
    pub packs: BTreeMap<Oid, Vec<u8>>,
    /// The own lane, oldest first; a commit is durable before anybody hears of it.
    pub lane: Vec<OwnCommit>,
}

impl Store {
    pub(super) fn restore(&mut self) {
        self.finals.truncate(self.synced);
    }
}
