//! `/events/…`: server-sent events, for pages that show the cache live.

use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use utoipa::IntoParams;
use wire::event::KeyEventKind;
use wire::key::MAX_KEY_BYTES;

use super::answer::Parameters;
use super::schema;
use crate::cache::feed::{Filter, GaveWay};
use crate::error::{Error, Failure};
use crate::service::state::AppState;
use crate::visitor::Visitor;

/// How often a comment goes over a quiet stream, so that no proxy on the way takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a browser waits before it reconnects after a stream has broken off.
const RETRY: Duration = Duration::from_secs(1);
/// How long it waits after its stream had to give way. At once, it would only take the place of another stream.
const RETRY_LATER: Duration = Duration::from_secs(30);

const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Marks an answer that goes on until one side closes the connection, which is never idle until then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endless;

/// The routes.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/events/stats", get(stats)).route("/events/keys", get(keys))
}

/// Windows of counts, and changes of the configuration, as they come.
///
/// A stream of server-sent events that goes on until either side ends it. The names of the events are `bus`, `window`,
/// `configured`, `cleared`, `skipped` and `gave_way`. The event `gave_way` is the last one of a stream whose place
/// another reader has now. The data of each event is one JSON object.
#[utoipa::path(
    get,
    path = "/events/stats",
    tag = "events",
    responses(
        (status = 200, description = "Events from now on", content((schema::StatsEvents = "text/event-stream"))),
        (status = 503, description = "As many streams as there may be, or the gateway has just started", body = Failure),
    )
)]
pub(crate) async fn stats(
    State(state): State<AppState>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, Error> {
    let events = state.feed().stats(visitor)?;
    Ok(stream(events.map(|event| (event.name(), event))))
}

/// The filter of key events.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct KeysQuery {
    /// Kinds of events, apart by commas: hit, miss, put, evicted, invalidated, rejected; all if not given.
    #[param(
        required = false,
        value_type = String,
        example = "hit,miss",
        pattern = "^(hit|miss|put|evicted|invalidated|rejected)(,(hit|miss|put|evicted|invalidated|rejected))*$"
    )]
    kinds: Vec<KeyEventKind>,
    /// Only events of keys that begin with this text.
    #[param(required = false, max_length = 255)]
    prefix: String,
}

impl KeysQuery {
    fn of(uri: &Uri) -> Result<Self, Error> {
        let query = Parameters::of(uri, ["kinds", "prefix"])?;
        let kind =
            |kind: &str| kind.parse().map_err(|error| Error::BadRequest(format!("a kind in kinds {error}")));
        let kinds = match query.get("kinds") {
            None => KeyEventKind::ALL.to_vec(),
            Some(kinds) => {
                let mut kinds: Vec<KeyEventKind> =
                    kinds.split(',').map(kind).collect::<Result<_, Error>>()?;
                kinds.sort_unstable();
                kinds.dedup();
                kinds
            }
        };
        let prefix = query.get("prefix").unwrap_or_default();
        if prefix.len() > MAX_KEY_BYTES {
            let message = format!("prefix must be at most {MAX_KEY_BYTES} bytes, got {}", prefix.len());
            return Err(Error::BadRequest(message));
        }
        Ok(Self { kinds, prefix: prefix.to_owned() })
    }
}

/// The events of keys, in batches four times a second.
///
/// A stream of server-sent events that goes on until either side ends it. The names of the events are `watch`, `keys`
/// and `gave_way`. The event `gave_way` is the last one of a stream whose place another reader has now. The data of
/// each event is one JSON object. No event comes while nothing happens.
#[utoipa::path(
    get,
    path = "/events/keys",
    tag = "events",
    params(KeysQuery),
    responses(
        (status = 200, description = "Events from now on", content((schema::KeysEvents = "text/event-stream"))),
        (status = 400, description = "A parameter that is not allowed", body = Failure),
        (status = 503, description = "As many streams as there may be, or the gateway has just started", body = Failure),
    )
)]
pub(crate) async fn keys(
    State(state): State<AppState>,
    Extension(visitor): Extension<Visitor>,
    uri: Uri,
) -> Result<Response, Error> {
    let KeysQuery { kinds, prefix } = KeysQuery::of(&uri)?;
    let events = state.feed().keys(Filter { kinds, prefix }, visitor)?;
    Ok(stream(events.map(|event| (event.name(), event))))
}

/// Events with their names, as an answer.
fn stream<T: Serialize>(events: impl Stream<Item = (&'static str, T)> + Send + 'static) -> Response {
    let events = events.map(|(name, data)| {
        let retry = if name == GaveWay::NAME { RETRY_LATER } else { RETRY };
        Event::default().event(name).retry(retry).json_data(data)
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    let headers = response.headers_mut();
    // nginx would otherwise gather events until its buffer is full.
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    // The connection ends with the stream: it no longer counts as one that waits for a request.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response.extensions_mut().insert(Endless);
    response
}
