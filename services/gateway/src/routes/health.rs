//! `/healthz` and `/readyz`: for service managers, monitoring and load balancers.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;

use crate::health::Health;
use crate::service::state::AppState;

/// The routes.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

/// The process serves requests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alive {
    /// `ok`.
    status: &'static str,
    /// The version of the gateway.
    version: &'static str,
}

impl Alive {
    /// The answer of this process.
    pub(crate) const NOW: Self = Self { status: "ok", version: env!("CARGO_PKG_VERSION") };
}

/// The parts of the system, and whether all of them are there.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether all parts are there.
    ready: bool,
    /// Each part by its name.
    parts: Health,
}

/// Answers that the process serves, even if parts of the system are missing.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = 200, description = "The process serves", body = Alive))
)]
pub(crate) async fn healthz() -> Json<Alive> {
    Json(Alive::NOW)
}

/// Says which parts of the system are there, and which are missing.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses(
        (status = 200, description = "All parts are there", body = Readiness),
        (status = 503, description = "A part is missing", body = Readiness),
    )
)]
pub(crate) async fn readyz(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> (StatusCode, Json<Readiness>) {
    let health = state.health().await;
    // Anybody may ask, and the messages contain names. A token in the request has been checked before.
    let is_stranger = state.config.private && !headers.contains_key(header::AUTHORIZATION);
    answer(if is_stranger { health.without_messages() } else { health })
}

/// The answer to [`readyz`].
pub(crate) fn answer(health: Health) -> (StatusCode, Json<Readiness>) {
    let ready = health.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, parts: health }))
}
