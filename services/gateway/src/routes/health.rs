//! `/healthz` and `/readyz`: for those who start, watch and balance.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;

use super::schema;
use crate::health::Health;
use crate::service::state::AppState;

/// The routes.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

/// That the process serves.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alive {
    /// `ok`.
    status: &'static str,
    /// The version of the gateway.
    version: &'static str,
}

impl Alive {
    /// This process.
    pub(crate) const NOW: Self = Self { status: "ok", version: env!("CARGO_PKG_VERSION") };
}

/// Which parts are there.
#[derive(Debug, Serialize)]
pub(crate) struct Readiness {
    /// Whether all of them are.
    ready: bool,
    /// Each part by its name.
    parts: Health,
}

/// Says that the process serves, whatever else is missing.
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
        (status = 200, description = "All parts are there", body = schema::Readiness),
        (status = 503, description = "A part is missing", body = schema::Readiness),
    )
)]
pub(crate) async fn readyz(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> (StatusCode, Json<Readiness>) {
    let health = state.health().await;
    // Anybody may ask, and messages have names in them. A token was looked at before this.
    let is_stranger = state.config.private && !headers.contains_key(header::AUTHORIZATION);
    answer(if is_stranger { health.without_messages() } else { health })
}

/// The answer to [`readyz`].
pub(crate) fn answer(health: Health) -> (StatusCode, Json<Readiness>) {
    let ready = health.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, parts: health }))
}
