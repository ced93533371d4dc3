//! The context of the page of charts.

use charts::units;
use charts::{self, Chart, ChartError};
use minijinja::{Value, context};
use serde::Serialize;
use time::{OffsetDateTime, UtcOffset};
use wire::stats::{History, Series};
use wire::{CacheStats, Span};

use super::cache::{ChangeView, changes};
use super::figures::{Figure, stats_figures};
use crate::error::Error;

/// The ranges to choose from: as in the query, and in words.
pub(super) const RANGES: [(&str, &str); 4] =
    [("10m", "10 min"), ("1h", "1 hour"), ("24h", "24 hours"), ("7d", "7 days")];

/// `stats.html`, and the part of it that is fetched again and again.
#[derive(Debug, Serialize)]
pub(crate) struct StatsPage {
    range: String,
    ranges: Vec<Value>,
    refresh_ms: u64,
    offset_minutes: i32,
    zone: String,
    error: Option<String>,
    figures: Vec<Figure>,
    charts: Vec<ChartView>,
    readings: Option<Readings>,
    changes: Vec<ChangeView>,
    has_earlier: bool,
    step_ms: u64,
    row_count: u64,
    json: String,
    csv: String,
}

#[derive(Debug, Serialize)]
struct ChartView {
    name: &'static str,
    title: &'static str,
    limit: Option<&'static str>,
    last: Option<String>,
    svg: Value,
}

/// The values of the charts, for the script that reads values off: the position of each row, its beginning, and its
/// value in each chart, as text.
#[derive(Debug, Serialize)]
struct Readings {
    left: Vec<i32>,
    begins_ms: Vec<i64>,
    values: Vec<Vec<Option<String>>>,
}

impl Readings {
    fn new(series: &Series) -> Self {
        let positions = charts::positions(series);
        let values_of = |chart: Chart| {
            positions.iter().map(|at| chart.value(at.row).map(|value| chart.shown(value))).collect()
        };
        Self {
            left: positions.iter().map(|at| at.x).collect(),
            begins_ms: positions
                .iter()
                .map(|at| {
                    at.row.interval_start.unix_timestamp() * 1000
                        + i64::from(at.row.interval_start.millisecond())
                })
                .collect(),
            values: Chart::ALL.into_iter().map(values_of).collect(),
        }
    }
}

/// The data of the page of charts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatsFindings<'a> {
    /// The rows of the range, or why there are none.
    pub(crate) series: Result<&'a Series, &'a Error>,
    /// The sums over the same length of time before.
    pub(crate) earlier: Option<&'a Series>,
    /// The changes of the configuration, the newest first, with one more than fall into the range.
    pub(crate) history: Option<&'a History>,
    /// The worker's counters.
    pub(crate) stats: Option<&'a CacheStats>,
}

impl StatsPage {
    /// The time in milliseconds after which charts are fetched again, when no series gives the length of a window.
    const REFRESH_MS: u64 = 5000;

    /// The charts of a series, or why there is none. Times at the charts are in the zone `offset`.
    ///
    /// # Errors
    /// [`ChartError`] when a chart can't be drawn.
    pub(crate) fn new(
        range: Span,
        offset: UtcOffset,
        findings: StatsFindings<'_>,
    ) -> Result<Self, ChartError> {
        let StatsFindings { series, earlier, history, stats } = findings;
        let mut page = Self::empty(range, offset, series);
        let Ok(series) = series else { return Ok(page) };
        let marked = marked(series, history);
        let marks: Vec<OffsetDateTime> = marked.iter().map(|(at, _)| *at).collect();
        let chart_view = |chart: Chart| {
            let last = series.rows.last().and_then(|row| chart.value(row)).map(|value| chart.shown(value));
            let svg = Value::from_safe_string(chart.draw(series, &marks, offset)?);
            Ok(ChartView { name: chart.name, title: chart.title, limit: chart.limit_name(), last, svg })
        };
        page.charts = Chart::ALL.into_iter().map(chart_view).collect::<Result<_, ChartError>>()?;
        page.figures = stats_figures(series, earlier, stats)?;
        page.has_earlier = earlier.is_some_and(|earlier| !earlier.rows.is_empty());
        page.readings = Some(Readings::new(series));
        page.changes = marked.into_iter().map(|(_, change)| change).collect();
        Ok(page)
    }

    /// The page without any recorded values.
    fn empty(range: Span, offset: UtcOffset, series: Result<&Series, &Error>) -> Self {
        let step_ms = series.map_or(Self::REFRESH_MS, |series| series.step_ms);
        Self {
            range: range.to_string(),
            ranges: RANGES
                .into_iter()
                .map(|(value, label)| context! { value, label, current => value.parse() == Ok(range) })
                .collect(),
            refresh_ms: step_ms.clamp(1000, 60_000),
            offset_minutes: offset.whole_seconds() / 60,
            zone: units::zone(offset),
            error: series.err().map(Error::message),
            figures: Vec::new(),
            charts: Vec::new(),
            readings: None,
            changes: Vec::new(),
            has_earlier: false,
            step_ms,
            row_count: series.map_or(0, |series| series.rows.len() as u64),
            json: format!("/api/stats?range={range}"),
            csv: format!("/api/stats?range={range}&format=csv"),
        }
    }
}

/// The changes that fall into the range of a series, with the moment of each, in the order of time.
fn marked(series: &Series, history: Option<&History>) -> Vec<(OffsetDateTime, ChangeView)> {
    let Some(history) = history else { return Vec::new() };
    let views = changes(&history.changes, series.to);
    let times = history.changes.iter().map(|change| change.created_at);
    let range = series.from..=series.to;
    let mut marked: Vec<_> = times.zip(views).filter(|(at, _)| range.contains(at)).collect();
    marked.sort_by_key(|(at, _)| *at);
    marked
}
