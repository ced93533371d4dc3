//! The look-aside read: the cache first, then the origin, and what came of it.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use bytes::Bytes;
use wire::Tag;

/// What is known of an image that is about to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageMeta {
    /// The content type.
    pub content_type: String,
    /// SHA-256 of the bytes, if it is known (an operator's put may not have said).
    pub tag: Tag,
    /// When the image was stored, in seconds since 1970, if that is known.
    pub modified_s: Option<i64>,
    /// The size in bytes.
    pub size: u64,
}

/// What the cache did for a read: the header `Cache-Status` (RFC 9211), the label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheStatus {
    /// The bytes came from the cache, or it confirmed those that the asker holds.
    Hit,
    /// A miss; the bytes came from the origin and are resident now.
    Stored,
    /// A miss that shared the fill of another request.
    Collapsed,
    /// A miss that was not filled: somebody else has the lease, or nothing is kept.
    Miss,
    /// A miss whose fill was refused because the image had changed meanwhile.
    Refused,
    /// Too large for the bus or for the cache: it always comes from the origin.
    TooLarge,
    /// No cache answers.
    Unavailable,
    /// The cache took longer than the budget.
    TimedOut,
}

impl CacheStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Hit,
        Self::Stored,
        Self::Collapsed,
        Self::Miss,
        Self::Refused,
        Self::TooLarge,
        Self::Unavailable,
        Self::TimedOut,
    ];

    /// The word for logs, metrics and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stored => "stored",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Refused => "refused",
            Self::TooLarge => "too-large",
            Self::Unavailable => "cache-unavailable",
            Self::TimedOut => "cache-timeout",
        }
    }

    /// The value of the header `Cache-Status`.
    pub fn header(self) -> &'static str {
        match self {
            Self::Hit => "pixcache; hit",
            Self::Stored => "pixcache; fwd=miss; stored",
            Self::Collapsed => "pixcache; fwd=miss; collapsed",
            Self::Miss => "pixcache; fwd=miss",
            Self::Refused => "pixcache; fwd=miss; detail=fill-refused",
            Self::TooLarge => "pixcache; fwd=bypass; detail=too-large",
            Self::Unavailable => "pixcache; fwd=bypass; detail=cache-unavailable",
            Self::TimedOut => "pixcache; fwd=bypass; detail=cache-timeout",
        }
    }

    /// [`CacheStatus::header`] as a header's value, without a copy.
    pub fn header_value(self) -> HeaderValue {
        HeaderValue::from_static(self.header())
    }
}

/// An image that was found, and how.
#[derive(Debug)]
pub struct ReadOutcome {
    /// What it is.
    pub image: ImageMeta,
    /// Its bytes.
    pub content: Content,
    /// What the cache did.
    pub cache_status: CacheStatus,
    /// How long the answer of the cache took.
    pub cache_time: Duration,
    /// How long the whole read took, up to the first byte.
    pub elapsed: Duration,
}

/// The bytes of an image, or as much of them as there was need for.
#[derive(Debug)]
pub enum Content {
    /// All of them, in memory.
    Bytes(Bytes),
    /// They come from the origin as they are sent.
    Stream(Body),
    /// None: they are those that the asker holds under the tag that it named.
    Fresh,
}
