//! What the page of charts is given.

use minijinja::{Value, context};
use serde::Serialize;
use time::UtcOffset;
use wire::stats::Series;
use wire::{CacheStats, Span};

use super::figures::{Figure, stats_figures};
use crate::chart::{Chart, ChartError};
use crate::error::Error;
use crate::units;

/// The times that one can choose from: as in the query, and in words.
pub(super) const RANGES: [(&str, &str); 4] =
    [("10m", "10 min"), ("1h", "1 hour"), ("24h", "24 hours"), ("7d", "7 days")];

/// `stats.html`, and the part of it that is fetched again and again.
#[derive(Debug, Serialize)]
pub struct StatsPage {
    range: String,
    ranges: Vec<Value>,
    refresh_ms: u64,
    offset_minutes: i32,
    zone: String,
    error: Option<String>,
    figures: Vec<Figure>,
    charts: Vec<ChartView>,
    step_ms: u64,
    row_count: u64,
    json: String,
    csv: String,
}

#[derive(Debug, Serialize)]
struct ChartView {
    name: &'static str,
    title: &'static str,
    last: Option<String>,
    svg: Value,
}

impl StatsPage {
    /// How often charts are fetched again when no series says how long a window is.
    const REFRESH_MS: u64 = 5000;

    /// The charts of a series, or why there is none. Times at the charts are in the zone `offset`.
    ///
    /// # Errors
    /// [`ChartError`] when a chart can't be drawn.
    pub fn new(
        range: Span,
        offset: UtcOffset,
        series: Result<&Series, &Error>,
        stats: Option<&CacheStats>,
    ) -> Result<Self, ChartError> {
        let chart_view = |chart: Chart, series: &Series| {
            let last = series.rows.last().and_then(|row| chart.value(row)).map(|value| chart.shown(value));
            let svg = Value::from_safe_string(chart.draw(series, offset)?);
            Ok(ChartView { name: chart.name(), title: chart.title(), last, svg })
        };
        let (figures, charts) = match series {
            Ok(series) => {
                let charts = Chart::ALL.into_iter().map(|chart| chart_view(chart, series));
                (stats_figures(series, stats)?, charts.collect::<Result<_, ChartError>>()?)
            }
            Err(_) => (Vec::new(), Vec::new()),
        };
        let step_ms = series.map_or(Self::REFRESH_MS, |series| series.step_ms);
        Ok(Self {
            range: range.to_string(),
            ranges: RANGES
                .into_iter()
                .map(|(value, label)| context! { value, label, current => value.parse() == Ok(range) })
                .collect(),
            refresh_ms: step_ms.clamp(1000, 60_000),
            offset_minutes: offset.whole_seconds() / 60,
            zone: units::zone(offset),
            error: series.err().map(Error::message),
            figures,
            charts,
            step_ms,
            row_count: series.map_or(0, |series| series.rows.len() as u64),
            json: format!("/api/stats?range={range}"),
            csv: format!("/api/stats?range={range}&format=csv"),
        })
    }
}
