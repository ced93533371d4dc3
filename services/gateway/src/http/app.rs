//! The whole HTTP interface: the routes, the layers around them, and the fast path that skips both.

use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, header};
use axum::middleware::{from_fn_with_state, map_response_with_state};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use tower::ServiceExt as _;

use super::access::{Gate, Peer};
use super::guard;
use super::hot::Hot;
use crate::error::Error;
use crate::health::Health;
use crate::routes::answer::failure;
use crate::routes::{self, WrongMethod, health};
use crate::service::state::AppState;
use crate::views::Views;

/// The route label of a preflight request.
const PREFLIGHT: &str = "preflight";

/// The HTTP interface of the gateway, once it has started. The gate decides which requests it lets in.
#[derive(Debug)]
pub(crate) struct App {
    hot: Hot,
    routes: Router,
    state: AppState,
    gate: Gate,
}

impl App {
    /// The fast path and the routes, which share the gate and the turns.
    pub(crate) fn new(state: AppState, gate: Gate) -> Self {
        let turns = guard::Turns::new(&state.config);
        let hot = Hot::new(&state, &gate, &turns);
        let routes = surrounded(state.clone(), gate.clone(), turns);
        Self { hot, routes, state, gate }
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, request: axum::http::Request<Incoming>, peer: Peer) -> Response {
        if self.state.config.cors_origins.is_empty() {
            return self.answer_to_itself(request, peer).await;
        }
        Box::pin(self.answer_to_origins(request, peer)).await
    }

    /// Answers a request that may be one of another origin.
    async fn answer_to_origins(&self, request: axum::http::Request<Incoming>, peer: Peer) -> Response {
        let (started, origin) = (Instant::now(), request.headers().get(header::ORIGIN).cloned());
        let origins = &self.state.config.cors_origins;
        let is_ours = self.gate.check_host(&request).is_ok();
        let mut response = match origins.preflight(request.method(), request.headers()).filter(|_| is_ours) {
            Some(mut answer) => {
                guard::add_security_headers(answer.headers_mut());
                let (method, status) = (request.method().as_str(), answer.status());
                self.state.metrics.count_request(method, PREFLIGHT, status.as_str(), started.elapsed());
                answer
            }
            None => self.answer_to_itself(request, peer).await,
        };
        origins.add_to(response.headers_mut(), origin);
        response
    }

    /// Answers a request as one of this site, or of a program.
    async fn answer_to_itself(&self, mut request: axum::http::Request<Incoming>, peer: Peer) -> Response {
        if let Some(response) = self.hot.answer(&request, peer).await {
            return response;
        }
        request.extensions_mut().insert(peer);
        let Ok(response) = self.routes.clone().oneshot(request).await;
        response
    }
}

fn surrounded(state: AppState, gate: Gate, turns: guard::Turns) -> Router {
    let routes = routes::router(&|method, route| gate.needs_token(method, route))
        .layer(from_fn_with_state((state.clone(), gate.clone()), guard::admit))
        .layer(from_fn_with_state((state.clone(), gate, turns), guard::guard))
        .with_state(state.clone());
    // Only a layer around the routes knows the allowed methods.
    Router::new().fallback_service(routes).layer(map_response_with_state(state, name_methods))
}

/// Completes an answer about a [`WrongMethod`], now that the header `Allow` is there.
async fn name_methods(State(state): State<AppState>, mut response: Response) -> Response {
    let Some(WrongMethod { method, path }) = response.extensions_mut().remove() else { return response };
    let allow =
        response.headers().get(header::ALLOW).and_then(|allow| allow.to_str().ok()).unwrap_or_default();
    let allow = allow.split(',').collect::<Vec<_>>().join(", ");
    let error = Error::MethodNotAllowed { path: path.clone(), method: method.to_string(), allow };
    let mut named = failure(&state.views, &path, error);
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH && !named.headers().contains_key(name) {
            named.headers_mut().insert(name, value.clone());
        }
    }
    named
}

/// The answer to a request before the gateway has found NATS and MySQL.
pub(crate) fn starting<B>(
    views: &Views,
    gate: &Gate,
    request: &axum::http::Request<B>,
    peer: Peer,
    waiting_for: &Health,
) -> Response {
    let path = request.uri().path();
    // Nothing can be changed yet, so each request counts as a read. Its answer is as private as later.
    let route = Some(path).filter(|path| ["/healthz", "/readyz"].contains(path));
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
            failure(views, path, Error::Unavailable { part: "a part of the system", reason })
        }
    };
    guard::add_security_headers(response.headers_mut());
    response
}
