//! The pages.

use axum::Router;
use axum::response::{IntoResponse, Response};

use crate::error::Error;
use crate::state::AppState;
use crate::views::Views;

/// The routes of the pages and of their static files.
pub fn router() -> Router<AppState> {
    Router::new()
}

/// A failure as a page.
pub fn error_page(_views: &Views, error: &Error) -> Response {
    (error.status(), error.message()).into_response()
}
