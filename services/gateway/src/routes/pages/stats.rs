//! The page of the charts.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use time::UtcOffset;
use wire::Span;
use wire::stats::{HistoryRequest, SeriesRequest};

use super::fields::Fields;
use super::render::{broken_chart, logged};
use crate::error::Error;
use crate::routes::answer::html;
use crate::service::state::AppState;
use crate::views::{Section, Shell, StatsFindings, StatsPage};

/// The most changes of the configuration that are searched for those to mark.
const MOST_MARKS: u32 = 200;

pub(super) async fn stats(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::of_query(query);
    let made = async {
        let range: Span = match fields.text("range")? {
            Some(range) => range
                .parse()
                .map_err(|error: wire::span::SpanError| Error::BadRequest(format!("range {error}")))?,
            None => SeriesRequest::default().range,
        };
        // The page's script knows the viewer's zone; without it, times are in UTC.
        let minutes = fields.shown("offset").parse::<i32>().ok().filter(|minutes| minutes.abs() < 24 * 60);
        let offset = minutes.and_then(|minutes| UtcOffset::from_whole_seconds(minutes * 60).ok());
        let request = SeriesRequest { range, ..SeriesRequest::default() };
        // As much time before, as one sum: the headline figures are compared with it.
        let earlier = SeriesRequest { range, step: Some(range), ago: Some(range) };
        let latest = HistoryRequest { limit: MOST_MARKS, ..HistoryRequest::default() };
        let (health, series, earlier, history, stats) = tokio::join!(
            state.health(),
            state.history_for_page(state.cache.series(&request)),
            state.history_for_page(state.cache.series(&earlier)),
            state.history_for_page(state.cache.config_history(&latest)),
            state.cache.stats(),
        );
        let (earlier, history, stats) = (logged(earlier), logged(history), logged(stats));
        let series = series.inspect_err(Error::log);
        let findings = StatsFindings {
            series: series.as_ref(),
            earlier: earlier.as_ref(),
            history: history.as_ref(),
            stats: stats.as_ref(),
        };
        let offset = offset.unwrap_or(UtcOffset::UTC);
        let page = StatsPage::new(range, offset, findings).map_err(broken_chart)?;
        if fields.bytes("fragment").is_some() {
            return Ok(html(StatusCode::OK, state.views.fragment("partials/stats.html", &page)?));
        }
        let shell = Shell::new(Some(Section::Stats), Some(&health));
        state.render(StatusCode::OK, "stats.html", &shell, &page)
    };
    state.answer(made.await)
}
