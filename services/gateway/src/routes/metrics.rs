//! `/metrics`: for Prometheus.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::routing::get;

use crate::error::Error;
use crate::metrics::{CONTENT_TYPE, Snapshot};
use crate::service::state::AppState;

/// The routes.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/metrics", get(metrics))
}

/// The counts of the gateway, those of the worker, and which parts are there.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses(
        (status = 200, description = "Prometheus' text form", body = String, content_type = "text/plain"),
    )
)]
pub(crate) async fn metrics(
    State(state): State<AppState>,
) -> Result<([(HeaderName, &'static str); 1], String), Error> {
    // A part that does not answer is reported as down, and its values are left out.
    let (health, cache, pending, backlog) = tokio::join!(
        state.health(),
        state.cache.stats(),
        state.for_page(state.pending_count()),
        state.cache.backlog()
    );
    let bus = state.cache.bus();
    let snapshot = Snapshot {
        health,
        cache: cache.ok(),
        pending: pending.ok(),
        backlog: backlog.ok(),
        held_files: state.swept().map(|swept| if swept.held { swept.unnamed } else { 0 }),
        started: state.started,
        slow_consumers: bus.slow_consumer_count(),
        connections: bus.connection_count(),
        near: state.near().map(|near| near.size()),
    };
    let text = state.metrics.render(&snapshot).map_err(|error| Error::Internal(error.into()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}
