//! The ledger for stock git: `git clone http://node/ledger.git`, read-only, by a bounded `git upload-pack`.

use std::io::{self, Write};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use instar_ledger::http::{ADVERTISEMENT_TYPE, CACHE_CONTROL, RESULT_TYPE, ServeError};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Refused;
use crate::node::Shared;

/// Pieces of a reply that wait for a slow reader; git stands still meanwhile.
pub(super) const PIECES_AHEAD: usize = 8;
/// Bytes of a piece.
pub(super) const PIECE_BYTES: usize = 64 << 10;
/// How long a reader may take nothing before its clone is cut off, so that idle ones don't hold git processes.
const READER_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
pub(crate) struct Service {
    #[serde(default)]
    service: String,
}

/// What git, or an export of the state, writes, handed to the connection piece by piece.
pub(super) struct Pieces {
    pub to: mpsc::Sender<io::Result<Bytes>>,
    pub runtime: Handle,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        let sent = async { tokio::time::timeout(READER_PATIENCE, self.to.send(Ok(piece))).await };
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(bytes.len()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned)
}

/// Runs `serve` on a thread that may block and streams what it writes.
///
/// A refusal before the first byte is an answer of its own; later ones break the connection off, which git notices.
async fn stream(
    content_type: &'static str,
    serve: impl FnOnce(&mut dyn Write) -> Result<(), ServeError> + Send + 'static,
) -> Result<Response, Refused> {
    let (send, mut receive) = mpsc::channel(PIECES_AHEAD);
    let runtime = Handle::current();
    let task = tokio::task::spawn_blocking(move || {
        let pieces = Pieces {
            to: send.clone(),
            runtime,
        };
        let mut out = io::BufWriter::with_capacity(PIECE_BYTES, pieces);
        let served = serve(&mut out).and_then(|()| out.flush().map_err(ServeError::Git));
        if let Err(e) = &served {
            tracing::info!(error = %e, "a clone was not served");
            // What is still buffered would wait for the same reader once more.
            let _ = out.into_parts();
            // A reader that takes nothing has no room for this either; it sees the connection end.
            let _ = send.try_send(Err(io::Error::other("cut off")));
        }
        served
    });
    let first = match receive.recv().await {
        Some(Ok(first)) => first,
        Some(Err(_)) | None => {
            return match task.await {
                Ok(Err(ServeError::Busy)) => Err(Refused::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    ServeError::Busy,
                )),
                Ok(Err(e @ ServeError::Request(_))) => Err(Refused::bad(e)),
                Ok(Err(e)) => Err(Refused::internal(e)),
                Ok(Ok(())) => Ok(answer(content_type, Body::empty())),
                Err(e) => Err(Refused::internal(e)),
            };
        }
    };
    let rest = futures::stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|piece| (piece, receive))
    });
    let all = futures::StreamExt::chain(futures::stream::once(async { Ok(first) }), rest);
    Ok(answer(content_type, Body::from_stream(all)))
}

fn answer(content_type: &'static str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, CACHE_CONTROL),
    ];
    (StatusCode::OK, headers, body).into_response()
}

pub(crate) async fn info_refs(
    State(node): State<Shared>,
    Query(query): Query<Service>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    if query.service != "git-upload-pack" {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            "only the smart protocol's git-upload-pack is served; the ledger takes no pushes",
        ));
    }
    // What is final but waits for its pack must be seen by whoever clones now.
    node.with_core(|core| core.flush())
        .await
        .map_err(Refused::internal)?;
    let serve = node.git.clone();
    let protocol = header_text(&headers, "git-protocol");
    stream(ADVERTISEMENT_TYPE, move |out| {
        serve.advertise(protocol.as_deref(), out)
    })
    .await
}

pub(crate) async fn head() -> &'static str {
    "ref: refs/heads/trunk\n"
}

pub(crate) async fn upload_pack(
    State(node): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    let serve = node.git.clone();
    let (protocol, encoding) = (
        header_text(&headers, "git-protocol"),
        header_text(&headers, "content-encoding"),
    );
    stream(RESULT_TYPE, move |out| {
        serve.rpc(protocol.as_deref(), encoding.as_deref(), &body, out)
    })
    .await
}
