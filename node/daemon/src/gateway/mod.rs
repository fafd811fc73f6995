//! The trustless IPFS gateway over a block store: read-only, verifiable answers alone.
//!
//! Follows <https://specs.ipfs.tech/http-gateways/trustless-gateway/>. It serves what the store
//! holds and asks nobody else, so that any IPFS client and any CDN can sit in front.

mod archive;
mod request;
pub mod serve;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use instar_chunks::{BlockError, BlockStore, Blocks, Cid};
use tokio::sync::Semaphore;

use request::{Format, Query, accepted, parse_range};

/// Archives that are streamed at a time; each holds a thread and one block.
const MAX_STREAMS: usize = 32;
/// Bytes of a block may be cached for ever: what stands under an address never changes.
const CACHE: &str = "public, max-age=29030400, immutable";

/// What the routes share.
#[derive(Clone)]
pub(crate) struct Gateway {
    store: Arc<BlockStore>,
    streams: Arc<Semaphore>,
}

/// Why a request is not answered with content.
pub(crate) struct Refusal(StatusCode, String);

impl Refusal {
    fn bad(why: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, why.into())
    }

    fn of_block(cid: &Cid, error: BlockError) -> Self {
        match error {
            BlockError::Unsupported { .. } => Self(StatusCode::NOT_FOUND, error.to_string()),
            other => {
                tracing::warn!(%cid, error = %other, "a block that was asked for can't be served");
                Self(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the block store failed".into(),
                )
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        (self.0, kind, format!("{}\n", self.1)).into_response()
    }
}

/// The routes, for any node that has a store.
pub(crate) fn router(store: Arc<BlockStore>) -> Router {
    let gateway = Gateway {
        store,
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
    };
    Router::new()
        .route("/ipfs/{cid}", get(root))
        .route("/ipfs/{cid}/{*path}", get(below))
        .with_state(gateway)
}

async fn root(
    State(gateway): State<Gateway>,
    method: Method,
    Path(cid): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    answer(&gateway, &method, &cid, None, query, &headers).await
}

async fn below(
    State(gateway): State<Gateway>,
    method: Method,
    Path((cid, path)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    answer(&gateway, &method, &cid, Some(path), query, &headers).await
}

async fn answer(
    gateway: &Gateway,
    method: &Method,
    cid: &str,
    path: Option<String>,
    query: Option<String>,
    headers: &HeaderMap,
) -> Response {
    match respond(gateway, method, cid, path, query, headers).await {
        Ok(mut response) => {
            common(response.headers_mut(), cid);
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn respond(
    gateway: &Gateway,
    method: &Method,
    text: &str,
    path: Option<String>,
    query: Option<String>,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let cid: Cid = text
        .parse()
        .map_err(|_| Refusal::bad(format!("{text:?} is no CID")))?;
    let query = Query::parse(query.as_deref().unwrap_or_default()).map_err(Refusal::bad)?;
    let format = accepted(&query, headers).map_err(Refusal::bad)?;
    let path = path
        .map(|p| p.trim_matches('/').to_owned())
        .filter(|p| !p.is_empty());
    if path.is_some() && matches!(format, Format::Raw) {
        return Err(Refusal::bad(
            "a single block is asked for by its CID alone; a path needs format=car",
        ));
    }
    let only_cached = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("only-if-cached"));
    let store = Arc::clone(&gateway.store);
    let held = tokio::task::spawn_blocking(move || store.has(&cid)).await;
    let held = held
        .map_err(|_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "stopping".into()))?
        .map_err(|e| Refusal::of_block(&cid, e))?;
    if !held {
        let status = match only_cached {
            true => StatusCode::PRECONDITION_FAILED,
            false => StatusCode::NOT_FOUND,
        };
        return Err(Refusal(status, format!("block {text} is not here")));
    }
    match format {
        Format::Raw => raw(gateway, text, cid, &query, headers).await,
        Format::Car { duplicates } => {
            let head = method == Method::HEAD;
            archive::car(gateway, text, cid, path, &query, duplicates, headers, head).await
        }
    }
}

/// A block as it is. `Range` is answered, because the bytes of a block never change.
async fn raw(
    gateway: &Gateway,
    text: &str,
    cid: Cid,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let etag = format!("\"{text}.raw\"");
    if matches_etag(headers, &etag) {
        return Ok(unchanged(&etag));
    }
    let store = Arc::clone(&gateway.store);
    let found = tokio::task::spawn_blocking(move || store.get(&cid)).await;
    let bytes = found
        .map_err(|_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "stopping".into()))?
        .map_err(|e| Refusal::of_block(&cid, e))?
        .ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("block {text} is not here")))?;
    let total = bytes.len();
    let mut response = match parse_range(headers, total, &etag) {
        Ok(None) => (StatusCode::OK, bytes).into_response(),
        Ok(Some((from, to))) => {
            let mut response =
                (StatusCode::PARTIAL_CONTENT, bytes[from..to].to_vec()).into_response();
            let range = format!("bytes {from}-{}/{total}", to - 1);
            set(response.headers_mut(), header::CONTENT_RANGE, &range);
            response
        }
        Err(()) => {
            let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
            let range = format!("bytes */{total}");
            set(response.headers_mut(), header::CONTENT_RANGE, &range);
            return Ok(response);
        }
    };
    let map = response.headers_mut();
    set(map, header::CONTENT_TYPE, "application/vnd.ipld.raw");
    set(
        map,
        header::CONTENT_DISPOSITION,
        &format!("attachment; filename=\"{text}.bin\""),
    );
    set(map, header::ACCEPT_RANGES, "bytes");
    set(map, header::ETAG, &etag);
    set(map, header::CACHE_CONTROL, CACHE);
    if query.format.is_none() {
        set(
            map,
            header::CONTENT_LOCATION,
            &format!("/ipfs/{text}?format=raw"),
        );
    }
    Ok(response)
}

/// What all answers with content say.
fn common(map: &mut HeaderMap, cid: &str) {
    set(map, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Content under an address is public; a browser's client may ask for it.
    set(map, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(
        map,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        "Content-Length, Content-Range, Etag, X-Ipfs-Path, X-Ipfs-Roots",
    );
    set(map, header::VARY, "Accept");
    set(map, header::HeaderName::from_static("x-ipfs-roots"), cid);
}

fn set(map: &mut HeaderMap, name: header::HeaderName, value: &str) {
    // What isn't plain text can't come from a parsed CID or a number; it is left out.
    if let Ok(value) = HeaderValue::from_str(value) {
        map.insert(name, value);
    }
}

fn unchanged(etag: &str) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    set(response.headers_mut(), header::ETAG, etag);
    set(response.headers_mut(), header::CACHE_CONTROL, CACHE);
    response
}

/// `If-None-Match`, compared weakly, as RFC 9110 has it.
fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == "*" || one == etag)
}
