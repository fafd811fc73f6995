//! The upgrade module's doing half: it fetches, verifies, rehearses, swaps and signs what `chain::module` decides.
//!
//! What it keeps in memory may be lost at any point: the ledger, the own lane and the upgrader's state say the rest.

mod facts;
mod rehearsing;
mod stage;
mod swap;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use instar_attest::Digest;
use instar_chain::module::{Action, Rehearsed, Staging, UpgradeView, decide};
use instar_chain::query;
use instar_chain::upgrade::Proposal;

use crate::node::Shared;
use stage::Staged;

/// How long the module sleeps when no block comes: the upgrader's answers change without one.
const TICK: Duration = Duration::from_millis(500);
/// Failed stagings are tried again after so many ticks: blocks may only not have reached a peer yet.
const RETRY_TICKS: u32 = 6;
/// Stagings of one release that may fail before this node gives up on it.
const MAX_STAGINGS: u32 = 10;

/// What this process knows of releases.
#[derive(Default)]
struct Local {
    staging: BTreeMap<String, Staging>,
    staged: BTreeMap<String, Staged>,
    failures: BTreeMap<String, (u32, u32)>,
    rehearsals: BTreeMap<(Digest, u64), Rehearsed>,
    /// The newest generation that was handed to the upgrader by this process.
    swapping: Option<u64>,
}

type Known = Arc<Mutex<Local>>;

fn lock(known: &Known) -> MutexGuard<'_, Local> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decides and does, block after block.
pub(crate) async fn upgrade_loop(node: Shared) {
    let known = Known::default();
    let mut heights = node.height.subscribe();
    loop {
        let _ = tokio::time::timeout(TICK, heights.changed()).await;
        if let Err(e) = step(&node, &known).await {
            tracing::warn!(error = %e, "the upgrade module could not look at the chain");
            tokio::time::sleep(TICK).await;
        }
    }
}

async fn step(node: &Shared, known: &Known) -> Result<(), crate::core::CoreError> {
    let view = UpgradeView::read(&node.view()?)?;
    // With nothing proposed and nothing rolling there is nothing to ask the upgrader or the lane for.
    let rolled = view.rollout.as_ref().map(|p| p.release.to_string());
    let running = node
        .supervision
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .release
        .clone();
    if view.proposals.is_empty() && running.is_some() && (rolled.is_none() || rolled == running) {
        return Ok(());
    }
    let (me, facts) = facts::gather(node, known).await?;
    for action in decide(&view, &me, &facts) {
        act(node, known, &view, action).await;
    }
    Ok(())
}

async fn act(node: &Shared, known: &Known, view: &UpgradeView, action: Action) {
    if let Some(op) = action.to_op() {
        match node
            .state_something(instar_chain::ops::UPGRADE, op.to_value())
            .await
        {
            Ok(id) => tracing::info!(entry = %id, action = ?action, "said on the ledger"),
            Err(e) => tracing::warn!(error = %e, "a statement could not be appended"),
        }
        return;
    }
    match action {
        Action::Stage { release, .. } => {
            if let Some(proposal) = proposal_of(node, view, &release) {
                start_staging(node, known, proposal);
            }
        }
        Action::Rehearse { proposal, .. } => {
            if let Some(proposal) = view.proposals.iter().find(|p| p.id == proposal) {
                start_rehearsal(node, known, proposal.clone());
            }
        }
        Action::Swap {
            generation,
            release,
            ..
        } => swap::begin(node, known, generation, &release).await,
        Action::Keep {
            generation,
            release,
        } => tracing::info!(
            generation,
            release,
            "the rollout is over and this node's program is kept"
        ),
        Action::Vote(_) | Action::Ready(_) | Action::Report(_) => {}
    }
}

/// The proposal that a release came from: open, or the newest rollout's.
fn proposal_of(node: &Shared, view: &UpgradeView, release: &str) -> Option<Proposal> {
    let open = view
        .proposals
        .iter()
        .chain(&view.rollout)
        .find(|p| p.release.as_str() == release);
    open.cloned().or_else(|| {
        let all = query::proposals(&node.view().ok()?).ok()?;
        all.into_values().find(|p| p.release.as_str() == release)
    })
}

fn start_staging(node: &Shared, known: &Known, proposal: Proposal) {
    let release = proposal.release.to_string();
    lock(known)
        .staging
        .insert(release.clone(), Staging::Running);
    let (node, known) = (node.clone(), Arc::clone(known));
    tokio::spawn(async move {
        let result = stage::stage(&node, &proposal).await;
        let mut local = lock(&known);
        match result {
            Ok(staged) => {
                tracing::info!(release, "staged and verified");
                local.staging.insert(release.clone(), Staging::Verified);
                local.staged.insert(release, staged);
            }
            Err(why) => {
                tracing::warn!(release, why, "staging failed");
                let failures = local.failures.entry(release.clone()).or_default();
                *failures = (failures.0 + 1, RETRY_TICKS);
                // What is tried again is not failed yet: a failure is told to the ledger at once, and stands there.
                let given_up = failures.0 >= MAX_STAGINGS;
                local.staging.insert(
                    release,
                    if given_up {
                        Staging::Failed(why)
                    } else {
                        Staging::Running
                    },
                );
            }
        }
    });
}

fn start_rehearsal(node: &Shared, known: &Known, proposal: Proposal) {
    let Some(window) = proposal.rehearsal else {
        return;
    };
    let key = (proposal.id, window.from);
    let Some(staged) = lock(known).staged.get(proposal.release.as_str()).cloned() else {
        return;
    };
    lock(known).rehearsals.insert(key, Rehearsed::Running);
    let (node, known) = (node.clone(), Arc::clone(known));
    tokio::spawn(async move {
        let result = rehearsing::rehearse(&node, &proposal, window, &staged).await;
        match &result {
            Ok(root) => tracing::info!(proposal = %proposal.id, %root, "rehearsed"),
            Err(why) => tracing::warn!(proposal = %proposal.id, why, "the rehearsal failed"),
        }
        let outcome = result.map_or_else(Rehearsed::Failed, Rehearsed::Root);
        lock(&known).rehearsals.insert(key, outcome);
    });
}
