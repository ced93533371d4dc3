//! The first page, and the list of all keys.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use time::OffsetDateTime;
use wire::inspect::{KeySort, KeysRequest};
use wire::stats::SeriesRequest;

use super::fields::Fields;
use super::{RESIDENT_LIMIT, broken_chart, logged, or_reason, residency};
use crate::state::AppState;
use crate::units;
use crate::views::{HomePage, ImageView, KeysPage, Section, Shell, home_figures, keys_page};

/// How many images the first page shows.
const GALLERY_SIZE: u32 = 24;

/// How many keys a page of the list shows.
const LIST_SIZE: u32 = 50;

pub(super) async fn home(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::of_query(query);
    let now = OffsetDateTime::now_utc();
    let resident = KeysRequest { limit: RESIDENT_LIMIT, ..KeysRequest::default() };
    let lately = SeriesRequest::default();
    let (health, images, count, series, stats, residency) = tokio::join!(
        state.health(),
        state.images.newest(GALLERY_SIZE),
        state.images.count(units::MOST_COUNTED + 1),
        state.cache.series(&lately),
        state.cache.stats(),
        residency(&state, &resident, None),
    );
    let made = || {
        let count = logged(count);
        let (images, images_error) = or_reason(images);
        let page = HomePage {
            deleted: fields.bytes("deleted").map(|_| format!("“{}” is deleted.", fields.shown("deleted"))),
            figures: home_figures(logged(series).as_ref(), logged(stats).as_ref(), count)
                .map_err(broken_chart)?,
            images: images
                .unwrap_or_default()
                .iter()
                .map(|row| ImageView::new(row, &residency, now))
                .collect(),
            stored_count: count,
            images_error,
        };
        let shell = Shell::new(Some(Section::Gallery), Some(&health));
        state.render(StatusCode::OK, "home.html", &shell, &page)
    };
    state.answer(made())
}

pub(super) async fn keys(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::of_query(query);
    let made = async {
        let prefix = fields.text("prefix")?.unwrap_or_default();
        let after = fields.text("after")?.filter(|after| !after.is_empty());
        // One more than is shown tells whether there is a next page.
        let (health, count, listed) = tokio::join!(
            state.health(),
            state.images.count(units::MOST_COUNTED + 1),
            state.images.page(&prefix, after.as_deref(), LIST_SIZE + 1),
        );
        let (rows, error) = or_reason(listed);
        let mut rows = rows.unwrap_or_default();
        let more = rows.len() > LIST_SIZE as usize;
        rows.truncate(LIST_SIZE as usize);
        let last = rows.last().map(|row| row.key.clone());
        let resident = KeysRequest {
            prefix: prefix.clone(),
            limit: RESIDENT_LIMIT,
            after: after.clone(),
            sort: KeySort::Key,
        };
        let residency = residency(&state, &resident, last.as_ref()).await;
        let now = OffsetDateTime::now_utc();
        let page = KeysPage {
            images: rows.iter().map(|row| ImageView::new(row, &residency, now)).collect(),
            stored_count: logged(count),
            error,
            first: after.is_some().then(|| keys_page(&prefix, None)),
            next: last.filter(|_| more).map(|last| keys_page(&prefix, Some(last.as_str()))),
            prefix,
            after,
        };
        let shell = Shell::new(Some(Section::Keys), Some(&health));
        state.render(StatusCode::OK, "keys.html", &shell, &page)
    };
    state.answer(made.await)
}
