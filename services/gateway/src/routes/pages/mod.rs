//! The pages: what people see of the system, and the forms with which they change it.
//!
//! Each form answers a success with a redirection, so that a reload sends nothing again, and a refusal
//! with the same page, what was typed still in it, and the status that a program would get.

mod assets;
mod cache;
mod fields;
mod gallery;
mod image;
mod live;
mod stats;
mod system;
mod upload;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use fields::FORM_LIMIT;
use serde::Serialize;
use wire::inspect::KeysRequest;
use wire::{Key, Variant};

use crate::chart::ChartError;
use crate::error::Error;
use crate::state::AppState;
use crate::views::{ErrorPage, Residency, Shell, Views};

/// The routes of the pages and of their static files.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/", get(gallery::home))
        .route("/keys_list", get(gallery::keys))
        .route(
            "/keys_list/delete",
            post(gallery::delete_chosen)
                .get(gallery::back_to_list)
                .layer(DefaultBodyLimit::max(gallery::CHOSEN_LIMIT)),
        )
        .route("/image", get(image::image))
        .route("/image/delete", get(image::confirm_delete).post(image::delete))
        .route("/image/invalidate", post(image::invalidate).get(image::back_to_form))
        .route("/cache_properties", get(cache::cache).post(cache::configure))
        .route("/cache_properties/clear", post(cache::clear).get(cache::back_to_cache))
        .route("/cache_properties/delete_all", post(cache::delete_all).get(cache::back_to_cache))
        .route("/cache_stats", get(stats::stats))
        .route("/live", get(live::live))
        .route("/system", get(system::system))
        .route("/static/{*path}", get(assets::asset))
        .route("/favicon.ico", get(assets::favicon))
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .merge(upload_router())
}

/// Apart, because an image may be larger than any other form; `store_form` has its own limits.
fn upload_router() -> Router<AppState> {
    Router::new()
        .route("/upload_image", get(upload::upload_form).post(upload::upload))
        .layer(DefaultBodyLimit::disable())
}

/// A failure as a page.
pub fn error_page(views: &Views, error: &Error) -> Response {
    error.log();
    let status = error.status();
    let page = ErrorPage { status: status.as_u16(), title: title_of(status), message: sentence(error) };
    let mut response = match views.page("error.html", &Shell::new(None, None), &page) {
        Ok(body) => html(status, body),
        Err(broken) => {
            broken.log();
            (status, error.message()).into_response()
        }
    };
    error.add_headers(response.headers_mut());
    response
}

/// What people call a status.
fn title_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "That can’t be understood",
        StatusCode::UNAUTHORIZED => "Log in first",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::METHOD_NOT_ALLOWED => "Not like that",
        StatusCode::SERVICE_UNAVAILABLE => "Not possible now",
        status if status.is_client_error() => "That is not possible",
        _ => "Something went wrong",
    }
}

/// An error's message as a sentence of its own.
fn sentence(error: &Error) -> String {
    let message = error.message();
    let mut letters = message.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let text: String = first.chain(letters).collect();
    if text.ends_with(['.', '!', '?']) { text } else { format!("{text}.") }
}

fn html(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        // Not "no-referrer", as elsewhere: with that, browsers send our own forms with `Origin: null`,
        // and older ones say nothing else about where a form comes from.
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (status, headers, body).into_response()
}

/// Elsewhere, by GET: the answer to a form that did what it was asked.
fn see_other(path: &str) -> Response {
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

impl AppState {
    /// Answers with the page that `made` is, or with one about why it could not be made.
    fn answer(&self, made: Result<Response, Error>) -> Response {
        made.unwrap_or_else(|error| error_page(&self.views, &error))
    }

    fn render<P: Serialize>(
        &self,
        status: StatusCode,
        template: &str,
        shell: &Shell,
        page: &P,
    ) -> Result<Response, Error> {
        Ok(html(status, self.views.page(template, shell, page)?))
    }

    /// A page about a refusal: the refusal's status and headers, and nothing lost of what was typed.
    fn render_refusal<P: Serialize>(
        &self,
        error: &Error,
        template: &str,
        shell: &Shell,
        page: &P,
    ) -> Result<Response, Error> {
        error.log();
        let mut response = self.render(error.status(), template, shell, page)?;
        error.add_headers(response.headers_mut());
        Ok(response)
    }
}

/// Which of these keys are resident.
async fn residency(state: &AppState, keys: Vec<Key>) -> Residency {
    if keys.is_empty() {
        return Residency::default();
    }
    // Each may have an entry for the original and one for each variant.
    let limit = u32::try_from(keys.len() * (1 + Variant::ALL.len())).unwrap_or(u32::MAX);
    match state.cache.keys(&KeysRequest { only: keys, limit, ..KeysRequest::default() }).await {
        Ok(reply) => Residency::new(reply.keys),
        Err(error) => {
            error.log();
            Residency::default()
        }
    }
}

/// What there is, or nothing: the page shows the part that failed as missing.
fn logged<T>(answer: Result<T, Error>) -> Option<T> {
    answer.inspect_err(Error::log).ok()
}

/// What there is, or why there is nothing, in a sentence for the place where it would be.
fn or_reason<T>(answer: Result<T, Error>) -> (Option<T>, Option<String>) {
    match answer {
        Ok(found) => (Some(found), None),
        Err(error) => {
            error.log();
            (None, Some(sentence(&error)))
        }
    }
}

fn broken_chart(error: ChartError) -> Error {
    Error::Internal(anyhow::Error::new(error))
}
