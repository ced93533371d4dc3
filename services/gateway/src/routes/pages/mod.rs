//! The pages that show the system to people, and the forms with which they change it.
//!
//! Each form answers a success with a redirection, so that a reload sends nothing again. It answers a refusal with the
//! same page, the typed values still in it, and the status that a program would get.

mod assets;
mod cache;
mod fields;
mod gallery;
mod image;
mod live;
mod render;
mod stats;
mod system;
mod upload;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use fields::FORM_LIMIT;

use crate::service::state::AppState;

/// The routes of the pages and of their static files.
pub(crate) fn router() -> Router<AppState> {
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

/// The routes of uploads. They are apart, because an image may be larger than any other form; `store_form` has its own
/// limits.
fn upload_router() -> Router<AppState> {
    Router::new()
        .route("/upload_image", get(upload::upload_form).post(upload::upload))
        .layer(DefaultBodyLimit::disable())
}
