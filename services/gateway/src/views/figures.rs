//! Headline figures: the few numbers that are read first.

use minijinja::Value;
use serde::Serialize;
use wire::stats::{Series, SeriesRow};
use wire::{CacheStats, Counters};

use super::cache::share;
use crate::chart::{self, Chart, ChartError};
use crate::units;

/// A headline figure.
#[derive(Debug, Serialize)]
pub struct Figure {
    name: &'static str,
    label: &'static str,
    pub(super) value: String,
    unit: Option<String>,
    note: String,
    /// How full something is, 0 to 1, drawn as a bar.
    share: Option<f64>,
    spark: Option<Value>,
}

impl Figure {
    /// `shown` is a number and, behind a no-break space, its unit, as [`units`] writes them.
    fn new(name: &'static str, label: &'static str, shown: Option<String>, note: impl Into<String>) -> Self {
        let shown = shown.unwrap_or_else(|| "–".to_owned());
        let (value, unit) = match shown.split_once('\u{a0}') {
            Some((value, unit)) => (value.to_owned(), Some(unit.to_owned())),
            None => (shown, None),
        };
        Self { name, label, value, unit, note: note.into(), share: None, spark: None }
    }

    fn spark(self, chart: Chart, series: Option<&Series>) -> Result<Self, ChartError> {
        let spark = series.map(|series| chart::sparkline(chart, series)).transpose()?;
        Ok(Self { spark: spark.map(Value::from_safe_string), ..self })
    }
}

/// The sums over a series.
#[derive(Debug, Default)]
struct Totals {
    counters: Counters,
    covered_ms: u64,
}

impl Totals {
    fn of<'a>(rows: impl IntoIterator<Item = &'a SeriesRow>) -> Self {
        let mut totals = Self::default();
        for row in rows {
            totals.counters.add(&row.counters);
            totals.covered_ms = totals.covered_ms.saturating_add(row.interval_ms);
        }
        totals
    }

    fn hit_ratio(&self) -> Option<f64> {
        let requests = self.counters.request_count;
        (requests > 0).then(|| self.counters.hit_count as f64 / requests as f64)
    }

    fn requests_per_second(&self) -> Option<f64> {
        (self.covered_ms > 0).then(|| self.counters.request_count as f64 * 1000.0 / self.covered_ms as f64)
    }
}

/// The figures of items and size, which stand on several pages: as the worker has them now, else as
/// they were recorded last.
fn gauges(
    series: Option<&Series>,
    stats: Option<&CacheStats>,
    stored_count: Option<u64>,
) -> Result<[Figure; 2], ChartError> {
    let last = series.and_then(|series| series.rows.last());
    let key_count = stats.map(|stats| stats.key_count).or(last.map(|row| row.key_count));
    let size = stats.map(|stats| stats.cache_size_bytes).or(last.map(|row| row.cache_size));
    let capacity = stats.map(|stats| stats.capacity_bytes).or(last.map(|row| row.capacity));
    let stored = stored_count.map_or_else(
        || "in memory".to_owned(),
        |count| format!("in memory, of {}", units::counted_in_part(count, "stored", "stored")),
    );
    let items = Figure::new("items", "Items cached", key_count.map(units::count), stored);
    let note = match (capacity, stats) {
        (Some(capacity), Some(stats)) => format!("of {}, policy {}", units::bytes(capacity), stats.policy),
        (Some(capacity), None) => format!("of {}", units::bytes(capacity)),
        (None, _) => "unknown now".to_owned(),
    };
    let mut size_figure = Figure::new("size", "Size", size.map(units::bytes), note);
    size_figure.share = size.zip(capacity).map(|(size, capacity)| share(size, capacity));
    Ok([items.spark(Chart::Items, series)?, size_figure])
}

/// The figures of the first page: what the cache has done in the last minutes.
///
/// # Errors
/// [`ChartError`] of a sparkline.
pub fn home_figures(
    series: Option<&Series>,
    stats: Option<&CacheStats>,
    stored_count: Option<u64>,
) -> Result<Vec<Figure>, ChartError> {
    let totals = series.map(|series| Totals::of(&series.rows));
    let ratio = totals.as_ref().and_then(Totals::hit_ratio);
    let hit_rate = match (ratio, stats.and_then(|stats| stats.hit_ratio)) {
        (Some(ratio), _) => {
            let requests = totals.as_ref().map_or(0, |totals| totals.counters.request_count);
            let note = format!("of {} in 10\u{a0}min", units::counted(requests, "read", "reads"));
            Figure::new("hit-rate", "Hit rate", Some(units::percent(ratio)), note)
        }
        (None, Some(ratio)) => {
            Figure::new("hit-rate", "Hit rate", Some(units::percent(ratio)), "since the worker’s start")
        }
        (None, None) => Figure::new("hit-rate", "Hit rate", None, "no reads yet"),
    };
    let rate = series.and_then(|series| {
        let a_minute_ago = series.to - time::Duration::minutes(1);
        Totals::of(series.rows.iter().filter(|row| row.interval_start >= a_minute_ago)).requests_per_second()
    });
    let requests = Figure::new(
        "requests",
        "Requests",
        rate.map(|rate| format!("{}\u{a0}/s", units::compact(rate))),
        "over the last minute",
    );
    let [items, size] = gauges(series, stats, stored_count)?;
    Ok(vec![hit_rate.spark(Chart::HitRate, series)?, requests.spark(Chart::Requests, series)?, items, size])
}

/// The figures above the charts: sums over what they show.
///
/// # Errors
/// [`ChartError`] of a sparkline.
pub(super) fn stats_figures(series: &Series, stats: Option<&CacheStats>) -> Result<Vec<Figure>, ChartError> {
    let totals = Totals::of(&series.rows);
    let counters = &totals.counters;
    let hits = units::counted(counters.hit_count, "hit", "hits");
    let misses = units::counted(counters.miss_count, "miss", "misses");
    let average = totals.requests_per_second().map_or_else(
        || "nothing recorded".to_owned(),
        |rate| format!("{}/s on average", units::compact(rate)),
    );
    let evicted = format!("{} of weight", units::bytes(counters.evicted_bytes));
    let [items, size] = gauges(None, stats, None).map(|[mut items, size]| {
        items.note = "resident now".to_owned();
        [items, size]
    })?;
    Ok(vec![
        Figure::new(
            "hit-rate",
            "Hit rate",
            totals.hit_ratio().map(units::percent),
            format!("{hits}, {misses}"),
        ),
        Figure::new("requests", "Requests", Some(units::count(counters.request_count)), average),
        Figure::new("served", "Served from memory", Some(units::bytes(counters.served_bytes)), "in hits"),
        Figure::new("evictions", "Evictions", Some(units::count(counters.eviction_count)), evicted),
        items,
        size,
    ])
}
