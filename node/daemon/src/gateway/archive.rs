//! Archives from the gateway: a path, what hangs below its end, streamed block by block.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use instar_chunks::block::canonical;
use instar_chunks::car::CarWriter;
use instar_chunks::node::{Node, decode};
use instar_chunks::read::resolve_through;
use instar_chunks::traverse::{Scope, Traverse};
use instar_chunks::{BlockStore, Blocks, Cid, DagError, Limits};
use tokio::sync::mpsc;

use super::request::{Offset, Query};
use super::{CACHE, Gateway, Refusal, matches_etag, set, unchanged};

/// Pieces of an archive that wait for a slow reader.
const PIECES_AHEAD: usize = 8;
/// Bytes of a piece, about: a block more at most.
const PIECE_BYTES: usize = 256 << 10;

/// What an archive consists of.
struct Plan {
    /// Blocks on the way to the end of the path.
    way: Vec<(Cid, Vec<u8>)>,
    end: Cid,
    scope: Scope,
}

#[allow(clippy::too_many_arguments)]
pub(super) async fn car(
    gateway: &Gateway,
    text: &str,
    cid: Cid,
    path: Option<String>,
    query: &Query,
    duplicates: bool,
    headers: &HeaderMap,
    head: bool,
) -> Result<Response, Refusal> {
    let permit = Arc::clone(&gateway.streams)
        .try_acquire_owned()
        .map_err(|_| {
            Refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many archives are being read; try again".into(),
            )
        })?;
    let store = Arc::clone(&gateway.store);
    let asked = query.clone();
    let way = path.clone();
    let plan = tokio::task::spawn_blocking(move || plan(&store, &cid, way.as_deref(), &asked))
        .await
        .map_err(|_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "stopping".into()))??;
    let tag = format!("{path:?} {:?} {duplicates}", plan.scope);
    let tag = instar_attest::Digest::of(tag.as_bytes()).to_string();
    let scope = match plan.scope {
        Scope::All => "all",
        Scope::Entity => "entity",
        Scope::Bytes(..) => "bytes",
        Scope::Block => "block",
    };
    let etag = format!("\"{text}.car.{scope}.{}\"", &tag[..16]);
    if matches_etag(headers, &etag) {
        return Ok(unchanged(&etag));
    }
    let body = match head {
        // Its length isn't known, which an empty body would deny.
        true => Body::from_stream(futures::stream::empty::<io::Result<Bytes>>()),
        false => stream(Arc::clone(&gateway.store), cid, plan, duplicates, permit),
    };
    let mut response = (StatusCode::OK, body).into_response();
    let map = response.headers_mut();
    let dups = if duplicates { "y" } else { "n" };
    set(
        map,
        header::CONTENT_TYPE,
        &format!("application/vnd.ipld.car; version=1; order=dfs; dups={dups}"),
    );
    set(
        map,
        header::CONTENT_DISPOSITION,
        &format!("attachment; filename=\"{text}.car\""),
    );
    set(map, header::ACCEPT_RANGES, "none");
    set(map, header::ETAG, &etag);
    set(map, header::CACHE_CONTROL, CACHE);
    if query.format.is_none() && path.is_none() {
        set(
            map,
            header::CONTENT_LOCATION,
            &format!("/ipfs/{text}?format=car"),
        );
    }
    Ok(response)
}

/// Follows the path and decides how much of its end belongs to the archive.
fn plan(
    store: &BlockStore,
    root: &Cid,
    path: Option<&str>,
    query: &Query,
) -> Result<Plan, Refusal> {
    let refuse = |error: DagError| match error {
        DagError::NotFound { .. } | DagError::Missing { .. } => {
            Refusal(StatusCode::NOT_FOUND, error.to_string())
        }
        DagError::Block(error) => Refusal::of_block(root, error),
        other => Refusal::bad(other.to_string()),
    };
    let limits = Limits::default();
    let mut way = Vec::new();
    let end = match path {
        Some(path) => resolve_through(store, root, path, &limits, &mut |cid, bytes| {
            way.push((*cid, bytes.to_vec()));
        })
        .map_err(refuse)?,
        None => canonical(root).map_err(|e| Refusal::of_block(root, e))?,
    };
    let scope = match (query.scope.as_deref(), query.bytes) {
        // Bytes are asked of an entity, whatever the scope says.
        (_, Some((from, to))) => {
            let bytes = store
                .get(&end)
                .map_err(|e| Refusal::of_block(&end, e))?
                .ok_or_else(|| {
                    Refusal(StatusCode::NOT_FOUND, format!("block {end} is not here"))
                })?;
            match decode(&end, &bytes).map_err(refuse)? {
                Node::Leaf(content) => within(from, to, content.len() as u64)?,
                Node::File { size, .. } => within(from, to, size)?,
                _ => Scope::Entity,
            }
        }
        (Some("block"), None) => Scope::Block,
        (Some("entity"), None) => Scope::Entity,
        _ => Scope::All,
    };
    Ok(Plan { way, end, scope })
}

/// The bytes of a file of `size` that lie in the range, which includes its last byte.
fn within(from: Offset, to: Offset, size: u64) -> Result<Scope, Refusal> {
    let place = |offset| match offset {
        Offset::FromStart(at) => Some(at),
        Offset::FromEnd(back) => size.checked_sub(back),
        Offset::End => Some(size.saturating_sub(1)),
    };
    // Before the beginning is the beginning.
    let first = place(from).unwrap_or(0);
    let Some(last) = place(to) else {
        return Ok(Scope::Block);
    };
    if first >= size && size > 0 {
        return Err(Refusal::bad(format!(
            "entity-bytes begins at {first}, and the file has {size} bytes"
        )));
    }
    if last < first {
        return Ok(Scope::Block);
    }
    Ok(Scope::Bytes(first, last.saturating_add(1)))
}

fn stream(
    store: Arc<BlockStore>,
    root: Cid,
    plan: Plan,
    duplicates: bool,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> Body {
    let (send, mut receive) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut pieces = Pieces(send.clone(), Vec::new());
        if let Err(error) = write(&store, &root, plan, duplicates, &mut pieces) {
            tracing::debug!(%root, %error, "an archive was not finished");
            // The answer has begun; breaking it off is how its reader learns.
            let _ = send.blocking_send(Err(io::Error::other("cut off")));
        }
    });
    Body::from_stream(futures::stream::poll_fn(move |context| {
        receive.poll_recv(context)
    }))
}

fn write(
    store: &BlockStore,
    root: &Cid,
    plan: Plan,
    duplicates: bool,
    out: &mut Pieces,
) -> Result<(), instar_chunks::car::CarError> {
    let mut car = CarWriter::new(out, &[*root])?;
    let mut traverse = Traverse::new(store, &plan.end, plan.scope, Limits::default())?;
    if duplicates {
        traverse.with_duplicates();
    }
    for (cid, bytes) in &plan.way {
        car.block(cid, bytes)?;
        if !duplicates && *cid != plan.end {
            traverse.skip(cid);
        }
    }
    while let Some((cid, bytes)) = traverse.next_block()? {
        car.block(&cid, &bytes)?;
    }
    car.finish()?;
    Ok(())
}

/// What is written, handed to the connection piece by piece.
struct Pieces(mpsc::Sender<io::Result<Bytes>>, Vec<u8>);

impl io::Write for &mut Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        if self.1.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.1));
        self.0
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}
