//! The live page: the events of this moment, and the hottest and largest keys.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use wire::inspect::{KeySort, KeysRequest};

use super::fields::Fields;
use super::image::base_url;
use super::render::or_reason;
use crate::routes::answer::html;
use crate::service::state::AppState;
use crate::views::{LivePage, Section, Shell};

/// How many of the hottest and of the largest keys are shown.
const LIST_LENGTH: u32 = 8;

pub(super) async fn live(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let fields = Fields::of_query(query);
    let made = async {
        let list = |sort| KeysRequest { sort, limit: LIST_LENGTH, ..KeysRequest::default() };
        let (hottest, largest) = (list(KeySort::Hits), list(KeySort::Size));
        let lists = async { tokio::join!(state.cache.keys(&hottest), state.cache.keys(&largest)) };
        if fields.bytes("fragment").is_some() {
            let (hottest, largest) = lists.await;
            let page = LivePage::new(or_reason(hottest), or_reason(largest), None, "", "");
            return Ok(html(StatusCode::OK, state.views.fragment("partials/top_keys.html", &page)?));
        }
        let (health, (hottest, largest)) = tokio::join!(state.health(), lists);
        let kinds = fields.text("kinds")?;
        let prefix = fields.text("prefix")?.unwrap_or_default();
        let base = base_url(&state, &headers);
        let page = LivePage::new(or_reason(hottest), or_reason(largest), kinds.as_deref(), &prefix, &base);
        let shell = Shell::new(Some(Section::Live), Some(&health));
        state.render(StatusCode::OK, "live.html", &shell, &page)
    };
    state.answer(made.await)
}
