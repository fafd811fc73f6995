//! Calls of nodes that join or follow: the genesis, whom to connect to, and final blocks with their packs.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use instar_attest::Digest;
use instar_ledger::freshness::SignedHead;
use serde::Deserialize;

use super::Refused;
use super::read::Wait;
use crate::home::PeerAddress;
use crate::node::Shared;

/// The canonical bytes of the genesis: whoever knows the chain's id can check them against it.
pub(crate) async fn genesis(State(node): State<Shared>) -> Result<Response, Refused> {
    let bytes = node
        .with_core(|core| core.ledger().genesis().to_bytes())
        .await
        .map_err(Refused::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// The nodes that this one knows, itself among them.
pub(crate) async fn peers(State(node): State<Shared>) -> Json<Vec<PeerAddress>> {
    let config = &node.config;
    let own = PeerAddress {
        name: config.name.clone(),
        consensus: config.consensus.clone(),
        data: config.data.clone(),
    };
    Json(
        std::iter::once(own)
            .chain(config.peers.iter().cloned())
            .collect(),
    )
}

/// What a follower wants signed.
#[derive(Deserialize)]
pub(crate) struct Question {
    nonce: Digest,
}

/// The head of this validator, signed together with the asker's nonce.
pub(crate) async fn signed_head(
    State(node): State<Shared>,
    Query(question): Query<Question>,
) -> Result<Json<SignedHead>, Refused> {
    let (validates, height, block) = node
        .with_core(|core| {
            let head = core.head();
            (core.is_validator(), head.height, head.block)
        })
        .await;
    if !validates {
        let why = "this node is no validator, so its word on the newest block proves nothing; ask a validator";
        return Err(Refused::new(StatusCode::CONFLICT, why));
    }
    let answer = SignedHead::sign(&node.chain, &node.signer, &question.nonce, height, block);
    Ok(Json(answer))
}

/// Final blocks from a height on, as [`instar_ledger::sync`] writes them.
pub(crate) async fn blocks(
    State(node): State<Shared>,
    Path(height): Path<u64>,
    Query(wait): Query<Wait>,
) -> Result<Response, Refused> {
    if height == 0 {
        return Err(Refused::bad("blocks begin at height 1"));
    }
    let reached = node
        .wait_for(wait.duration(), || async {
            Ok((node.height() >= height).then_some(()))
        })
        .await?;
    let found = match reached {
        Some(()) => {
            let make = async || node.with_core(move |core| core.synced_blocks(height)).await;
            node.answers.from(height, node.height(), make).await?
        }
        None => None,
    };
    if found.is_none() && height <= node.height() {
        return Err(super::light::before(&node, height).await);
    }
    let bytes =
        found.ok_or_else(|| Refused::not_found(format!("block {height} is not final yet")))?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}
