//! `/events/…`: server-sent events, for pages that follow what happens.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;

use super::api::Failure;
use super::openapi;
use crate::error::Error;
use crate::state::AppState;

/// A comment goes over a stream that is quiet, so that nobody on the way takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a browser comes back after a stream has broken off.
const RETRY: Duration = Duration::from_secs(1);

const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Marks an answer that goes on until one of the two hangs up: its connection is never idle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endless;

/// The routes.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/events/stats", get(stats))
}

/// Windows and changes as they come.
///
/// A stream of server-sent events that goes on until either side ends it. The names of the events are `bus`, `window`,
/// `configured`, `cleared` and `skipped`; the data of each is one JSON object.
#[utoipa::path(
    get,
    path = "/events/stats",
    tag = "events",
    responses(
        (status = 200, description = "Events from now on", content((openapi::StatsEvents = "text/event-stream"))),
        (status = 503, description = "As many streams as there may be, or the gateway has just started", body = Failure),
    )
)]
pub(crate) async fn stats(State(state): State<AppState>) -> Result<Response, Error> {
    let events = state.feed().stats()?;
    Ok(stream(events.map(|event| (event.name(), event))))
}

/// Events with their names, as an answer.
fn stream<T: Serialize>(events: impl Stream<Item = (&'static str, T)> + Send + 'static) -> Response {
    let events = events.map(|(name, data)| Event::default().event(name).retry(RETRY).json_data(data));
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    let headers = response.headers_mut();
    // nginx would otherwise gather events until its buffer is full.
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    // What has ended is over: the connection is no longer one of those that wait for a request.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response.extensions_mut().insert(Endless);
    response
}
