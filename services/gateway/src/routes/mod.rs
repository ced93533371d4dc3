//! The routes: one file a feature, its `router()` beside its handlers.

pub(crate) mod answer;
pub(crate) mod api;
mod cache;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod images;
mod key;
mod metrics;
mod openapi;
mod pages;
mod schema;
mod stats;
mod upload;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};

use self::answer::{Parameters, failure};
use self::openapi::NeedsToken;
use crate::error::Error;
use crate::service::state::AppState;

/// The most bytes of a body that is no image.
const SMALL_BODY: usize = 64 << 10;

/// All routes. The caller has to complete an answer with [`WrongMethod`].
pub(crate) fn router(needs_token: NeedsToken<'_>) -> Router<AppState> {
    let for_programs = Router::new()
        .merge(api::router())
        .merge(cache::router())
        .merge(events::router())
        .merge(openapi::router(needs_token))
        .merge(stats::router())
        .route_layer(middleware::from_fn(no_parameters));
    Router::new()
        .merge(for_programs)
        .merge(health::router())
        .merge(images::router())
        .merge(metrics::router())
        .merge(pages::router())
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_route)
        .layer(DefaultBodyLimit::max(SMALL_BODY))
}

/// The addresses for programs that take parameters, and check them; and the one to which existing clients send some that mean
/// nothing, beside those of the form.
const WITH_PARAMETERS: [&str; 4] = ["/api/images", "/api/stats", "/api/upload", "/events/keys"];

/// Refuses a parameter where none is taken, so that a misspelled or misplaced one is noticed: a `delete_all?prefix=a` would
/// delete all.
async fn no_parameters(request: Request, next: Next) -> Response {
    if !WITH_PARAMETERS.contains(&request.uri().path())
        && let Err(error) = Parameters::of(request.uri(), [])
    {
        return error.into_response();
    }
    next.run(request).await
}

async fn no_route(State(state): State<AppState>, uri: Uri) -> Response {
    failure(&state.views, uri.path(), Error::NoRoute(uri.path().to_owned()))
}

/// A request whose method its path does not have. It is part of the answer until the allowed methods are known.
#[derive(Debug, Clone)]
pub(crate) struct WrongMethod {
    /// The method.
    pub(crate) method: Method,
    /// The path.
    pub(crate) path: String,
}

async fn wrong_method(request: Request) -> Response {
    let wrong = WrongMethod { method: request.method().clone(), path: request.uri().path().to_owned() };
    let mut response = StatusCode::METHOD_NOT_ALLOWED.into_response();
    response.extensions_mut().insert(wrong);
    response
}
