//! Activation: at its height a dapp's release takes over inside the state machine, a node's rollout begins.

use serde_json::json;

use super::{Phase, Proposal, rollout, save, slot};
use crate::block::BlockError;
use crate::keys;
use crate::machine::Machine;
use crate::record::{self, SlotRecord};

pub(super) fn at_height(m: &mut Machine<'_>, proposal: &mut Proposal) -> Result<(), BlockError> {
    if proposal.activation_height.is_none_or(|h| m.height < h) {
        return Ok(());
    }
    let Some(dapp) = proposal.slot.dapp_name().map(str::to_owned) else {
        return rollout::begin(m, proposal);
    };
    let before: SlotRecord = record::expect(&m.state, &keys::slot(proposal.slot.as_str()))?;
    let release = proposal.release.to_string();
    if m.left_out.contains(&dapp) {
        // Too many nodes could not run it: what they could not test must not go live.
        let detail = "the dapp was left out of the block of its activation";
        return void(m, proposal, "migration-unavailable", detail);
    }
    if slot::migrate(m, &dapp, &before, &release, proposal.number)?.is_some() {
        let detail = "the new release could not take over the state";
        return void(m, proposal, "migration-failed", detail);
    }
    proposal.activated_at = Some(m.height);
    slot::take_over(m, proposal)?;
    slot::restart_rehearsals(m, &proposal.id)
}

/// The old release goes on in this very block.
fn void(
    m: &mut Machine<'_>,
    proposal: &mut Proposal,
    rule: &str,
    detail: &str,
) -> Result<(), BlockError> {
    proposal.phase = Phase::Void;
    proposal.rule = Some(rule.to_owned());
    proposal.detail = Some(detail.to_owned());
    save(m, proposal)?;
    let body = json!({
        "detail": detail, "release": proposal.release, "rule": rule, "slot": proposal.slot,
    });
    m.event("activation-voided", proposal.id, body);
    Ok(())
}
