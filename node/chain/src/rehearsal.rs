//! Rehearsal: on a fork of the state a release takes its slot over, then real blocks are replayed on it.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::release::Release;
use instar_ledger::Oid;

use crate::apply::seed;
use crate::block::BlockError;
use crate::gates::Gates;
use crate::host::DappHost;
use crate::keys;
use crate::machine::Machine;
use crate::record::{self, ChainRecord, Head, SlotRecord};
use crate::upgrade;
use crate::view::{Overlay, StateError, StateView, Writes};

/// Why a release can't take over even on a fork.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// The state can't be read, or this node can't run the migration.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The state is not that of R.
    #[error("the state is of height {got}, the rehearsal begins at {expected}")]
    Height {
        /// R.
        expected: u64,
        /// The state's height.
        got: u64,
    },
    /// The ledger never assembled this release.
    #[error("there is no release {0}")]
    UnknownRelease(String),
    /// The release is for another slot.
    #[error("release {release} is not for slot {slot}")]
    OtherSlot {
        /// The release.
        release: String,
        /// The slot.
        slot: String,
    },
    /// The release could not take over the dapp's state.
    #[error("the migration failed: {0}")]
    Migration(String),
}

impl From<StateError> for ReplaceError {
    fn from(error: StateError) -> Self {
        Self::Block(error.into())
    }
}

/// What changes in the state after height `from` (R) when `release` takes `slot` over. A node's release changes
/// nothing here: it is the program that replays.
pub fn replace(
    state: &dyn StateView,
    slot: &str,
    release: &str,
    from: u64,
    dapps: &mut dyn DappHost,
) -> Result<Writes, ReplaceError> {
    let head: Head = record::expect(state, keys::HEAD)?;
    if head.height != from {
        return Err(ReplaceError::Height {
            expected: from,
            got: head.height,
        });
    }
    let text = crate::query::release_json(state, release)?;
    let parsed = text.and_then(|t| Release::parse(t.as_bytes()).ok());
    let Some(parsed) = parsed else {
        return Err(ReplaceError::UnknownRelease(release.to_owned()));
    };
    if parsed.slot.as_str() != slot {
        return Err(ReplaceError::OtherSlot {
            release: release.to_owned(),
            slot: slot.to_owned(),
        });
    }
    let Some(dapp) = parsed.slot.dapp_name() else {
        return Ok(Writes::new());
    };
    let chain: ChainRecord = record::expect(state, keys::CHAIN)?;
    // The rehearsal's migration gets a seed of its own: the real one's is not known yet.
    let parent = Oid::from(chain.chain);
    let mut m = Machine {
        state: Overlay::new(state),
        host: dapps,
        chain: chain.chain,
        height: from,
        time_ms: head.time_ms,
        seed: seed(&chain.chain, from, &parent),
        protocol: chain.protocol,
        policy: record::expect(state, keys::POLICY)?,
        gates: Gates::default(),
        left_out: BTreeSet::new(),
        events: Vec::new(),
        digests: BTreeMap::new(),
    };
    let before: SlotRecord = record::expect(&m.state, &keys::slot(slot))?;
    if let Some(why) = upgrade::migrate(&mut m, dapp, &before, release, parsed.number)? {
        return Err(ReplaceError::Migration(why));
    }
    let taken = SlotRecord {
        number: parsed.number,
        release: Some(release.to_owned()),
        since: from,
    };
    record::write(&mut m.state, &keys::slot(slot), &taken)?;
    Ok(m.state.into_writes()?)
}
