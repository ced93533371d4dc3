//! An image on its way to the client, and the cache's part in that.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use bytes::Bytes;
use origin::ImageRow;
use origin::dates::Modified;
use sniff::Format;
use wire::Tag;

use crate::conditional::Decision;
use crate::error::Error;
use crate::visitor::Visitor;

/// The properties of an image that is about to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageMeta {
    /// The format of its bytes.
    pub(crate) format: Format,
    /// SHA-256 of the bytes; of a variant, the tag that [`origin::variants::tag_of`] makes of the original's.
    pub(crate) tag: Tag,
    /// When the image was stored, if that is known.
    pub(crate) modified: Option<Modified>,
    /// The size in bytes; 0 with [`Content::Fresh`], where none were sent.
    pub(crate) size: u64,
}

/// The cache's part in a read: the header `Cache-Status` (RFC 9211), the label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CacheStatus {
    /// The bytes came from the cache, or it confirmed those that the asker holds.
    Hit,
    /// The bytes came from this gateway's own copy, under a lease.
    Near,
    /// A miss; the bytes came from the origin and are resident now.
    Stored,
    /// A miss; the bytes came from the origin and are on their way into the cache.
    Filling,
    /// A miss that shared the fill of another request.
    Collapsed,
    /// A miss that was not filled: another asker has the lease, or nothing is kept.
    Miss,
    /// A miss whose fill was refused because the image had changed meanwhile.
    Refused,
    /// Too large for the bus or for the cache: it always comes from the origin.
    TooLarge,
    /// No cache answers.
    Unavailable,
    /// The cache took longer than the budget.
    TimedOut,
    /// The cache was not asked, because so many bytes were on their way from it already.
    Busy,
}

impl CacheStatus {
    /// Every status.
    pub(crate) const ALL: [Self; 11] = [
        Self::Hit,
        Self::Near,
        Self::Stored,
        Self::Filling,
        Self::Collapsed,
        Self::Miss,
        Self::Refused,
        Self::TooLarge,
        Self::Unavailable,
        Self::TimedOut,
        Self::Busy,
    ];

    /// The word for logs, metrics and pages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Near => "near",
            Self::Stored => "stored",
            Self::Filling => "filling",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Refused => "fill-refused",
            Self::TooLarge => "too-large",
            Self::Unavailable => "cache-unavailable",
            Self::TimedOut => "cache-timeout",
            Self::Busy => "busy",
        }
    }

    /// The value of the header `Cache-Status`.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Hit => "pixcache; hit",
            Self::Near => "pixcache; hit; detail=near",
            Self::Stored => "pixcache; fwd=miss; stored",
            Self::Filling => "pixcache; fwd=miss; detail=filling",
            Self::Collapsed => "pixcache; fwd=miss; collapsed",
            Self::Miss => "pixcache; fwd=miss",
            Self::Refused => "pixcache; fwd=miss; detail=fill-refused",
            Self::TooLarge => "pixcache; fwd=bypass; detail=too-large",
            Self::Unavailable => "pixcache; fwd=bypass; detail=cache-unavailable",
            Self::TimedOut => "pixcache; fwd=bypass; detail=cache-timeout",
            Self::Busy => "pixcache; fwd=bypass; detail=busy",
        }
    }

    /// [`CacheStatus::header`] as a header's value, without a copy.
    pub(crate) fn header_value(self) -> HeaderValue {
        HeaderValue::from_static(self.header())
    }
}

/// An image that was found, and how.
#[derive(Debug)]
pub(crate) struct ReadOutcome {
    /// The properties of the image.
    pub(crate) image: ImageMeta,
    /// Its bytes.
    pub(crate) content: Content,
    /// The answer that the request asks for.
    pub(crate) decision: Decision,
    /// The cache's part in the read.
    pub(crate) cache_status: CacheStatus,
    /// How long the answer of the cache took.
    pub(crate) cache_time: Duration,
    /// How long the whole read took, up to the first byte.
    pub(crate) elapsed: Duration,
}

/// A read that came to nothing. The cache was asked all the same, and has counted it.
#[derive(Debug)]
pub(crate) struct ReadFailure {
    /// The reason.
    pub(crate) error: Error,
    /// The cache's part in the read.
    pub(crate) cache_status: CacheStatus,
    /// How long the answer of the cache took.
    pub(crate) cache_time: Duration,
}

/// The bytes of an image, or the part of them that is needed.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of them, in memory.
    Bytes(Bytes),
    /// The bytes that the decision asks for, coming from the origin as they are sent.
    Stream(Body),
    /// No bytes: the asker holds them already, under the tag that it named.
    Fresh,
}

/// A reader, and the part of the image that it needs.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) visitor: Visitor,
    /// The tag of the bytes that the asker has already.
    pub(crate) held: Option<Tag>,
    pub(crate) decide: Decide<'a>,
}

impl Asker<'_> {
    /// An asker who needs all of it.
    pub(crate) fn of_all(visitor: Visitor) -> Self {
        Self { visitor, held: None, decide: &|_| Decision::Whole }
    }
}

/// Decides a read once the properties of the image are known, and with that how much of it is needed.
pub(crate) type Decide<'a> = &'a (dyn Fn(&ImageMeta) -> Decision + Sync);

impl From<&ImageRow> for ImageMeta {
    fn from(row: &ImageRow) -> Self {
        Self { format: row.format, tag: row.tag, modified: Some(row.dates.modified()), size: row.size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_a_word_and_a_header_of_its_own() {
        for status in CacheStatus::ALL {
            let header = status.header();
            assert!(header.starts_with("pixcache; "), "{header}");
            assert_eq!(header.contains("fwd="), !matches!(status, CacheStatus::Hit | CacheStatus::Near));
            let others = CacheStatus::ALL.into_iter().filter(|other| *other != status);
            for other in others {
                assert_ne!((status.as_str(), header), (other.as_str(), other.header()));
            }
        }
        let detail = CacheStatus::TooLarge.header();
        assert!(detail.ends_with(&format!("detail={}", CacheStatus::TooLarge.as_str())));
    }
}
