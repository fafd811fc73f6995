//! A node that is no archive lets go of blocks that are old. It does so in steps of an eighth of what it keeps, on a thread
//! of its own that rests as long as it works.

use std::sync::Arc;

use instar_ledger::Store;
use instar_ledger::store::{Pruned, Pruning, borrowers, tell_again};

use crate::node::Shared;

/// This many steps make what is kept: each writes the packs anew that have something of what goes.
const STEPS: u64 = 8;

/// Prunes whenever a step more than `history_kept` is there.
pub(crate) async fn prune_loop(node: Shared) {
    let kept = node.config.history();
    if kept == 0 {
        return std::future::pending().await;
    }
    // They are opened by no store of their own; the home may have been moved since they were made.
    for history in node.home.fork_histories() {
        tell_again(&history);
    }
    let step = (kept / STEPS).max(1);
    let mut heights = node.height.subscribe();
    let mut not_before = 0;
    loop {
        let height = *heights.borrow_and_update();
        let first = node.with_core(|core| core.first_height()).await;
        let due = first.saturating_add(kept).saturating_add(step);
        if height >= due.max(not_before) {
            // Whatever became of it, the next step is the next chance.
            not_before = height.saturating_add(step);
            match prune(&node, height - kept).await {
                Ok(Some(Pruned { objects, packs })) => {
                    tracing::info!(
                        from = height - kept,
                        objects,
                        packs,
                        "older history was let go"
                    );
                }
                Ok(None) => {}
                Err(why) => {
                    tracing::warn!(from = height - kept, why, "older history was not let go")
                }
            }
        }
        if heights.changed().await.is_err() {
            return;
        }
    }
}

/// Lets go of what lies before a height, unless somebody needs it.
async fn prune(node: &Shared, height: u64) -> Result<Option<Pruned>, String> {
    let lent: Vec<_> = borrowers(&node.home.ledger()).into_iter().collect();
    if !lent.is_empty() {
        tracing::info!(
            ?lent,
            "older history stays, since these repositories read it here; it goes when they are removed"
        );
        return Ok(None);
    }
    let at = node.with_core(|core| core.merged_lanes()).await;
    let at = at.map_err(|e| e.to_string())?;
    let reading = Arc::clone(node);
    let mut planned = aside(move || {
        let reader = Store::open_clone(&reading.home.ledger()).map_err(|e| e.to_string())?;
        let merged = reader
            .merged_before(&at, height)
            .map_err(|e| e.to_string())?;
        Pruning::plan(&reader, merged).map_err(|e| e.to_string())
    })
    .await?;
    if *node.stop.borrow() {
        return Ok(None);
    }
    let begun = node
        .with_core(move |core| core.begin_later(&mut planned).map(|()| planned))
        .await;
    let begun = begun.map_err(|e| e.to_string())?;
    aside(move || begun.carry_out().map(Some).map_err(|e| e.to_string())).await
}

async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| e.to_string())?
}
