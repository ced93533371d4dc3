//! `/api/stats`: the statistics of the cache over time, as JSON or CSV.

use std::str::FromStr;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};
use wire::stats::{Series, SeriesRequest, SeriesRow};
use wire::words::shown;
use wire::{Counters, Span};

use super::answer::Parameters;
use crate::error::{Error, Failure};
use crate::service::state::AppState;

/// The columns of the CSV before those of [`Counters::NAMES`].
const COLUMNS: [&str; 9] = [
    "interval_start",
    "interval_ms",
    "worker",
    "incarnation",
    "sequence",
    "window_count",
    "cache_size",
    "capacity",
    "key_count",
];

/// The routes.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/api/stats", get(stats))
}

/// The query of the history. A length of time is a whole number and a unit (ms, s, m, h, d), from 1ms to 366d.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatsQuery {
    /// The length of time that the rows go back; 10m if not given.
    range: Option<Span>,
    /// The interval of one row. A longer one is used if there would be more than 400 rows.
    step: Option<Span>,
    /// The format of the rows. If not given, the header Accept decides, which a link can't set.
    #[param(example = "json")]
    format: Option<StatsFormat>,
}

impl StatsQuery {
    fn of(uri: &Uri) -> Result<Self, Error> {
        let query = Parameters::of(uri, ["range", "step", "format"])?;
        let length = |name| query.get(name).map(|text| span(name, text)).transpose();
        let format = query.get("format").map(str::parse).transpose()?;
        Ok(Self { range: length("range")?, step: length("step")?, format })
    }
}

/// How the rows of the history are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum StatsFormat {
    /// As an object with rows.
    Json,
    /// RFC 4180, with a header.
    Csv,
}

impl FromStr for StatsFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            other => Err(Error::BadRequest(format!("format must be json or csv, got {}", shown(other)))),
        }
    }
}

/// The statistics of the cache over time, as JSON or CSV.
#[utoipa::path(
    get,
    path = "/api/stats",
    tag = "cache",
    params(StatsQuery),
    responses(
        (status = 200, description = "The rows, the oldest first", content(
            (Series = "application/json"), (String = "text/csv"))),
        (status = 400, description = "A parameter that is not allowed", body = Failure),
        (status = 503, description = "No recorder answers", body = Failure),
    )
)]
pub(crate) async fn stats(
    State(state): State<AppState>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Error> {
    let query = StatsQuery::of(&uri)?;
    let mut request = SeriesRequest { step: query.step, ..SeriesRequest::default() };
    if let Some(range) = query.range {
        request.range = range;
    }
    let as_csv = query.format.map_or_else(|| prefers_csv(&headers), |format| format == StatsFormat::Csv);
    let series = state.cache.series(&request).await?;
    let mut response = if as_csv {
        let content_type = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
        ([(header::CONTENT_TYPE, content_type)], csv(&series)).into_response()
    } else {
        Json(series).into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

fn span(name: &str, text: &str) -> Result<Span, Error> {
    text.parse().map_err(|error| Error::BadRequest(format!("{name} {error}")))
}

/// Whether the client names CSV and gives it at least the weight of JSON.
fn prefers_csv(headers: &HeaderMap) -> bool {
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(",");
    let csv = weight(&accept, "text/csv");
    csv > 0.0 && csv >= weight(&accept, "application/json")
}

/// The weight that a header `Accept` gives to exactly this type, 0 to 1; 0 if it does not name the type.
fn weight(accept: &str, media_type: &str) -> f32 {
    let weights = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(media_type) {
            return None;
        }
        Some(parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0)))
    });
    weights.fold(0.0, f32::max)
}

/// The rows as RFC 4180 has them, with a header.
fn csv(series: &Series) -> String {
    let mut text = COLUMNS.iter().chain(Counters::NAMES).copied().collect::<Vec<_>>().join(",");
    text.push_str("\r\n");
    for row in &series.rows {
        text.push_str(&csv_row(row).join(","));
        text.push_str("\r\n");
    }
    text
}

fn csv_row(row: &SeriesRow) -> Vec<String> {
    let or_empty = |text: &Option<String>| quoted(text.as_deref().unwrap_or_default());
    let mut fields = vec![
        row.interval_start.format(&Rfc3339).unwrap_or_default(),
        row.interval_ms.to_string(),
        or_empty(&row.worker),
        or_empty(&row.incarnation),
        row.sequence.map(|sequence| sequence.to_string()).unwrap_or_default(),
        row.window_count.to_string(),
        row.cache_size.to_string(),
        row.capacity.to_string(),
        row.key_count.to_string(),
    ];
    fields.extend(row.counters.values().map(|value| value.to_string()));
    fields
}

/// A field, in quotes where it needs them.
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use time::macros::datetime;

    fn accepting(accept: &str) -> bool {
        prefers_csv(&[(header::ACCEPT, accept.parse().unwrap())].into_iter().collect())
    }

    #[test]
    fn csv_is_for_those_who_name_it() {
        assert!(accepting("text/csv"));
        assert!(accepting("text/csv, */*;q=0.1"));
        assert!(accepting("application/json;q=0.5, text/csv;q=0.9"));
        assert!(!accepting("application/json, text/csv;q=0.9"));
        assert!(!accepting("*/*"));
        assert!(!accepting("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!accepting("text/csv;q=0"));
        assert!(!prefers_csv(&HeaderMap::new()));
    }

    #[test]
    fn rows_become_lines_with_as_many_fields_as_the_head() {
        let row = SeriesRow {
            interval_start: datetime!(2026-01-02 03:04:05 UTC),
            interval_ms: 5000,
            worker: Some("one, \"two\"".into()),
            incarnation: None,
            sequence: Some(7),
            window_count: 1,
            cache_size: 10,
            capacity: 20,
            key_count: 2,
            counters: Counters { request_count: 3, hit_count: 2, miss_count: 1, ..Counters::default() },
        };
        let from = datetime!(2026-01-02 03:00:00 UTC);
        let text = csv(&Series { from, to: from, step_ms: 5000, rows: vec![row] });
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("interval_start,interval_ms,worker,incarnation,sequence,window_count,cache_size,capacity,key_count,request_count,hit_count"));
        assert!(lines[1].starts_with("2026-01-02T03:04:05Z,5000,\"one, \"\"two\"\"\",,7,1,10,20,2,3,2,1,"));
        // One comma stands within quotes.
        assert_eq!(lines[1].matches(',').count(), lines[0].matches(',').count() + 1);
    }
}
