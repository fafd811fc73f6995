//! Calls of nodes that join: which snapshots there are, what they consist of, and the commits that a ledger begins with.
//! The chunks themselves are IPFS blocks: `/ipfs/CID?format=raw`, or the data swarm.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Refused;
use crate::node::Shared;
use crate::snapshots::{Kept, Offer};

/// About how many bytes of commits stand in one answer, before they are compressed; one always fits.
const LEDGER_BYTES: usize = 4 << 20;
/// How many commits are looked at for one answer: the core is locked meanwhile.
const LEDGER_COMMITS: usize = 512;

pub(crate) async fn offers(State(node): State<Shared>) -> Json<Vec<Offer>> {
    let all = node.snapshots.all();
    Json(all.iter().rev().map(|kept| kept.offer.clone()).collect())
}

fn find(node: &Shared, height: u64) -> Result<Arc<Kept>, Refused> {
    node.snapshots.of(height).ok_or_else(|| {
        Refused::not_found(format!("there is no snapshot of height {height} here"))
            .hint("GET /v1/snapshots has those that there are; old ones go when new ones come")
    })
}

pub(crate) async fn list(
    State(node): State<Shared>,
    Path(height): Path<u64>,
) -> Result<Response, Refused> {
    let bytes = find(&node, height)?.bytes.clone();
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

#[derive(Deserialize)]
pub(crate) struct From {
    #[serde(default)]
    from: usize,
}

/// Commits of the list, from a place in it on, as a pack of as many as have room.
pub(crate) async fn ledger(
    State(node): State<Shared>,
    Path(height): Path<u64>,
    Query(From { from }): Query<From>,
) -> Result<Response, Refused> {
    let kept = find(&node, height)?;
    let list = &kept.list;
    let ids = list.commits.get(from..).filter(|ids| !ids.is_empty());
    let ids = ids
        .ok_or_else(|| Refused::not_found(format!("the list has {} commits", list.commits.len())))?
        .iter()
        .take(LEDGER_COMMITS)
        .copied()
        .collect::<Vec<_>>();
    let (pack, _) = node
        .with_core(move |core| core.ledger().pack_commits(&ids, LEDGER_BYTES))
        .await
        .map_err(Refused::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], pack).into_response())
}
