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

use std::time::{Duration as StdDuration, SystemTime, UNIX_EPOCH};

use time::{Duration, OffsetDateTime};

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
    pub fn of_next(now: OffsetDateTime, latest: Option<OffsetDateTime>) -> Self {
        let earlier_at = latest.filter(|latest| latest.unix_timestamp() >= now.unix_timestamp());
        Self { updated_at: now, earlier_at }
    }

    /// The latest date that the key has had.
    pub fn latest(&self) -> OffsetDateTime {
        self.earlier_at.map_or(self.updated_at, |earlier| earlier.max(self.updated_at))
    }

    /// What a deletion leaves behind.
    pub fn left_behind(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        Some(self.latest()).filter(|latest| *latest > now - REMEMBERED)
    }

    /// As a header says it.
    pub fn modified(&self) -> Modified {
        let seconds = self.updated_at.unix_timestamp();
        let is_proof = self.earlier_at.is_none_or(|earlier| earlier.unix_timestamp() < seconds);
        Modified { seconds, is_proof }
    }
}

/// When an image was stored, as far as a header can say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modified {
    /// In whole seconds since 1970.
    pub seconds: i64,
    /// Whether no other image of the key was stored in that second before it ([`crate::dates`]). If not, no
    /// condition holds by this date.
    pub is_proof: bool,
}

impl Modified {
    /// As the cache keeps it, which does not look into it: what is no proof is negative.
    pub fn to_wire(self) -> i64 {
        let seconds = self.seconds.max(0);
        if self.is_proof { seconds } else { -seconds }
    }

    /// What [`Modified::to_wire`] made. The worker says 0 of what was put into it by somebody who is no gateway: the
    /// next image of the key, which may be of the same second, would know nothing of a date that was sent with it.
    pub fn from_wire(seconds: i64) -> Option<Self> {
        (seconds != 0).then(|| Self { seconds: seconds.saturating_abs(), is_proof: seconds > 0 })
    }

    /// Whether it is that of a header.
    pub fn is_at(self, date: impl Into<SystemTime>) -> bool {
        date.into() == at(self.seconds)
    }
}

/// A moment given in seconds since 1970, within the years that a date in a header may have: somebody who puts an image
/// into the cache may claim any.
pub fn at(seconds: i64) -> SystemTime {
    const END_OF_9999: u64 = 253_402_300_799;
    UNIX_EPOCH + StdDuration::from_secs(u64::try_from(seconds).unwrap_or(0).min(END_OF_9999))
}
