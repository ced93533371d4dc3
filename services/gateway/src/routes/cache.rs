//! `/api/cache`: the configuration of the cache, and clearing it.

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use wire::ConfigReply;
use wire::inspect::ClearReply;

use super::answer::{NoBody, broken_off};
use super::schema;
use crate::error::{Error, Failure};
use crate::service::state::AppState;

/// The author of a change in the history, when the request names none.
const BY: &str = "http api";
/// The most bytes of a change, which is a few words.
const CHANGE_BYTES: usize = 64 << 10;

/// The routes.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/api/cache", get(config).put(set_config).layer(DefaultBodyLimit::max(CHANGE_BYTES)))
        .route("/api/cache/clear", post(clear))
}

/// The configuration that is in force.
#[utoipa::path(
    get,
    path = "/api/cache",
    tag = "cache",
    responses(
        (status = 200, description = "What is in force", body = ConfigReply),
        (status = 503, description = "No cache answers", body = Failure),
    )
)]
pub(crate) async fn config(State(state): State<AppState>) -> Result<Json<ConfigReply>, Error> {
    Ok(Json(state.cache.config().await?))
}

/// Changes the capacity, the policy, or both.
#[utoipa::path(
    put,
    path = "/api/cache",
    tag = "cache",
    request_body = schema::CacheConfigChange,
    responses(
        (status = 200, description = "What is in force now", body = ConfigReply),
        (status = 400, description = "A value that is not allowed, or no JSON; nothing was changed", body = Failure),
        (status = 413, description = "A body of more than 64 kB", body = Failure),
        (status = 415, description = "Not application/json", body = Failure),
        (status = 503, description = "No cache answers", body = Failure),
    )
)]
pub(crate) async fn set_config(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ConfigReply>, Error> {
    if !is_json(&headers) {
        return Err(Error::UnsupportedType(
            r#"Content-Type must be application/json, with a body such as {"capacity_mb":64,"policy":"lru"}"#
                .into(),
        ));
    }
    let change = body.map_err(|rejection| match rejection.status() {
        axum::http::StatusCode::PAYLOAD_TOO_LARGE => {
            Error::TooLarge(format!("the body must be at most {CHANGE_BYTES} bytes, got more"))
        }
        _ => broken_off(),
    })?;
    Ok(Json(state.cache.set_config(&change, BY).await?))
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|text| {
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    })
}

/// Drops everything that is cached. The images stay stored.
#[utoipa::path(
    post,
    path = "/api/cache/clear",
    tag = "cache",
    responses(
        (status = 200, description = "What was dropped", body = ClearReply),
        (status = 503, description = "No cache answers", body = Failure),
    )
)]
pub(crate) async fn clear(State(state): State<AppState>, _: NoBody) -> Result<Json<ClearReply>, Error> {
    Ok(Json(state.clear_cache(BY).await?))
}
