//! The node's HTTP API: loopback unless the configuration says otherwise; writes need the token.

mod git;
mod govern;
mod light;
mod metrics;
mod read;
mod snapshots;
mod state;
mod sync;
pub mod types;
mod write;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use types::ApiError;

use crate::node::Shared;

/// The largest request body: an IPFS block, or a batch of entries.
const MAX_BODY_BYTES: usize = 2 << 20;

/// A refusal with its status.
pub(crate) struct Refused(StatusCode, ApiError);

impl Refused {
    pub(crate) fn new(status: StatusCode, error: impl std::fmt::Display) -> Self {
        Self(
            status,
            ApiError {
                error: error.to_string(),
                hint: None,
            },
        )
    }
    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.1.hint = Some(hint.to_owned());
        self
    }
    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }
    pub(crate) fn bad(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, what)
    }
    /// What was here once, or never will be: history from before this node began.
    pub(crate) fn gone(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::GONE, what)
            .hint("an archive has the whole chain (`instar chain join --archive`)")
    }
    pub(crate) fn internal(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, what)
    }
}

impl From<crate::core::CoreError> for Refused {
    fn from(e: crate::core::CoreError) -> Self {
        match e {
            crate::core::CoreError::Before { .. } => Self::gone(e),
            crate::core::CoreError::NoRoom(_) => Self::new(StatusCode::INSUFFICIENT_STORAGE, e)
                .hint("hand it to another node, or make room on this one's disk"),
            e => Self::internal(e),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, axum::Json(self.1)).into_response()
    }
}

/// All routes.
pub(crate) fn router(node: Shared) -> Router {
    let gateway = crate::gateway::router(node.blocks.clone());
    Router::new()
        .route("/v1/status", get(read::status))
        .route("/v1/accounts/{key}", get(read::account))
        .route("/v1/receipts/{id}", get(read::receipt))
        .route("/v1/blocks/{height}", get(read::block))
        .route("/v1/entries/{id}", get(read::entry))
        .route("/v1/genesis", get(sync::genesis))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/peers", get(sync::peers))
        .route("/v1/head", get(sync::signed_head))
        .route("/v1/sync/{height}", get(sync::blocks))
        .route("/v1/state/{height}", get(state::at))
        .route("/v1/mother/state", get(state::of_mother))
        .route("/v1/rounds/{id}", get(read::round))
        .route("/v1/upgrades", get(read::upgrades))
        .route("/v1/upgrades/{id}", get(read::upgrade))
        .route("/v1/slots/{*slot}", get(read::slot))
        .route("/v1/validators", get(govern::validators))
        .route("/v1/operators", get(govern::operators))
        .route("/v1/devices", get(govern::devices))
        .route("/v1/forks", get(govern::forks))
        .route("/v1/motions", get(govern::motions))
        .route("/v1/motions/{id}", get(govern::motion))
        .route("/v1/allowed-signers", get(read::allowed_signers))
        .route("/v1/headers", get(light::newest))
        .route("/v1/headers/{height}", get(light::by_height))
        .route("/v1/light/changes", get(light::changes))
        .route("/v1/light/validators/{height}", get(light::validators))
        .route("/v1/light/proof", get(light::prove))
        .route("/v1/snapshots", get(snapshots::offers))
        .route("/v1/snapshots/{height}", get(snapshots::list))
        .route("/v1/snapshots/{height}/ledger", get(snapshots::ledger))
        .route("/v1/entries", post(write::entries))
        .route("/v1/statements", post(write::statement))
        .route("/v1/store", post(write::store_archive))
        .route("/v1/store/{cid}", post(write::store_block))
        .route("/v1/pins", post(write::pin))
        .route("/v1/query/{dapp}", post(write::query))
        .route("/ledger.git/info/refs", get(git::info_refs))
        .route("/ledger.git/HEAD", get(git::head))
        .route("/ledger.git/git-upload-pack", post(git::upload_pack))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(node)
        .merge(gateway)
}

/// Refuses a write that does not carry the node's token. Compared by digest, so that timing tells nothing.
pub(crate) fn authorize(node: &Shared, headers: &HeaderMap) -> Result<(), Refused> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "));
    let digest = |text: &str| instar_attest::Digest::of(text.trim().as_bytes());
    match given {
        Some(token) if digest(token) == digest(&node.token) => Ok(()),
        _ => Err(Refused::new(StatusCode::UNAUTHORIZED, "this call needs the node's write token")
            .hint("send `Authorization: Bearer TOKEN`; the token stands in the file `token` of the node's home (--token-file)")),
    }
}
