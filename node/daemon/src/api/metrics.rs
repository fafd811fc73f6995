//! `GET /metrics`, for Prometheus.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Refused;
use crate::metrics::Now;
use crate::node::Shared;

/// The text format that OpenMetrics 1.0 describes.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The node's own counters, and those of its consensus engine.
pub(crate) async fn metrics(State(node): State<Shared>) -> Result<Response, Refused> {
    let status = node.status().await.map_err(Refused::internal)?;
    let now = Now {
        height: status.height,
        head_time_ms: status.time_ms,
        pending: status.pending,
        data_peers: status.data_peers,
        resting_peers: node.peer.resting(),
        fresh_ms: status.fresh_ms,
        nil_prevotes: status.nil_prevotes,
    };
    let mut text = node.metrics.encode(&now).map_err(Refused::internal)?;
    text.push_str(&instar_consensus::metrics());
    text.push_str("# EOF\n");
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
