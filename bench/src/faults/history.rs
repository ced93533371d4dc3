//! The clients' operations and their results, in the order in which they ended.
//!
//! Times are nanoseconds on one clock that is never set: that of this process.

use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use super::image::ImageId;

/// A moment, in nanoseconds since the run began.
pub(crate) type Moment = u64;

/// The number of a key.
pub(crate) type KeyId = usize;

/// One operation of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Whether it was a probe, which only reads, and only images that no client changes.
    pub(crate) is_probe: bool,
    /// The number of the gateway that was asked.
    pub(crate) gateway: usize,
    /// The moment just before the request was sent.
    pub(crate) start: Moment,
    /// The moment just after the answer was there, or the connection was lost.
    pub(crate) end: Moment,
    /// The request and its result.
    pub(crate) did: Did,
}

/// A request to a gateway, and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Did {
    /// The image under a key.
    Read { key: KeyId, seen: Result<Seen, Failure>, cache: Option<CacheWord> },
    /// An upload, or with `None` a deletion.
    Wrote { key: KeyId, image: Option<ImageId>, outcome: Outcome },
    /// A deletion of all images.
    DeletedAll { outcome: Outcome },
    /// The list of all keys.
    Listed { keys: Result<Vec<KeyId>, Failure> },
}

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Seen {
    /// This image.
    Image(ImageId),
    /// That there is none.
    Nothing,
    /// That there is one, whichever.
    Something,
    /// Bytes that no client has uploaded.
    Damaged,
}

/// Why there is no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No gateway listens: the request was never sent.
    NotSent,
    /// The connection ended before the answer did.
    Lost,
    /// There was no answer within a minute.
    Unanswered,
    /// An answer with this status.
    Status(u16),
}

/// The outcome of a change, as far as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is made, and no older image is seen any more. Whether there was an image before, if the answer
    /// says so.
    Done { found: Option<bool> },
    /// It is made, and the cache is still being told.
    StillTelling,
    /// It may be made, now or later, or never.
    Unknown(Failure),
    /// It was never sent.
    NotSent,
}

/// The gateway's report about its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheWord {
    /// The cache had it.
    Hit,
    /// The gateway had a copy of its own.
    Near,
    /// The cache did not have it.
    Miss,
    /// Too large for the cache.
    TooLarge,
    /// The cache did not answer in time.
    TimedOut,
    /// No cache is there, or it was not asked.
    Without,
}

impl CacheWord {
    /// Reads the header `Cache-Status`.
    pub(crate) fn of(header: &str) -> Option<Self> {
        Some(match header.strip_prefix("pixcache; ")? {
            "hit" => Self::Hit,
            "hit; detail=near" => Self::Near,
            "fwd=bypass; detail=too-large" => Self::TooLarge,
            "fwd=bypass; detail=cache-timeout" => Self::TimedOut,
            other if other.starts_with("fwd=miss") => Self::Miss,
            _ => Self::Without,
        })
    }
}

/// The clock, and all that was recorded by it.
#[derive(Debug)]
pub(crate) struct History {
    origin: Instant,
    origin_at: SystemTime,
    records: Mutex<Vec<Record>>,
    images: Mutex<Vec<Sent>>,
}

/// An image that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Under which key.
    pub(crate) key: KeyId,
    /// Of its bytes.
    pub(crate) hash: [u8; 32],
}

impl History {
    /// It begins now.
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            origin_at: SystemTime::now(),
            records: Mutex::default(),
            images: Mutex::default(),
        }
    }

    /// This moment.
    pub(crate) fn now(&self) -> Moment {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The moment of a time of day; before the run it is 0.
    pub(crate) fn moment_of(&self, time: SystemTime) -> Moment {
        let since = time.duration_since(self.origin_at).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes what a client did.
    pub(crate) fn note(&self, record: Record) {
        self.records.lock().push(record);
    }

    /// Makes the next image, for `key`.
    pub(crate) fn next_image(&self, key: KeyId, size: usize) -> (ImageId, Vec<u8>) {
        let id = {
            let mut images = self.images.lock();
            images.push(Sent { key, hash: [0; 32] });
            ImageId::try_from(images.len() - 1).unwrap_or(ImageId::MAX)
        };
        let bytes = super::image::image(id, size);
        let hash = super::image::hash(&bytes);
        if let Some(sent) = self.images.lock().get_mut(id as usize) {
            sent.hash = hash;
        }
        (id, bytes)
    }

    /// The hash of an image.
    pub(crate) fn hash_of(&self, id: ImageId) -> Option<[u8; 32]> {
        self.images.lock().get(id as usize).map(|sent| sent.hash)
    }

    /// The result of a read with these bytes.
    pub(crate) fn recognize(&self, bytes: &[u8]) -> Seen {
        match super::image::id_of(bytes) {
            Some(id) if self.hash_of(id) == Some(super::image::hash(bytes)) => Seen::Image(id),
            _ => Seen::Damaged,
        }
    }

    /// Everything so far, and the images by their number.
    pub(crate) fn copy(&self) -> (Vec<Record>, Vec<Sent>) {
        (self.records.lock().clone(), self.images.lock().clone())
    }
}

/// A stretch of time, for people.
pub(crate) fn seconds(nanoseconds: Moment) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let seconds = nanoseconds as f64 / 1e9;
    seconds
}
