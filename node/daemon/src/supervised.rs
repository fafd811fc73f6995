//! Talking to the upgrader that supervises this process, if one does.

use std::time::Duration;

use instar_upgrader::wire::Health;
use instar_upgrader::{Client, Reporter, Status};

use crate::node::Shared;

/// How often health is told.
const EVERY: Duration = Duration::from_millis(500);

/// Tells the upgrader how far this node is, for as long as the answer is kept. `None` when nothing supervises it.
pub(crate) fn report_health(node: &Shared) -> Option<Reporter> {
    let node = node.clone();
    let health = move || Health {
        height: node.height(),
        peers: u32::try_from(node.peer.connected().len()).unwrap_or(u32::MAX),
    };
    match Reporter::start(EVERY, health) {
        Ok(reporter) => Some(reporter),
        Err(e) => {
            tracing::info!(reason = %e, "no upgrader supervises this node: it will not swap its own binary");
            None
        }
    }
}

/// What the upgrader says; `None` when nothing supervises this process or it does not answer.
pub(crate) async fn status() -> Option<Status> {
    tokio::task::spawn_blocking(|| Client::from_env().ok()?.status().ok())
        .await
        .ok()
        .flatten()
}
