//! Counts: of a worker's life, of one window, and of a stretch of history.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::config::Policy;
use crate::span::Span;

/// Declares the counters once; rows, replies and metrics take names and order from here.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of a worker. Each value only grows during a worker's life; a window holds the differences.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct Counters {
            $(
                $(#[$doc])*
                #[serde(default)]
                #[cfg_attr(feature = "openapi", schema(required = true))]
                pub $name: u64,
            )*
        }

        impl Counters {
            /// The names, in order: those of the fields, of the JSON and of the columns of `cache_stats`.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// The values, in the order of [`Counters::NAMES`].
            pub fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$name),*]
            }

            /// Counters from values in the order of [`Counters::NAMES`].
            pub fn from_values(values: [u64; Self::NAMES.len()]) -> Self {
                let [$($name),*] = values;
                Self { $($name),* }
            }

            /// The counts since `earlier`.
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name)),* }
            }

            /// Adds the counts of `other`.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
            }
        }
    };
}

counters! {
    /// Gets answered: hits and misses.
    request_count,
    /// Gets of a resident entry.
    hit_count,
    /// Gets of an entry that is not resident.
    miss_count,
    /// Entries inserted after a miss, with its lease.
    fill_count,
    /// Fills refused because their lease was not the current one.
    refused_fill_count,
    /// Entries inserted by request, without a lease.
    put_count,
    /// Entries removed by the policy.
    eviction_count,
    /// The weight of the evicted entries, in bytes.
    evicted_bytes,
    /// Invalidations acknowledged, whether or not an entry was resident.
    invalidation_count,
    /// Images refused because they are too heavy.
    rejection_count,
    /// Bytes of image data sent in hits.
    served_bytes,
    /// The part of the hits that gateways served from their near caches and reported.
    near_hit_count,
}

/// The counts of one interval, as published on `cache.event.window.<worker>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Window {
    /// The worker's name.
    pub worker: String,
    /// The worker's incarnation: this life of its process.
    pub incarnation: String,
    /// 1, 2, 3, … within the incarnation: a missing number is a missing window.
    pub sequence: u64,
    /// When the interval began.
    #[serde(with = "crate::bounds::moment")]
    pub interval_start: OffsetDateTime,
    /// How long it was, in milliseconds.
    #[serde(with = "crate::bounds::length")]
    pub interval_ms: u64,
    /// The weight of all entries at its end, in bytes.
    pub cache_size: u64,
    /// The capacity at its end, in bytes.
    pub capacity: u64,
    /// The resident entries at its end.
    pub key_count: u64,
    /// The counts of the interval.
    #[serde(flatten)]
    pub counters: Counters,
}

impl Window {
    /// The id under which JetStream recognizes a window that was published twice.
    pub fn message_id(&self) -> String {
        format!("{}-{}", self.incarnation, self.sequence)
    }
}

/// The answer to `cache.stats`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheStats {
    /// The worker that answers.
    pub worker: String,
    /// The worker's present life.
    pub incarnation: String,
    /// Its version.
    pub version: String,
    /// How long it has been up, in seconds.
    #[serde(with = "crate::bounds::length")]
    pub uptime_s: u64,
    /// The policy in force.
    pub policy: Policy,
    /// The revision of the configuration in force.
    pub revision: u64,
    /// The capacity, in bytes of weight.
    pub capacity_bytes: u64,
    /// The weight of all entries, in bytes.
    pub cache_size_bytes: u64,
    /// The resident entries.
    pub key_count: u64,
    /// Hits ÷ lookups since the start; `null` before the first lookup.
    pub hit_ratio: Option<f64>,
    /// Whether gets are served. False from a (re)connection until its subscriptions are proven.
    pub serving: bool,
    /// Windows that wait for JetStream's acknowledgement.
    pub pending_window_count: u64,
    /// Windows given up because they were more than an hour old without an acknowledgement.
    pub lost_window_count: u64,
    /// The number of times that this worker read too slowly and its client dropped messages.
    pub slow_consumer_count: u64,
    /// Answers that were not sent, because the asker named a reply subject that is no inbox.
    #[serde(default)]
    pub refused_answer_count: u64,
    /// Connections that its process has made to NATS. With each after the first, everything was dropped.
    #[serde(default)]
    pub connection_count: u64,
    /// Key events that no watcher got, because there were too many in their second.
    #[serde(default)]
    pub dropped_event_count: u64,
    /// The counts since the start.
    #[serde(flatten)]
    pub counters: Counters,
}

/// The windows that JetStream keeps for the recorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// The number of windows of which no row is known to be written.
    pub waiting_count: u64,
}

/// The request of `stats.series`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesRequest {
    /// The length of the range. Default: 10 minutes.
    #[serde(default = "ten_minutes")]
    pub range: Span,
    /// The interval that one row stands for. It is made longer if more than [`MAX_POINTS`] rows would come. Default:
    /// the shortest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Span>,
    /// How long ago the range ends. Default: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ago: Option<Span>,
}

/// The most rows that a series has.
pub const MAX_POINTS: u64 = 400;

fn ten_minutes() -> Span {
    #[expect(clippy::unwrap_used, reason = "a constant that a test checks")]
    Span::from_millis(600_000).unwrap()
}

impl Default for SeriesRequest {
    fn default() -> Self {
        Self { range: ten_minutes(), step: None, ago: None }
    }
}

/// One row of a series: one window, or several added up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = StatsRow))]
pub struct SeriesRow {
    /// The beginning of the interval.
    #[serde(with = "crate::bounds::moment")]
    pub interval_start: OffsetDateTime,
    /// The time that the windows in it cover, in milliseconds.
    #[serde(with = "crate::bounds::length")]
    pub interval_ms: u64,
    /// The worker, if all windows in it are of one.
    pub worker: Option<String>,
    /// The worker's incarnation, if all windows in it are of one.
    pub incarnation: Option<String>,
    /// The last window's sequence number, if all windows in it are of one incarnation.
    pub sequence: Option<u64>,
    /// The number of windows that it adds up.
    pub window_count: u64,
    /// The largest weight of all entries, in bytes.
    pub cache_size: u64,
    /// The largest capacity, in bytes.
    pub capacity: u64,
    /// The most resident entries.
    pub key_count: u64,
    /// The counts, added up.
    #[serde(flatten)]
    pub counters: Counters,
}

/// The statistics of the cache over time: the answer to `stats.series`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Stats))]
pub struct Series {
    /// The beginning of the range.
    #[serde(with = "crate::bounds::moment")]
    pub from: OffsetDateTime,
    /// The end of the range: now by the recorder's clock, if no earlier end was asked for.
    #[serde(with = "crate::bounds::moment")]
    pub to: OffsetDateTime,
    /// The interval that a row stands for, in milliseconds: two rows further apart have a gap between them.
    pub step_ms: u64,
    /// The rows, the oldest first. An interval without records has no row.
    pub rows: Vec<SeriesRow>,
}

/// The request of `stats.config_history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryRequest {
    /// The length of the range up to now; without it, the whole history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Span>,
    /// The most changes to answer with, 1 to 1,000. Default 100.
    #[serde(default = "hundred")]
    pub limit: u32,
    /// With it, each change has an [`Effect`]: the counts of up to that time before and after it. Then the limit is at
    /// most 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Span>,
}

fn hundred() -> u32 {
    100
}

impl Default for HistoryRequest {
    fn default() -> Self {
        Self { range: None, limit: hundred(), compare: None }
    }
}

/// One row of `cache_properties`: one revision of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRevision {
    /// The revision of the KV entry.
    pub revision: u64,
    /// The capacity, in bytes.
    pub max_capacity: u64,
    /// The policy.
    pub replacement_policy: Policy,
    /// Goes up with each clear: a row with another generation than the one before is a clear.
    pub generation: u64,
    /// The name of the person or program that asked for it.
    pub changed_by: String,
    /// When it was made.
    #[serde(with = "crate::bounds::moment")]
    pub created_at: OffsetDateTime,
    /// Its effect, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

/// The counts before and after a change, in whole windows between it and the neighbouring changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// The counts of the windows that had ended when it was made.
    pub before: Reads,
    /// The counts of the windows that began afterwards.
    pub after: Reads,
}

/// Gets, and how many of them were hits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// Gets answered: hits and misses.
    pub request_count: u64,
    /// Gets of a resident entry.
    pub hit_count: u64,
}

impl Reads {
    /// Hits ÷ gets, 0 to 1; none without a get.
    pub fn hit_ratio(self) -> Option<f64> {
        (self.request_count > 0).then(|| (self.hit_count as f64 / self.request_count as f64).min(1.0))
    }
}

/// The answer to `stats.config_history`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The changes, the newest first.
    pub changes: Vec<ConfigRevision>,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn counters_add_up_and_keep_their_order() {
        let values = std::array::from_fn(|at| at as u64 + 1);
        let counters = Counters::from_values(values);
        assert_eq!(counters.values(), values);
        assert_eq!((counters.request_count, counters.near_hit_count), (1, 12));
        let mut sum = counters;
        sum.add(&counters);
        assert_eq!(sum.since(&counters), counters);
        let json = serde_json::to_value(counters).unwrap();
        assert!(Counters::NAMES.iter().zip(values).all(|(name, value)| json[name] == value));
    }

    #[test]
    fn requests_have_defaults_and_refuse_unknown_fields() {
        assert_eq!(serde_json::from_str::<SeriesRequest>("{}").unwrap(), SeriesRequest::default());
        assert!(serde_json::from_str::<SeriesRequest>(r#"{"rnage":"10m"}"#).is_err());
        assert!(serde_json::from_str::<SeriesRequest>(r#"{"range":"ten"}"#).is_err());
        assert_eq!(serde_json::from_str::<HistoryRequest>("{}").unwrap().limit, 100);
    }
}
