//! The static files of the pages.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::percent_decode;

use super::fields::Fields;
use crate::error::Error;
use crate::service::state::AppState;

/// A static file. Pages link the version that they were made with, which never changes. A file that is requested
/// without a version is revalidated each time.
pub(super) async fn asset(
    State(state): State<AppState>,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    // The router's own decoding would refuse bytes that are not UTF-8 with a message of its own. No file has such a
    // name.
    let path = uri.path().strip_prefix("/static/").unwrap_or_default();
    let path = percent_decode(path.as_bytes()).decode_utf8_lossy();
    let made = state.views.asset(&path).and_then(|asset| {
        let asset = asset.ok_or_else(|| Error::NoRoute(uri.path().to_owned()))?;
        let entity_tag = format!("\"{}\"", asset.version);
        let this_version = Fields::of_query(query).bytes("v") == Some(asset.version.as_bytes());
        let held =
            headers.get(header::IF_NONE_MATCH).is_some_and(|held| held.as_bytes() == entity_tag.as_bytes());
        let lifetime = if this_version { "public, max-age=31536000, immutable" } else { "no-cache" };
        let headers = [
            (header::CONTENT_TYPE, asset.content_type.to_owned()),
            (header::CACHE_CONTROL, lifetime.to_owned()),
            (header::ETAG, entity_tag),
        ];
        Ok(if held {
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else {
            (headers, asset.bytes).into_response()
        })
    });
    state.answer(made)
}

pub(super) async fn favicon(state: State<AppState>, query: RawQuery, headers: HeaderMap) -> Response {
    asset(state, Uri::from_static("/static/icons/mark.svg"), query, headers).await
}
