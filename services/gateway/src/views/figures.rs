//! Headline figures: the few numbers that are read first.

use charts::units;
use charts::{self, Chart, ChartError};
use minijinja::Value;
use serde::Serialize;
use wire::stats::{Series, SeriesRow};
use wire::{CacheStats, Counters};

use super::cache::share;

/// A headline figure.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: &'static str,
    label: &'static str,
    pub(super) value: String,
    unit: Option<String>,
    note: String,
    /// How full something is, 0 to 1, drawn as a bar.
    share: Option<f64>,
    spark: Option<Value>,
    change: Option<Change>,
}

/// How a figure differs from that of an earlier time.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change {
    /// `up`, `down` or `same`.
    direction: &'static str,
    /// Whether the change is good; none if it is neither good nor bad.
    good: Option<bool>,
    /// The size of the change.
    text: String,
}

impl Change {
    fn of(difference: f64, text: String, good: Option<bool>) -> Self {
        let (direction, good) = match difference {
            difference if difference > 0.0 => ("up", good),
            difference if difference < 0.0 => ("down", good.map(|good| !good)),
            _ => ("same", None),
        };
        Self { direction, good, text }
    }

    /// The change of a ratio, in percentage points. `up_is_good` says whether a larger ratio is better.
    fn of_ratio(now: Option<f64>, before: Option<f64>, up_is_good: bool) -> Option<Self> {
        // The change is in tenths of a point, as it is shown: equal texts count as the same.
        let tenths = ((now? - before?) * 1000.0).round();
        Some(Self::of(tenths, format!("{:.1} points", tenths.abs() / 10.0), Some(up_is_good)))
    }

    /// The change of a rate, in percent of the earlier one. None if the earlier one is zero.
    fn of_rate(now: Option<f64>, before: Option<f64>) -> Option<Self> {
        let (now, before) = (now?, before.filter(|before| *before > 0.0)?);
        let factor = now / before;
        // From tenfold on, a factor is easier to read than percents.
        let text = if factor >= 10.0 {
            format!("{}-fold", units::compact(factor.round()))
        } else {
            format!("{:.0}\u{a0}%", ((factor - 1.0) * 100.0).abs())
        };
        let percent = if factor >= 10.0 { factor } else { ((factor - 1.0) * 100.0).round() };
        Some(Self::of(percent, text, None))
    }
}

impl Figure {
    /// `shown` is a number and, behind a no-break space, its unit, as [`units`] writes them.
    pub(super) fn new(
        name: &'static str,
        label: &'static str,
        shown: Option<String>,
        note: impl Into<String>,
    ) -> Self {
        let shown = shown.unwrap_or_else(|| "–".to_owned());
        let (value, unit) = match shown.split_once('\u{a0}') {
            Some((value, unit)) => (value.to_owned(), Some(unit.to_owned())),
            None => (shown, None),
        };
        Self { name, label, value, unit, note: note.into(), share: None, spark: None, change: None }
    }

    fn change(self, change: Option<Change>) -> Self {
        Self { change, ..self }
    }

    /// With the chart of the same name as a small line.
    fn spark(self, series: Option<&Series>) -> Result<Self, ChartError> {
        let drawn = Chart::named(self.name).zip(series);
        let spark = drawn.map(|(chart, series)| charts::sparkline(chart, series)).transpose()?;
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
        self.per_second(self.counters.request_count)
    }

    fn per_second(&self, count: u64) -> Option<f64> {
        (self.covered_ms > 0).then(|| count as f64 * 1000.0 / self.covered_ms as f64)
    }
}

/// The figures of items and size, which several pages show: the worker's current values, else those that were recorded
/// last.
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
        |count| format!("originals and thumbnails of {}", units::counted_in_part(count, "image", "images")),
    );
    let items = Figure::new("items", "Items cached", key_count.map(units::count), stored);
    let note = match (capacity, stats) {
        (Some(capacity), Some(stats)) => format!("of {}, policy {}", units::bytes(capacity), stats.policy),
        (Some(capacity), None) => format!("of {}", units::bytes(capacity)),
        (None, _) => "unknown now".to_owned(),
    };
    let mut size_figure = Figure::new("size", "Size", size.map(units::bytes), note);
    size_figure.share = size.zip(capacity).map(|(size, capacity)| share(size, capacity));
    Ok([items.spark(series)?, size_figure])
}

/// The figures of the first page: the work of the cache in the last minutes.
///
/// # Errors
/// [`ChartError`] of a sparkline.
pub(crate) fn home_figures(
    series: Option<&Series>,
    stats: Option<&CacheStats>,
    stored_count: Option<u64>,
) -> Result<Vec<Figure>, ChartError> {
    let totals = series.map(|series| Totals::of(&series.rows));
    let ratio = totals.as_ref().and_then(Totals::hit_ratio);
    let hit_ratio = match (ratio, stats.and_then(|stats| stats.hit_ratio)) {
        (Some(ratio), _) => {
            let requests = totals.as_ref().map_or(0, |totals| totals.counters.request_count);
            let note = format!("of {} in 10\u{a0}min", units::counted(requests, "read", "reads"));
            Figure::new("hit-ratio", "Hit ratio", Some(units::percent(ratio)), note)
        }
        (None, Some(ratio)) => {
            Figure::new("hit-ratio", "Hit ratio", Some(units::percent(ratio)), "since the worker’s start")
        }
        (None, None) => {
            let note = match (stats, series) {
                (Some(_), _) => "no reads yet",
                (None, Some(_)) => "no reads in 10\u{a0}min",
                (None, None) => "unknown now",
            };
            Figure::new("hit-ratio", "Hit ratio", None, note)
        }
    };
    let rate = series.and_then(|series| {
        let a_minute_ago = series.to - time::Duration::minutes(1);
        Totals::of(series.rows.iter().filter(|row| row.interval_start >= a_minute_ago)).requests_per_second()
    });
    let requests = Figure::new(
        "requests",
        "Requests",
        rate.map(|rate| format!("{}\u{a0}/s", units::compact(rate))),
        if series.is_some() { "over the last minute" } else { "unknown now" },
    );
    let [items, size] = gauges(series, stats, stored_count)?;
    Ok(vec![hit_ratio.spark(series)?, requests.spark(series)?, items, size])
}

/// The figures above the charts: sums over the range of the charts, and their change since `earlier`, the same length
/// of time before.
///
/// # Errors
/// [`ChartError`] of a sparkline.
pub(super) fn stats_figures(
    series: &Series,
    earlier: Option<&Series>,
    stats: Option<&CacheStats>,
) -> Result<Vec<Figure>, ChartError> {
    let totals = Totals::of(&series.rows);
    let before = earlier.map(|earlier| Totals::of(&earlier.rows)).unwrap_or_default();
    let counters = &totals.counters;
    let hits = units::counted(counters.hit_count, "hit", "hits");
    let misses = units::counted(counters.miss_count, "miss", "misses");
    let average = totals.requests_per_second().map_or_else(
        || "nothing recorded".to_owned(),
        |rate| format!("{}/s on average", units::compact(rate)),
    );
    let evicted = format!("{} of weight", units::bytes(counters.evicted_bytes));
    let near = match counters.near_hit_count {
        0 => "in hits".to_owned(),
        near => format!("in hits, {} of them near hits", units::count(near)),
    };
    let rate = |count: fn(&Counters) -> u64| {
        let per_second = |totals: &Totals| totals.per_second(count(&totals.counters));
        Change::of_rate(per_second(&totals), per_second(&before))
    };
    let [items, size] = gauges(None, stats, None).map(|[mut items, size]| {
        items.note = "resident now".to_owned();
        [items, size]
    })?;
    let ratio = totals.hit_ratio();
    let hit_ratio =
        Figure::new("hit-ratio", "Hit ratio", ratio.map(units::percent), format!("{hits}, {misses}"))
            .change(Change::of_ratio(ratio, before.hit_ratio(), true));
    let requests = Figure::new("requests", "Requests", Some(units::count(counters.request_count)), average)
        .change(rate(|counters| counters.request_count));
    let served = Figure::new("served", "Served from memory", Some(units::bytes(counters.served_bytes)), near)
        .change(rate(|counters| counters.served_bytes));
    let evictions =
        Figure::new("evictions", "Evictions", Some(units::count(counters.eviction_count)), evicted)
            .change(rate(|counters| counters.eviction_count));
    Ok(vec![hit_ratio, requests, served, evictions, items, size])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_a_direction_and_a_size() {
        let change = |direction, good, text: &str| Some(Change { direction, good, text: text.to_owned() });
        let ratio = |now, before| Change::of_ratio(now, before, true);
        assert_eq!(ratio(Some(0.75), Some(0.5)), change("up", Some(true), "25.0 points"));
        assert_eq!(ratio(Some(0.5), Some(0.512)), change("down", Some(false), "1.2 points"));
        assert_eq!(ratio(Some(0.5), Some(0.500_01)), change("same", None, "0.0 points"));
        assert_eq!((ratio(None, Some(0.5)), ratio(Some(0.5), None)), (None, None));
        let rate = |now, before| Change::of_rate(Some(now), Some(before));
        assert_eq!(rate(3.0, 2.0), change("up", None, "50\u{a0}%"));
        assert_eq!(rate(1.0, 2.0), change("down", None, "50\u{a0}%"));
        assert_eq!(rate(0.0, 2.0), change("down", None, "100\u{a0}%"));
        assert_eq!(rate(2.001, 2.0), change("same", None, "0\u{a0}%"));
        assert_eq!(rate(30.0, 2.0), change("up", None, "15-fold"));
        assert_eq!(rate(1.0, 0.0), None);
    }
}
