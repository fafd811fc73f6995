//! What the ledger says, as far as the upgrade module looks at it.

use std::collections::{BTreeMap, BTreeSet};

use instar_attest::Digest;

use crate::build::Round;
use crate::keys;
use crate::query;
use crate::record::{self, HistoryEntry, SlotRecord};
use crate::upgrade::Proposal;
use crate::view::{StateError, StateView};

/// What a slot holds, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotView {
    /// The build round of its release; none where genesis admitted it.
    pub round: Option<Digest>,
    /// What it holds.
    pub slot: SlotRecord,
}

/// What the ledger says of upgrades, at one height.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeView {
    /// The height.
    pub height: u64,
    /// The proposals that are not decided, oldest first.
    pub proposals: Vec<Proposal>,
    /// The newest rollout, going on or over.
    pub rollout: Option<Proposal>,
    /// The build rounds of those proposals.
    pub rounds: BTreeMap<Digest, Round>,
    /// All slots.
    pub slots: BTreeMap<String, SlotView>,
    /// The names of those who are validators now: who is none any more is not listened to.
    pub validators: BTreeSet<String>,
}

impl UpgradeView {
    /// Reads it from one version of the state.
    pub fn read(view: &dyn StateView) -> Result<Self, StateError> {
        let proposals = query::open_proposals(view)?;
        let mut rounds = BTreeMap::new();
        for proposal in &proposals {
            let round: Round = record::expect(view, &keys::round(&proposal.round))?;
            rounds.insert(proposal.round, round);
        }
        let records: BTreeMap<String, SlotRecord> =
            record::read_all(view, keys::SLOTS, query::MAX_LISTED)?;
        let mut slots = BTreeMap::new();
        for (name, slot) in records {
            let history: Option<HistoryEntry> =
                record::read(view, &keys::history(&name, slot.number))?;
            let round = history.and_then(|h| h.round);
            slots.insert(name, SlotView { round, slot });
        }
        Ok(Self {
            height: query::head(view)?.height,
            proposals,
            rollout: query::rollout(view)?,
            rounds,
            slots,
            validators: query::validators(view)?
                .into_iter()
                .map(|v| v.name)
                .collect(),
        })
    }
}
