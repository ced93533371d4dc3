//! Dates of images, and when one of them proves which image it is.
//!
//! A date in a header has whole seconds. It is a proof only if no other image of the key was ever sent with it (RFC 9110,
//! section 8.8.2.2: the representation did not change twice during that second). So each row knows whether its second is
//! later than that of every image the key had before:
//!
//! - What replaces an image sees its row, under the lock that makes writers of a key take turns. If its own second is not
//!   later, it notes the latest date of all images before it, and its own date is no proof.
//! - What is stored after a deletion sees no row. A deletion therefore leaves the latest date behind, unless that is so
//!   old (over [`REMEMBERED`]) that whatever comes next has a later one.
//!
//! Of two images of a key with dates in the same second at most one is a proof, and it is the earlier one: the
//! later one had to notice. A client that holds any of the earlier ones therefore never meets a later one under the
//! same date, at whatever time it was sent what it holds, and however long a cache went on serving that. All of it is
//! decided by the clock of the database alone. That may be set back, or run apart on the nodes of a cluster, by less
//! than [`REMEMBERED`].
//!
//! Every date is the time at which its row was written. None is moved on to tell it from another, so none is ahead of
//! the database's clock.

use time::{Duration, OffsetDateTime};

use crate::conditional::Modified;

/// For so long after an image was stored, its deletion leaves its date behind.
const REMEMBERED: Duration = Duration::minutes(1);

/// When the image of a row was stored, and what is known of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dates {
    /// When it was stored.
    pub updated_at: OffsetDateTime,
    /// The latest date of those before it, if its own second is not a later one.
    pub earlier_at: Option<OffsetDateTime>,
}

impl Dates {
    /// Those of an image that is stored now, after others of which this is the latest date.
    pub(crate) fn of_next(now: OffsetDateTime, latest: Option<OffsetDateTime>) -> Self {
        let earlier_at = latest.filter(|latest| latest.unix_timestamp() >= now.unix_timestamp());
        Self { updated_at: now, earlier_at }
    }

    /// The latest date that the key has had.
    pub(crate) fn latest(&self) -> OffsetDateTime {
        self.earlier_at.map_or(self.updated_at, |earlier| earlier.max(self.updated_at))
    }

    /// What a deletion leaves behind.
    pub(crate) fn left_behind(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        Some(self.latest()).filter(|latest| *latest > now - REMEMBERED)
    }

    /// As a header says it.
    pub fn modified(&self) -> Modified {
        let seconds = self.updated_at.unix_timestamp();
        let is_proof = self.earlier_at.is_none_or(|earlier| earlier.unix_timestamp() < seconds);
        Modified { seconds, is_proof }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::time::{Duration as StdDuration, UNIX_EPOCH};

    use axum::http::HeaderMap;
    use axum_extra::headers::{HeaderMapExt as _, LastModified};
    use proptest::prelude::*;
    use wire::Tag;

    use super::*;
    use crate::conditional::{Decision, WriteConditions, at, decide, last_modified};

    const START_MS: i64 = 1_700_000_000_000;

    #[derive(Debug, Clone)]
    enum Step {
        /// The database's clock goes on by so many milliseconds, or back.
        Clock(i64),
        Put,
        Delete,
        /// A client is sent one of the images that were ever stored, by a gateway whose clock is so much ahead: a cache
        /// may go on serving it until it has acknowledged that there is another.
        Send {
            image: prop::sample::Index,
            ahead_ms: i64,
        },
        /// A client asks with something that it was sent.
        Ask {
            held: prop::sample::Index,
            ahead_ms: i64,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let ahead = -3000..3000i64;
        prop_oneof![
            4 => (1..700i64).prop_map(Step::Clock),
            1 => (-20_000..90_000i64).prop_map(Step::Clock),
            4 => Just(Step::Put),
            2 => Just(Step::Delete),
            4 => (any::<prop::sample::Index>(), ahead.clone())
                .prop_map(|(image, ahead_ms)| Step::Send { image, ahead_ms }),
            6 => (any::<prop::sample::Index>(), ahead).prop_map(|(held, ahead_ms)| Step::Ask { held, ahead_ms }),
        ]
    }

    fn moment(ms: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap()
    }

    fn tag(image: usize) -> Tag {
        let mut tag = [0; 32];
        tag[..8].copy_from_slice(&image.to_be_bytes());
        Tag(tag)
    }

    /// Headers of one kind, with a date and without a tag.
    fn asking(name: &'static str, date: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, date.parse().unwrap());
        headers.insert("range", "bytes=10-".parse().unwrap());
        headers
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_date_ever_takes_one_image_for_another(steps in prop::collection::vec(step(), 1..80)) {
            let mut clock_ms = START_MS;
            let mut latest_clock_ms = START_MS;
            let mut stored: Vec<Dates> = Vec::new();
            let mut row: Option<usize> = None;
            let mut left_behind: Option<OffsetDateTime> = None;
            let mut held: Vec<(usize, String)> = Vec::new();
            for step in steps {
                match step {
                    Step::Clock(ms) => {
                        // Never back by more than the dates of deleted images are remembered for.
                        clock_ms = (clock_ms + ms).max(latest_clock_ms - 50_000);
                        latest_clock_ms = latest_clock_ms.max(clock_ms);
                    }
                    Step::Put => {
                        let latest = row.map(|image| stored[image].latest()).or(left_behind);
                        let dates = Dates::of_next(moment(clock_ms), latest);
                        prop_assert!(dates.updated_at <= moment(clock_ms));
                        row = Some(stored.len());
                        stored.push(dates);
                    }
                    Step::Delete => {
                        if let Some(image) = row.take()
                            && let Some(latest) = stored[image].left_behind(moment(clock_ms))
                        {
                            left_behind = left_behind.max(Some(latest));
                        }
                    }
                    Step::Send { image, ahead_ms } if !stored.is_empty() => {
                        let image = image.index(stored.len());
                        let now = UNIX_EPOCH
                            + StdDuration::from_millis((clock_ms + ahead_ms).try_into().unwrap());
                        let sent = last_modified(at(stored[image].modified().seconds), now);
                        let mut headers = HeaderMap::new();
                        headers.typed_insert(LastModified::from(sent));
                        prop_assert!(sent <= now);
                        held.push((image, headers["last-modified"].to_str().unwrap().to_owned()));
                    }
                    Step::Ask { held: which, ahead_ms } if !held.is_empty() => {
                        let Some(current) = row else { continue };
                        let (image, date) = &held[which.index(held.len())];
                        let now = UNIX_EPOCH
                            + StdDuration::from_millis((clock_ms + ahead_ms).try_into().unwrap());
                        let modified = stored[current].modified();
                        for name in ["if-modified-since", "if-range", "if-unmodified-since"] {
                            let decision = decide(&asking(name, date), &tag(current), Some(modified), 1000, now);
                            let is_taken_for_it = match name {
                                "if-modified-since" => decision == Decision::NotModified,
                                _ => matches!(decision, Decision::Part(_)),
                            };
                            prop_assert!(!is_taken_for_it || *image == current, "{name}: {date}");
                        }
                        let write = WriteConditions::from_headers(&asking("if-unmodified-since", date)).unwrap();
                        let may_write = write.check(Some((&tag(current), modified))).is_ok();
                        prop_assert!(!may_write || *image == current, "a lost update: {date}");
                        prop_assert!(write.check(None).is_err());
                    }
                    Step::Send { .. } | Step::Ask { .. } => {}
                }
            }
        }

        #[test]
        fn the_date_of_an_image_that_was_stored_in_a_second_of_its_own_holds(gaps in prop::collection::vec(1000..5000i64, 1..10)) {
            let mut clock_ms = START_MS;
            let mut latest = None;
            for gap in gaps {
                clock_ms += gap;
                let dates = Dates::of_next(moment(clock_ms), latest);
                prop_assert!(dates.modified().is_proof);
                latest = Some(dates.latest());
            }
        }
    }
}
