//! Whole states for forks: this chain's at a height that is kept, and, on a fork, its mother's where it begins.

use std::fs::File;
use std::io::{self, Write};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use instar_state::StoreError;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::Refused;
use super::git::{PIECE_BYTES, PIECES_AHEAD, Pieces};
use crate::node::Shared;

/// How many states are handed out at once: each reads all of it from disk.
const MAX_STATES: usize = 2;
static PLACES: Semaphore = Semaphore::const_new(MAX_STATES);

fn place() -> Result<SemaphorePermit<'static>, Refused> {
    PLACES.try_acquire().map_err(|_| {
        Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{MAX_STATES} states are being handed out, try again later"),
        )
    })
}

/// Streams what `write` writes, from a thread that may block. A reader sees a failure as a connection that ends early, and
/// in the dump as a missing end.
fn stream(
    place: SemaphorePermit<'static>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), String> + Send + 'static,
) -> Response {
    let (send, receive) = mpsc::channel(PIECES_AHEAD);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let pieces = Pieces {
            to: send.clone(),
            runtime,
        };
        let mut out = io::BufWriter::with_capacity(PIECE_BYTES, pieces);
        let written = write(&mut out).and_then(|()| out.flush().map_err(|e| e.to_string()));
        if let Err(error) = written {
            tracing::info!(error, "a state was not handed out");
            // What is still buffered would wait for the same reader once more.
            let _ = out.into_parts();
            let _ = send.try_send(Err(io::Error::other("cut off")));
        }
    });
    let pieces = futures::stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|piece| (piece, receive))
    });
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    (kind, Body::from_stream(pieces)).into_response()
}

/// The state after the block of a height, as `instar_state::dump` writes it.
pub(crate) async fn at(
    State(node): State<Shared>,
    Path(height): Path<u64>,
) -> Result<Response, Refused> {
    let place = place()?;
    let export = node.state.export(height).map_err(|e| match e {
        StoreError::Future { .. } | StoreError::Pruned { .. } => Refused::not_found(e),
        other => Refused::internal(other),
    })?;
    Ok(stream(place, move |out| {
        instar_state::write_dump(export, out)
            .map(drop)
            .map_err(|e| e.to_string())
    }))
}

/// The state that this fork begins with, for those who join it.
pub(crate) async fn of_mother(State(node): State<Shared>) -> Result<Response, Refused> {
    let place = place()?;
    let path = node.home.mother_state();
    let mut file = File::open(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Refused::not_found("this chain is no fork"),
        _ => Refused::internal(format!("{}: {e}", path.display())),
    })?;
    Ok(stream(place, move |out| {
        io::copy(&mut file, out)
            .map(drop)
            .map_err(|e| e.to_string())
    }))
}
