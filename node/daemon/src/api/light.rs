//! Calls of light checkers and followers: small, and the same for ever once a height is final, so that any cache in
//! front of a node can answer them.

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use instar_attest::json;
use serde::{Deserialize, Serialize};

use super::Refused;
use crate::core::CoreError;
use crate::node::Shared;

/// For what never changes: a year, as caches understand it.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// For what the next block changes.
const NOT_KEPT: &str = "no-cache";

/// An answer in its one spelling.
fn canonical(value: &impl Serialize, cache: &'static str) -> Result<Response, Refused> {
    let bytes = json::to_vec(value).map_err(Refused::internal)?;
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, cache),
    ];
    Ok((headers, bytes).into_response())
}

pub(crate) async fn newest(State(node): State<Shared>) -> Result<Response, Refused> {
    let found = node
        .with_core(|core| core.signed_header(core.head().height))
        .await?;
    let found = found.ok_or_else(|| Refused::not_found("the chain has no block yet"))?;
    canonical(&found, NOT_KEPT)
}

pub(crate) async fn by_height(
    State(node): State<Shared>,
    Path(height): Path<u64>,
) -> Result<Response, Refused> {
    let found = node
        .with_core(move |core| {
            Ok::<_, CoreError>((core.signed_header(height)?, core.head().height))
        })
        .await?;
    match found {
        // The newest one's certificate may still grow.
        (Some(found), head) if height < head => canonical(&found, FOR_EVER),
        (Some(found), _) => canonical(&found, NOT_KEPT),
        (None, head) if height > head || height == 0 => Err(Refused::not_found(format!(
            "there is no certified header of height {height}; the newest is {head}"
        ))),
        (None, _) => Err(before(&node, height).await),
    }
}

/// Why there is nothing of a height below those that this node has.
pub(super) async fn before(node: &Shared, height: u64) -> Refused {
    let first = node.with_core(|core| core.first_height()).await;
    Refused::gone(format!(
        "height {height} is not here; the history of this node begins with block {first}"
    ))
}

#[derive(Deserialize)]
pub(crate) struct After {
    #[serde(default)]
    after: u64,
}

pub(crate) async fn changes(
    State(node): State<Shared>,
    Query(After { after }): Query<After>,
) -> Result<Response, Refused> {
    let found = node
        .with_core(move |core| {
            let known = core.base().map_or(0, |base| base.known_from());
            (after >= known).then(|| core.changes(after)).ok_or(known)
        })
        .await;
    let found = found.map_err(|known| {
        Refused::gone(format!(
            "this node knows the changes of the validators above height {known}, which it began to check at"
        ))
    })??;
    canonical(&found, NOT_KEPT)
}

pub(crate) async fn validators(
    State(node): State<Shared>,
    Path(height): Path<u64>,
) -> Result<Response, Refused> {
    let found = node
        .with_core(move |core| core.validators_after(height))
        .await?;
    match found {
        Some(found) => canonical(&found, FOR_EVER),
        None if height > node.height() => {
            Err(Refused::not_found(format!("height {height} is not final")))
        }
        None => Err(before(&node, height).await),
    }
}

#[derive(Deserialize)]
pub(crate) struct Key {
    key: String,
    height: Option<u64>,
}

pub(crate) async fn prove(
    State(node): State<Shared>,
    Query(Key { key, height }): Query<Key>,
) -> Result<Response, Refused> {
    let proof = node
        .with_core(move |core| core.prove(&key, height))
        .await
        .map_err(Refused::bad)?;
    canonical(&proof, NOT_KEPT)
}
