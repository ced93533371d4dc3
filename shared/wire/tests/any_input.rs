//! Whatever comes as a payload or a subject is read or refused with a sentence; what is read is written again the same.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use testkit::any;
use wire::event::{Cleared, Configured, KeyEvent};
use wire::inspect::{
    ClearReply, ClearRequest, InvalidateReply, KeysReply, KeysRequest, PutReply, WatchReply, WatchRequest,
};
use wire::stats::{ConfigRevision, History, HistoryRequest, Series, SeriesRequest, Window};
use wire::{CacheConfig, CacheStats, ConfigChange, ConfigReply, subject};

const MAX_MB: u64 = 1000;

/// The fields of all messages.
const FIELDS: &[&str] = &[
    "after",
    "age_ms",
    "by",
    "bytes",
    "cache_size",
    "cache_size_bytes",
    "capacity",
    "capacity_bytes",
    "capacity_mb",
    "changed_at",
    "changed_by",
    "changes",
    "content_type",
    "created_at",
    "dropped_count",
    "entries",
    "from",
    "generation",
    "hit_ratio",
    "hits",
    "incarnation",
    "interval_ms",
    "interval_start",
    "key",
    "key_count",
    "keys",
    "kind",
    "kinds",
    "limit",
    "max_capacity",
    "max_capacity_mb",
    "max_per_second",
    "next",
    "policy",
    "prefix",
    "range",
    "replacement_policy",
    "request_count",
    "resident",
    "revision",
    "rows",
    "seconds",
    "sequence",
    "serving",
    "sort",
    "step",
    "step_ms",
    "stored",
    "tag",
    "time",
    "to",
    "type",
    "uptime_s",
    "version",
    "window_count",
    "worker",
];

/// Reads bytes as `T`; if that succeeds, `T` must survive being written and read.
fn comes_back<T: DeserializeOwned + Serialize + PartialEq + Debug>(
    bytes: &[u8],
) -> Result<bool, TestCaseError> {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return Ok(false) };
    let written = serde_json::to_vec(&read).unwrap();
    prop_assert_eq!(serde_json::from_slice::<T>(&written).unwrap(), read);
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_payload_is_a_message_that_comes_back_or_an_error(bytes in any::json(FIELDS)) {
        comes_back::<CacheConfig>(&bytes)?;
        comes_back::<CacheStats>(&bytes)?;
        comes_back::<ClearReply>(&bytes)?;
        comes_back::<ClearRequest>(&bytes)?;
        comes_back::<Cleared>(&bytes)?;
        comes_back::<ConfigReply>(&bytes)?;
        comes_back::<ConfigRevision>(&bytes)?;
        comes_back::<Configured>(&bytes)?;
        comes_back::<History>(&bytes)?;
        comes_back::<HistoryRequest>(&bytes)?;
        comes_back::<InvalidateReply>(&bytes)?;
        comes_back::<KeyEvent>(&bytes)?;
        comes_back::<KeysReply>(&bytes)?;
        comes_back::<KeysRequest>(&bytes)?;
        comes_back::<PutReply>(&bytes)?;
        comes_back::<Series>(&bytes)?;
        comes_back::<SeriesRequest>(&bytes)?;
        comes_back::<WatchReply>(&bytes)?;
        comes_back::<WatchRequest>(&bytes)?;
        comes_back::<Window>(&bytes)?;
    }

    #[test]
    fn any_request_is_one_or_an_error(
        series in any::json(&["range", "step"]),
        history in any::json(&["range", "limit"]),
        keys in any::json(&["prefix", "only", "limit", "after", "sort"]),
        watch in any::json(&["seconds", "kinds"]),
        config in any::json(&["capacity_mb", "policy", "generation", "changed_by", "changed_at"]),
        change in any::json(&["capacity_mb", "policy", "by"]),
    ) {
        comes_back::<SeriesRequest>(&series)?;
        comes_back::<HistoryRequest>(&history)?;
        comes_back::<KeysRequest>(&keys)?;
        comes_back::<WatchRequest>(&watch)?;
        comes_back::<CacheConfig>(&config)?;
        match ConfigChange::parse(&change, MAX_MB) {
            Ok(change) => {
                prop_assert!(change.capacity_mb.is_none_or(|capacity| (1..=MAX_MB).contains(&capacity.mb())));
                let written = serde_json::to_vec(&change).unwrap();
                prop_assert_eq!(ConfigChange::parse(&written, MAX_MB), Ok(change));
            }
            Err(error) => prop_assert!(error.to_string().chars().count() < 400, "{}", error),
        }
    }

    #[test]
    fn any_subject_names_a_key_or_is_explained(
        subject in prop_oneof![
            "cache\\.(get|put|invalidate)\\.[a-z%0-9A-F._-]{0,40}(\\.w(160|320|640|1280|99))?", ".{0,60}"
        ],
    ) {
        match subject::key_of(&subject) {
            Ok(key) => prop_assert_eq!(subject::key_of(&subject::invalidate(&key)), Ok(key)),
            Err(sentence) => prop_assert!(sentence.len() > 10, "{}", sentence),
        }
        match subject::item_of(&subject) {
            Ok(item) => prop_assert_eq!(subject::item_of(&subject::get(&item)), Ok(item)),
            Err(sentence) => prop_assert!(sentence.len() > 10, "{}", sentence),
        }
    }
}
