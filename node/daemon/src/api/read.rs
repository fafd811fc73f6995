//! Calls that read.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use instar_attest::{Digest, PublicKey};
use instar_chain::query;
use serde::Deserialize;
use serde_json::Value;

use super::Refused;
use super::types::{Account, BlockAnswer, EntryAnswer, Label, ReceiptAnswer, Status};
use crate::node::{Shared, now_ms};

/// The longest a question may wait for something to happen.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// `?wait_ms=`: how long to wait for something that is not there yet.
#[derive(Deserialize)]
pub(crate) struct Wait {
    #[serde(default)]
    wait_ms: u64,
}

impl Wait {
    pub(super) fn duration(&self) -> Duration {
        Duration::from_millis(self.wait_ms).min(MAX_WAIT)
    }
}

pub(crate) async fn status(State(node): State<Shared>) -> Result<Json<Status>, Refused> {
    Ok(Json(node.status().await.map_err(Refused::internal)?))
}

pub(crate) async fn account(
    State(node): State<Shared>,
    Path(key): Path<String>,
) -> Result<Json<Account>, Refused> {
    let key: PublicKey = key.parse().map_err(Refused::bad)?;
    let (nonce, next_nonce) = node.with_core(move |core| core.nonces(&key)).await?;
    Ok(Json(Account {
        key,
        nonce,
        next_nonce,
    }))
}

pub(crate) async fn receipt(
    State(node): State<Shared>,
    Path(id): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Json<ReceiptAnswer>, Refused> {
    let id: Digest = id.parse().map_err(Refused::bad)?;
    let found = node
        .wait_for(wait.duration(), || node.final_receipt(id))
        .await?;
    match found {
        Some(found) => Ok(Json(found)),
        None => {
            let refused = Refused::not_found(format!("no final block holds entry {id}"));
            let base = node.with_core(|core| core.base().map(|b| b.height())).await;
            Err(match base {
                Some(_) => refused.hint(
                    "this node's history does not begin with genesis, and an entry from before may be unknown here; an archive has all",
                ),
                None => refused,
            })
        }
    }
}

/// Where an entry stands: on the trunk, in a lane that no block has merged, or nowhere that this node knows of.
pub(crate) async fn entry(
    State(node): State<Shared>,
    Path(id): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Json<EntryAnswer>, Refused> {
    let id: Digest = id.parse().map_err(Refused::bad)?;
    if let Some(found) = node
        .wait_for(wait.duration(), || node.final_entry(id))
        .await?
    {
        return Ok(Json(found));
    }
    let standing = node
        .with_core(move |core| core.unmerged_entry(&id, now_ms()))
        .await?
        .ok_or_else(|| {
            Refused::not_found(format!("this node knows no entry {id}"))
                .hint("it may be in a lane that has not reached this node yet")
        })?;
    Ok(Json(EntryAnswer {
        label: if standing.conflicts() {
            Label::Conflicted
        } else {
            Label::Pending
        },
        lane: standing.lane,
        seq: standing.seq,
        height: None,
        block: None,
        receipt: standing.receipt,
    }))
}

pub(crate) async fn block(
    State(node): State<Shared>,
    Path(height): Path<u64>,
    Query(wait): Query<Wait>,
) -> Result<Json<BlockAnswer>, Refused> {
    if height == 0 {
        return Err(Refused::not_found(
            "height 0 is the genesis, which is no block",
        ));
    }
    let reached = node
        .wait_for(wait.duration(), || async {
            Ok((node.height() >= height).then_some(()))
        })
        .await;
    if reached.map_err(Refused::internal)?.is_none() {
        return Err(Refused::not_found(format!(
            "block {height} is not final yet"
        )));
    }
    let block = node.read_block(height).await.map_err(Refused::internal)?;
    match block {
        Some(block) => Ok(Json(block)),
        None => Err(super::light::before(&node, height).await),
    }
}

pub(crate) async fn round(
    State(node): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let id: Digest = id.parse().map_err(Refused::bad)?;
    let round = query::round(&node.view()?, &id).map_err(Refused::internal)?;
    let round = round.ok_or_else(|| Refused::not_found(format!("there is no build round {id}")))?;
    let mut answer = serde_json::to_value(&round).map_err(Refused::internal)?;
    if let Some(release) = &round.release {
        // The document that the ledger computed, for those who pin it.
        answer["release_json"] = query::release_json(&node.view()?, release.as_str())
            .map_err(Refused::internal)?
            .into();
    }
    Ok(Json(answer))
}

pub(crate) async fn upgrades(State(node): State<Shared>) -> Result<Json<Value>, Refused> {
    let view = node.view()?;
    let answer = serde_json::json!({
        "slots": query::slots(&view).map_err(Refused::internal)?,
        "rounds": query::rounds(&view).map_err(Refused::internal)?,
        "proposals": query::proposals(&view).map_err(Refused::internal)?,
        "rollout": query::rollout(&view).map_err(Refused::internal)?,
    });
    Ok(Json(answer))
}

pub(crate) async fn upgrade(
    State(node): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let id: Digest = id.parse().map_err(Refused::bad)?;
    let proposal = query::proposal(&node.view()?, &id).map_err(Refused::internal)?;
    let proposal =
        proposal.ok_or_else(|| Refused::not_found(format!("there is no proposal {id}")))?;
    Ok(Json(
        serde_json::to_value(proposal).map_err(Refused::internal)?,
    ))
}

pub(crate) async fn slot(
    State(node): State<Shared>,
    Path(slot): Path<String>,
) -> Result<Json<Value>, Refused> {
    let found = query::slots(&node.view()?)
        .map_err(Refused::internal)?
        .remove(&slot);
    let found = found.ok_or_else(|| Refused::not_found(format!("there is no slot {slot}")))?;
    Ok(Json(
        serde_json::to_value(found).map_err(Refused::internal)?,
    ))
}

pub(crate) async fn allowed_signers(State(node): State<Shared>) -> Result<String, Refused> {
    let devices = query::devices(&node.view()?).map_err(Refused::internal)?;
    let named: Vec<_> = devices
        .values()
        .flat_map(|d| d.lane_keys().map(|key| (d.name.clone(), key)))
        .collect();
    Ok(node
        .with_core(move |core| core.ledger().allowed_signers(&named))
        .await)
}
