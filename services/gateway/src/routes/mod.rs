//! The routes: one file a feature, its `router()` beside its handlers.

pub(crate) mod access;
pub(crate) mod api;
mod attempts;
mod cache;
pub(crate) mod events;
mod guard;
pub(crate) mod health;
mod hot;
mod images;
mod key;
mod lend;
mod metrics;
mod openapi;
pub mod pages;
mod stats;
pub(crate) mod upload;

use access::{Gate, Peer};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{from_fn_with_state, map_response_with_state};
use axum::response::{IntoResponse as _, Response};
use hot::Hot;
use hyper::body::Incoming;
use tower::ServiceExt as _;

use crate::error::Error;
use crate::state::AppState;
use crate::views::Views;

/// The most bytes of a body that is no image.
const SMALL_BODY: usize = 64 << 10;

/// Everything that the gateway answers to those whom the gate lets in.
#[derive(Debug)]
pub(crate) struct App {
    hot: Hot,
    routes: Router,
}

impl App {
    /// All of it.
    pub(crate) fn new(state: AppState, gate: Gate) -> Self {
        let turns = guard::Turns::new(&state.config);
        Self { hot: Hot::new(&state, &gate, &turns), routes: routes(state, gate, turns) }
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, mut request: axum::http::Request<Incoming>, peer: Peer) -> Response {
        if let Some(response) = self.hot.answer(&request, peer).await {
            return response;
        }
        request.extensions_mut().insert(peer);
        let Ok(response) = self.routes.clone().oneshot(request).await;
        response
    }
}

fn routes(state: AppState, gate: Gate, turns: guard::Turns) -> Router {
    let routes = Router::new()
        .merge(api::router())
        .merge(cache::router())
        .merge(events::router())
        .merge(health::router())
        .merge(images::router())
        .merge(metrics::router())
        .merge(openapi::router(&gate))
        .merge(pages::router())
        .merge(stats::router())
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_route)
        .layer(DefaultBodyLimit::max(SMALL_BODY))
        .layer(from_fn_with_state((state.clone(), gate.clone()), guard::admit))
        .layer(from_fn_with_state((state.clone(), gate, turns), guard::guard))
        .with_state(state.clone());
    // The methods that are allowed are only known to what surrounds the routes.
    Router::new().fallback_service(routes).layer(map_response_with_state(state, name_methods))
}

async fn no_route(State(state): State<AppState>, uri: Uri) -> Response {
    failure(&state.views, uri.path(), Error::NoRoute(shortened(uri.path())))
}

/// What was asked for with a method that its path does not have.
#[derive(Debug, Clone)]
struct WrongMethod {
    method: Method,
    path: String,
}

async fn wrong_method(request: Request) -> Response {
    let wrong = WrongMethod { method: request.method().clone(), path: request.uri().path().to_owned() };
    let mut response = StatusCode::METHOD_NOT_ALLOWED.into_response();
    response.extensions_mut().insert(wrong);
    response
}

/// Completes the answer of [`wrong_method`], now that the header `Allow` is there.
async fn name_methods(State(state): State<AppState>, mut response: Response) -> Response {
    let Some(WrongMethod { method, path }) = response.extensions_mut().remove() else { return response };
    let allow =
        response.headers().get(header::ALLOW).and_then(|allow| allow.to_str().ok()).unwrap_or_default();
    let allow = allow.split(',').collect::<Vec<_>>().join(", ");
    let error = Error::MethodNotAllowed { path: shortened(&path), method: method.to_string(), allow };
    let mut named = failure(&state.views, &path, error);
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH && !named.headers().contains_key(name) {
            named.headers_mut().insert(name, value.clone());
        }
    }
    named
}

/// A failure in the shape of the interface that `path` belongs to: a page for people, JSON for programs.
fn failure(views: &Views, path: &str, error: Error) -> Response {
    if is_for_programs(path) { error.into_response() } else { pages::error_page(views, &error) }
}

fn is_for_programs(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    ["api", "events", "images", "healthz", "readyz", "metrics"].contains(&first)
}

/// A path or another text of the asker's as a sentence shows it.
fn shortened(text: &str) -> String {
    if text.chars().count() <= 100 { text.to_owned() } else { text.chars().take(99).chain(['…']).collect() }
}

/// What is answered until the gateway has found NATS and MySQL.
pub(crate) fn starting<B>(
    views: &Views,
    gate: &Gate,
    request: &axum::http::Request<B>,
    peer: Peer,
    waiting_for: &crate::state::Health,
) -> Response {
    let path = request.uri().path();
    // Nothing can be changed yet; what is said is no less private.
    let route = Some(path).filter(|path| *path == "/healthz");
    let refused =
        gate.check_host(request).and_then(|()| gate.admit(&Method::GET, route, request.headers(), peer));
    let mut response = match path {
        path if let Err(error) = refused => failure(views, path, error),
        "/healthz" => axum::Json(health::Alive::NOW).into_response(),
        "/readyz" => health::answer(waiting_for.clone()).into_response(),
        _ => {
            let missing: Vec<&str> =
                waiting_for.parts().iter().filter(|(_, part)| !part.ok).map(|(name, _)| *name).collect();
            let reason = format!("this gateway has just started and waits for {}", missing.join(" and "));
            failure(views, path, Error::Unavailable { part: "what it needs", reason })
        }
    };
    guard::add_security_headers(response.headers_mut());
    response
}
