//! What a slot holds, and how a release takes it over.

use instar_attest::Digest;
use instar_attest::release::Slot;
use serde_json::json;

use super::{Phase, Proposal, decide, open_ids, save};
use crate::block::BlockError;
use crate::dapps::{self, CallError};
use crate::host::{DappFailure, Migration};
use crate::keys;
use crate::machine::Machine;
use crate::record::{self, HistoryEntry, SlotRecord};

/// Lets a dapp's new release rewrite its key space. Why it could not, where it could not: that is the release's fault.
/// The text is for logs only, since it need not be the same on every node.
pub(crate) fn migrate(
    m: &mut Machine<'_>,
    dapp: &str,
    slot: &SlotRecord,
    release: &str,
    number: u64,
) -> Result<Option<String>, BlockError> {
    let migration = Migration {
        from: slot.release.clone(),
        from_number: slot.number,
        to_number: number,
    };
    match dapps::call(m, dapp, release, Vec::new(), Some(migration)) {
        Ok(result) => {
            dapps::keep(m, dapp, &result);
            Ok(None)
        }
        Err(CallError::State(error)) => Err(error.into()),
        Err(CallError::Dapp(DappFailure::Abstain(why))) => Err(BlockError::Abstain {
            dapp: dapp.to_owned(),
            why,
        }),
        Err(CallError::Dapp(failure @ (DappFailure::Crash(_) | DappFailure::Protocol(_)))) => {
            Ok(Some(failure.to_string()))
        }
    }
}

/// Puts a proposal's release into its slot, for all to see.
pub(super) fn take_over(m: &mut Machine<'_>, proposal: &mut Proposal) -> Result<(), BlockError> {
    let name = proposal.slot.as_str().to_owned();
    let before: SlotRecord = record::expect(&m.state, &keys::slot(&name))?;
    let slot = SlotRecord {
        number: proposal.number,
        release: Some(proposal.release.to_string()),
        since: m.height,
    };
    let history = HistoryEntry {
        by: proposal.id.to_string(),
        height: m.height,
        number: proposal.number,
        release: proposal.release.to_string(),
        round: Some(proposal.round),
    };
    record::write(&mut m.state, &keys::slot(&name), &slot)?;
    record::write(&mut m.state, &keys::history(&name, slot.number), &history)?;
    proposal.phase = Phase::Activated;
    proposal.deadline = None;
    proposal.completed_at = Some(m.height);
    proposal.from = before.release;
    save(m, proposal)?;
    let body = json!({
        "activated_at": proposal.activated_at, "completed_at": m.height, "from": proposal.from,
        "number": proposal.number, "release": proposal.release, "slot": proposal.slot,
    });
    m.event("activated", proposal.id, body);
    drop_overtaken(m, &proposal.slot, proposal.number)
}

/// Numbers only go up: what is not higher than the slot's new number can't go live any more.
fn drop_overtaken(m: &mut Machine<'_>, slot: &Slot, number: u64) -> Result<(), BlockError> {
    for id in open_ids(&m.state)? {
        let mut other: Proposal = record::expect(&m.state, &keys::proposal(&id))?;
        if other.slot == *slot && other.number <= number {
            let detail = format!("release {number} went live in the meantime");
            decide::refuse(m, &mut other, "number-not-higher", &detail);
            save(m, &other)?;
        }
    }
    Ok(())
}

/// What others rehearsed was without this dapp's new release: they rehearse again.
pub(super) fn restart_rehearsals(m: &mut Machine<'_>, by: &Digest) -> Result<(), BlockError> {
    for id in open_ids(&m.state)? {
        let mut other: Proposal = record::expect(&m.state, &keys::proposal(&id))?;
        if id != *by && matches!(other.phase, Phase::Rehearsing | Phase::Scheduled) {
            decide::begin_rehearsal(m, &mut other);
            save(m, &other)?;
            let body = json!({"because": by, "rehearsal": other.rehearsal});
            m.event("rehearsal-restarted", id, body);
        }
    }
    Ok(())
}
