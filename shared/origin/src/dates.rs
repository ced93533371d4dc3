//! Dates of images, and when one of them proves which image it is.
//!
//! A date in a header has whole seconds. It is a proof only if no other image of the key was ever sent with it. RFC
//! 9110, section 8.8.2.2, demands that the representation did not change twice during that second. So each row knows
//! whether its second is later than that of every image the key had before:
//!
//! - A replacement sees the row of the image before it, under the lock that makes writers of a key take turns. If its
//!   own second is not later, it notes the latest date of all images before it. Its own date is then no proof.
//! - An image that is stored after a deletion sees no row. A deletion therefore leaves the latest date behind. It
//!   leaves none if that date is so old (over [`REMEMBERED`]) that the next image has a later one.
//!
//! If two images of a key have dates in the same second, at most one date is a proof. It is that of the earlier image,
//! because the later one had to notice the date before it. A client that holds an earlier image therefore never meets a
//! later image whose date is the same and counts as a proof. It does not matter when the client was sent its image, nor
//! how long a cache went on serving that. The database's clock alone decides all of this. That clock may be set back by
//! less than [`REMEMBERED`]. The clocks of a cluster's nodes may differ by as little.
//!
//! Every date is the time at which its row was written. No date is moved on to differ from another, so none is ahead of
//! the database's clock.

use std::time::{Duration as StdDuration, SystemTime, UNIX_EPOCH};

use time::{Duration, OffsetDateTime};

/// How long after an image was stored its deletion still leaves its date behind.
const REMEMBERED: Duration = Duration::minutes(1);

/// When the image of a row was stored, and the latest date of the images before it, if that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dates {
    /// When it was stored.
    pub updated_at: OffsetDateTime,
    /// The latest date of the images before it, if its own second is not a later one.
    pub earlier_at: Option<OffsetDateTime>,
}

impl Dates {
    /// The dates of an image that is stored now, where `latest` is the latest date of the images before it.
    pub fn of_next(now: OffsetDateTime, latest: Option<OffsetDateTime>) -> Self {
        let earlier_at = latest.filter(|latest| latest.unix_timestamp() >= now.unix_timestamp());
        Self { updated_at: now, earlier_at }
    }

    /// The latest date that the key has had.
    pub fn latest(&self) -> OffsetDateTime {
        self.earlier_at.map_or(self.updated_at, |earlier| earlier.max(self.updated_at))
    }

    /// The latest date, which a deletion leaves behind, unless it is older than [`REMEMBERED`].
    pub fn left_behind(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        Some(self.latest()).filter(|latest| *latest > now - REMEMBERED)
    }

    /// The date in the form that a header can carry.
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
    /// The number that the cache keeps without interpreting it: a date that is no proof is negative.
    pub fn to_wire(self) -> i64 {
        let seconds = self.seconds.max(0);
        if self.is_proof { seconds } else { -seconds }
    }

    /// Reads the number that [`Modified::to_wire`] made; none for 0. The worker gives 0 for an image that was not put
    /// by a gateway. The next image of the key may be of the same second, and would know nothing of a date sent with
    /// that one.
    pub fn from_wire(seconds: i64) -> Option<Self> {
        (seconds != 0).then(|| Self { seconds: seconds.saturating_abs(), is_proof: seconds > 0 })
    }

    /// Whether it is the date in a header, to the second.
    pub fn is_at(self, date: impl Into<SystemTime>) -> bool {
        date.into() == at(self.seconds)
    }
}

/// A moment given in seconds since 1970, limited to the years that a date in a header may have. A put into the cache
/// may claim any number.
pub fn at(seconds: i64) -> SystemTime {
    const END_OF_9999: u64 = 253_402_300_799;
    UNIX_EPOCH + StdDuration::from_secs(u64::try_from(seconds).unwrap_or(0).min(END_OF_9999))
}
