//! Shared by the handlers of pages.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use charts::ChartError;
use serde::Serialize;
use wire::inspect::KeysRequest;
use wire::{Key, Variant};

use crate::error::Error;
use crate::routes::answer::{error_page, html, sentence};
use crate::service::state::AppState;
use crate::views::{Residency, Shell};

/// A redirection to `path`, by GET: the answer to a form that succeeded.
pub(super) fn see_other(path: &str) -> Response {
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

impl AppState {
    /// Answers with the page `made`, or with an error page if it could not be made.
    pub(super) fn answer(&self, made: Result<Response, Error>) -> Response {
        made.unwrap_or_else(|error| error_page(&self.views, &error))
    }

    /// A page.
    pub(super) fn render<P: Serialize>(
        &self,
        status: StatusCode,
        template: &str,
        shell: &Shell,
        page: &P,
    ) -> Result<Response, Error> {
        Ok(html(status, self.views.page(template, shell, page)?))
    }

    /// A page about a refusal, with the refusal's status and headers. It keeps the typed values.
    pub(super) fn render_refusal<P: Serialize>(
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

/// The title of an error about a change: `refused` if the request was refused before the change began. After another
/// failure it may be unknown whether the change was made, and only the error itself says more.
pub(super) fn failed(error: &Error, refused: &'static str, otherwise: &'static str) -> &'static str {
    if error.status().is_client_error() { refused } else { otherwise }
}

/// Asks the cache which of these keys are resident.
pub(super) async fn residency(state: &AppState, keys: Vec<Key>) -> Residency {
    if keys.is_empty() {
        return Residency::default();
    }
    // Each key may have an entry for the original and one for each variant.
    let limit = u32::try_from(keys.len() * (1 + Variant::ALL.len())).unwrap_or(u32::MAX);
    match state.cache.keys(&KeysRequest { only: keys, limit, ..KeysRequest::default() }).await {
        Ok(reply) => Residency::new(reply.keys),
        Err(error) => {
            error.log();
            Residency::default()
        }
    }
}

/// The answer, or nothing after its error is logged: the page shows the part that failed as missing.
pub(super) fn logged<T>(answer: Result<T, Error>) -> Option<T> {
    answer.inspect_err(Error::log).ok()
}

/// The answer, or the reason why there is none, in a sentence for its place on the page.
pub(super) fn or_reason<T>(answer: Result<T, Error>) -> (Option<T>, Option<String>) {
    match answer {
        Ok(found) => (Some(found), None),
        Err(error) => {
            error.log();
            (None, Some(sentence(&error)))
        }
    }
}

/// A chart that could not be drawn.
pub(super) fn broken_chart(error: ChartError) -> Error {
    Error::Internal(anyhow::Error::new(error))
}
