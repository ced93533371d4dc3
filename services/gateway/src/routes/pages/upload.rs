//! The page with which images are uploaded.

use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::fields::Fields;
use super::image::base_url;
use super::render::{failed, see_other};
use crate::error::Error;
use crate::routes::answer::sentence;
use crate::routes::upload::{Reading, RefusedForm, store_form};
use crate::service::state::AppState;
use crate::views::{Formats, Section, Shell, UploadPage, image_page};

pub(super) async fn upload_form(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let key = Fields::of_query(query).shown("key");
    let health = state.health().await;
    let page = upload_page(&state, &headers, key, None);
    let shell = Shell::new(Some(Section::Upload), Some(&health));
    state.answer(state.render(StatusCode::OK, "upload.html", &shell, &page))
}

pub(super) async fn upload(State(state): State<AppState>, headers: HeaderMap, request: Request) -> Response {
    let made = match store_form(&state, request, Reading::ForTheKey).await {
        Ok(stored) => {
            let how = if stored.created { "new" } else { "replaced" };
            Ok(see_other(&format!("{}&stored={how}", image_page(&stored.row.key))))
        }
        Err(RefusedForm { error, key }) => {
            let health = state.health().await;
            let page = upload_page(&state, &headers, key.unwrap_or_default(), Some(&error));
            let shell = Shell::new(Some(Section::Upload), Some(&health));
            state.render_refusal(&error, "upload.html", &shell, &page)
        }
    };
    state.answer(made)
}

fn upload_page(state: &AppState, headers: &HeaderMap, key: String, error: Option<&Error>) -> UploadPage {
    UploadPage {
        key,
        // An image that is stored but not yet known to the cache is no refusal.
        stored: matches!(error, Some(Error::StillTelling { .. })),
        wrong: match error {
            Some(Error::Key(_)) => Some("key"),
            Some(Error::TooLarge(_) | Error::UnsupportedType(_) | Error::Unprocessable(_)) => Some("file"),
            _ => None,
        },
        error: error.map(sentence),
        title: error.map_or("", |error| failed(error, "Nothing was stored.", "The upload failed.")),
        max_bytes: state.config.max_image_bytes(),
        max_megapixels: state.config.max_image_megapixels,
        base: base_url(state, headers),
        formats: Formats::stored(),
    }
}
