//! What this node knows that the ledger does not, gathered for one decision.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use instar_chain::module::{AutoVote, LocalFacts, Me, Staging};
use instar_chain::ops::{UPGRADE, UpgradeOp};

use super::{Known, MAX_STAGINGS, lock};
use crate::core::CoreError;
use crate::node::Shared;
use crate::{home::AutoVoteSetting, supervised};

/// Blocks that this process must have made final before it calls itself healthy.
const HEALTHY_BLOCKS: u64 = 3;

/// Gathers them.
pub(super) async fn gather(node: &Shared, known: &Known) -> Result<(Me, LocalFacts), CoreError> {
    let status = supervised::status().await;
    let (account, pending) = node
        .with_core(|core| {
            let account = core.account();
            let pending = core.pending_by(&account).filter(|e| e.topic == UPGRADE);
            let ops = pending
                .filter_map(|e| serde_json::from_value::<UpgradeOp>(e.body.clone()).ok())
                .collect();
            (account, ops)
        })
        .await;
    let running = status.as_ref().map(|s| s.running.release.clone());
    if let Some(running) = &running {
        node.supervision
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .release = Some(running.clone());
    }
    let steady = status.as_ref().is_some_and(|s| s.phase == "steady");
    let advanced = node.height().saturating_sub(node.first_height);
    let reverted: BTreeMap<String, String> = status
        .iter()
        .flat_map(|s| &s.quarantine)
        .map(|q| (q.release.clone(), q.reason.clone()))
        .collect();
    let mut local = lock(known);
    retry_stagings(&mut local);
    // A generation that the upgrader has settled is no longer under way.
    if steady && status.as_ref().map(|s| s.generation) >= local.swapping {
        local.swapping = None;
    }
    let facts = LocalFacts {
        auto_vote: match node.config.auto_vote {
            AutoVoteSetting::Off => AutoVote::Off,
            AutoVoteSetting::OwnBuild => AutoVote::OwnBuild,
            AutoVoteSetting::Attested => AutoVote::Attested,
        },
        healthy: steady && advanced >= HEALTHY_BLOCKS,
        hold: status.as_ref().is_some_and(|s| s.held),
        kept: status.as_ref().filter(|_| steady).map(|s| s.generation),
        pending,
        rehearsals: local.rehearsals.clone(),
        reverted,
        running,
        staged: local.staging.clone(),
        supervised: status.is_some(),
        swapping: local
            .swapping
            .or_else(|| status.as_ref().filter(|_| !steady).map(|s| s.generation)),
    };
    drop(local);
    Ok((
        Me {
            account,
            name: node.config.name.clone(),
        },
        facts,
    ))
}

/// A release that could not be staged is tried again: its blocks may only not have reached a peer yet.
fn retry_stagings(local: &mut super::Local) {
    let super::Local {
        staging, failures, ..
    } = local;
    for (release, (count, ticks)) in failures.iter_mut() {
        // No ticks left and still running means that another try is under way.
        if *count >= MAX_STAGINGS || *ticks == 0 || staging.get(release) != Some(&Staging::Running)
        {
            continue;
        }
        *ticks -= 1;
        if *ticks == 0 {
            staging.remove(release);
        }
    }
}
