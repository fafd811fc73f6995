//! Calls that append or store.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::{Json, http::StatusCode};
use cid::Cid;
use instar_ledger::Entry;
use serde_json::{Value, json};

use super::types::{StatementRequest, Submitted};
use super::{Refused, authorize};
use crate::node::{Shared, SubmitError};

/// Entries in one call.
const MAX_ENTRIES_A_CALL: usize = 1_000;

impl From<SubmitError> for Refused {
    fn from(e: SubmitError) -> Self {
        match e {
            SubmitError::Full => Self::new(StatusCode::SERVICE_UNAVAILABLE, e)
                .hint("the trunk does not keep up or stands still; try again later"),
            SubmitError::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, e),
            SubmitError::Core(e) => e.into(),
        }
    }
}

/// Signed entries of any account, one canonical line each. They carry their own authority, so no token is asked for.
pub(crate) async fn entries(
    State(node): State<Shared>,
    body: Bytes,
) -> Result<Json<Submitted>, Refused> {
    let lines: Vec<&[u8]> = body
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .collect();
    if lines.len() > MAX_ENTRIES_A_CALL {
        return Err(Refused::bad(format!(
            "{} entries in one call, at most {MAX_ENTRIES_A_CALL}",
            lines.len()
        )));
    }
    let chain = node.chain;
    let entries = lines
        .iter()
        .map(|line| Entry::parse(line, &chain))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Refused::bad)?;
    let ids = entries.iter().map(Entry::id).collect();
    node.submit(entries).await?;
    Ok(Json(Submitted { ids }))
}

/// A statement that the node signs itself.
pub(crate) async fn statement(
    State(node): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Submitted>, Refused> {
    authorize(&node, &headers)?;
    let request: StatementRequest = serde_json::from_slice(&body).map_err(Refused::bad)?;
    let id = node.state_something(&request.topic, request.body).await?;
    Ok(Json(Submitted { ids: vec![id] }))
}

/// One IPFS block, stored when it hashes to its CID.
pub(crate) async fn store_block(
    State(node): State<Shared>,
    headers: HeaderMap,
    Path(cid): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    authorize(&node, &headers)?;
    let cid: Cid = cid.parse().map_err(Refused::bad)?;
    let blocks = node.blocks.clone();
    // Durable with the pin that follows; a block that nobody pins is nobody's promise.
    tokio::task::spawn_blocking(move || blocks.put_later(&cid, &body))
        .await
        .map_err(Refused::internal)?
        .map_err(refused_block)?;
    Ok(Json(json!({"cid": cid.to_string()})))
}

/// A CAR archive of blocks, each of which hashes to its CID; kept in one durable step.
pub(crate) async fn store_archive(
    State(node): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    authorize(&node, &headers)?;
    let blocks = node.blocks.clone();
    let kept = tokio::task::spawn_blocking(move || {
        let mut car = instar_chunks::car::CarReader::new(&body[..]).map_err(Refused::bad)?;
        let mut append = blocks.append();
        let mut kept = 0_u64;
        while let Some((cid, bytes)) = car.next_block().map_err(Refused::bad)? {
            append.put(&cid, &bytes).map_err(refused_block)?;
            kept += 1;
        }
        append.commit().map_err(refused_block)?;
        Ok::<_, Refused>(kept)
    })
    .await
    .map_err(Refused::internal)??;
    Ok(Json(json!({"blocks": kept})))
}

/// A store that is full is no fault of the caller's, who can do something about it.
fn refused_block(error: instar_chunks::BlockError) -> Refused {
    use instar_chunks::BlockError::{Full, Quota};
    match error {
        Quota { .. } | Full { .. } => Refused::new(StatusCode::INSUFFICIENT_STORAGE, error),
        other => Refused::bad(other),
    }
}

/// Keeps a root under a name.
pub(crate) async fn pin(
    State(node): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    authorize(&node, &headers)?;
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pin {
        cid: String,
        name: String,
    }
    let pin: Pin = serde_json::from_slice(&body).map_err(Refused::bad)?;
    let cid: Cid = pin.cid.parse().map_err(Refused::bad)?;
    let blocks = node.blocks.clone();
    let missing = tokio::task::spawn_blocking(move || {
        blocks.pin_whole(&pin.name, &cid, &instar_chunks::Limits::default())
    })
    .await
    .map_err(Refused::internal)?
    .map_err(Refused::bad)?;
    if let Some(first) = missing.first() {
        return Err(Refused::bad(format!(
            "{} blocks of {cid} are not here, {first} among them",
            missing.len()
        ))
        .hint("store every block before the pin"));
    }
    Ok(Json(json!({"pinned": cid.to_string()})))
}

/// `?final=true`: only what a quorum has said counts.
#[derive(serde::Deserialize)]
pub(crate) struct Firmness {
    #[serde(default, rename = "final")]
    only_final: bool,
}

/// A question to a dapp, no write possible: answered from the provisional view where unmerged entries concern the dapp,
/// else from the newest final state. The label says which.
pub(crate) async fn query(
    State(node): State<Shared>,
    Path(dapp): Path<String>,
    Query(firmness): Query<Firmness>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    let question: Value = instar_attest::json::from_slice(&body, instar_ledger::MAX_ENTRY_BYTES)
        .map_err(Refused::bad)?;
    let (label, height, answer) = node
        .query(dapp, question, firmness.only_final)
        .await
        .map_err(Refused::bad)?;
    Ok(Json(
        json!({"label": label, "height": height, "answer": answer}),
    ))
}
