//! Fills: the bytes of a miss on their way into the cache.
//!
//! The answer to a read does not wait for its fill, but for that of a variant, which is made once. While a fill is under
//! way, the next read of its item waits for it. When as many are under way as there are places, the cache or this machine is
//! busy: a further one is dropped and counted, and its lease goes back to the worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use origin::dates::Modified;
use prometheus::{IntCounter, IntGauge};
use runtime::bus::RequestFailure;
use runtime::shelf::Shelf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use wire::inspect::PutReply;
use wire::reply::Code;
use wire::{Item, Meta};

use super::flight::{ClosedFlight, Flights};
use crate::cache::client::CacheClient;
use crate::cache::granted::Granted;
use crate::cache::near::Near;
use crate::cache::shared::Shared;
use crate::image::{CacheStatus, ImageMeta};
use crate::metrics::Metrics;

/// A fill may take this many times the budget of a read, because its bytes have to reach the worker.
const FILL_BUDGETS: u32 = 4;
/// Fills under way at once: one for each processor, within these bounds.
const FEWEST_PLACES: usize = 2;
const MOST_PLACES: usize = 16;
/// The same where images are in S3: a read from there takes several times as long as a fill, so that more of them pay.
const REMOTE_PLACES: usize = 32;

/// Hands bytes to the worker.
#[derive(Debug)]
pub(crate) struct Filler {
    cache: CacheClient,
    near: Option<Arc<Near>>,
    shared: Option<Arc<Shared>>,
    budget: Duration,
    places: Arc<Semaphore>,
    /// The fills beside answers and those of uploads, which a stop waits for.
    tasks: TaskTracker,
    under_way: Flights<()>,
    /// The fewest bytes that the worker has refused as too large since it last took as many; no fill has `u64::MAX`.
    refused_from: AtomicU64,
    running: IntGauge,
    dropped: IntCounter,
}

/// A fill that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Fill {
    /// The item.
    pub(crate) item: Item,
    /// The lease of its miss.
    pub(crate) granted: Granted,
    /// The properties of the bytes.
    pub(crate) image: ImageMeta,
    /// The bytes, of a row that was read after the lease had come.
    pub(crate) bytes: Bytes,
    /// The same bytes for other reads, which share them once the fill is accepted.
    pub(crate) lent: Bytes,
    /// The reads that wait for that.
    pub(crate) flight: ClosedFlight<(ImageMeta, Bytes)>,
    /// Its place, if it has one already.
    pub(crate) place: Option<Place>,
}

/// One of the places for fills beside answers.
pub(crate) type Place = OwnedSemaphorePermit;

impl Filler {
    /// A filler of the cache with this budget for a read, whose bytes come from S3 if the origin is `remote`.
    pub(crate) fn new(cache: CacheClient, budget: Duration, remote: bool, metrics: &Metrics) -> Self {
        let processors = std::thread::available_parallelism().map_or(FEWEST_PLACES, usize::from);
        let places = if remote { REMOTE_PLACES } else { processors.clamp(FEWEST_PLACES, MOST_PLACES) };
        Self {
            cache,
            near: None,
            shared: None,
            budget,
            places: Arc::new(Semaphore::new(places)),
            tasks: TaskTracker::new(),
            under_way: Flights::default(),
            refused_from: AtomicU64::new(u64::MAX),
            running: metrics.fills_under_way(),
            dropped: metrics.dropped_fills(),
        }
    }

    /// This filler, with a near cache.
    pub(crate) fn with_near(self, near: Option<Arc<Near>>) -> Self {
        Self { near, ..self }
    }

    /// This filler, with files that it shares with the worker.
    pub(crate) fn with_shared(self, shelf: Option<Shelf>) -> Self {
        Self { shared: shelf.map(|shelf| Arc::new(Shared::new(shelf))), ..self }
    }

    /// The near cache that fills bring copies to.
    pub(crate) fn near(&self) -> Option<&Arc<Near>> {
        self.near.as_ref()
    }

    /// The files that are shared with the worker.
    pub(crate) fn shared(&self) -> Option<&Shared> {
        self.shared.as_deref()
    }

    /// A place for a fill; without one the fill is dropped, and counted here.
    pub(crate) fn place(&self) -> Option<Place> {
        let place = self.places.clone().try_acquire_owned().ok();
        if place.is_none() {
            self.note_dropped();
        }
        place
    }

    /// Counts a fill that is not made, because this machine is busy.
    pub(crate) fn note_dropped(&self) {
        self.dropped.inc();
    }

    /// The fills beside answers, and those of uploads.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Waits for the fills that are under way.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether a fill would be dropped at this moment.
    pub(crate) fn is_busy(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// Counts a fill that was not asked a lease for, if that was because a further one would be dropped.
    pub(crate) fn note_unfilled(&self) {
        if self.is_busy() {
            self.note_dropped();
        }
    }

    /// Waits until no fill of `item` is under way, for half the budget of a read at most. Returns whether one was.
    pub(crate) async fn settle(&self, item: &Item) -> bool {
        let Some(passenger) = self.under_way.join(item) else { return false };
        let _ = timeout(self.budget / 2, passenger.arrive()).await;
        true
    }

    /// Hands a fill on, and returns what is known of it. That of a variant, and one that may be too large for the cache, are
    /// waited for.
    pub(crate) async fn fill(self: &Arc<Self>, fill: Fill) -> CacheStatus {
        if fill.item.variant.is_some() || fill.image.size >= self.refused_from.load(Ordering::Relaxed) {
            self.send(fill).await
        } else {
            self.start(fill)
        }
    }

    /// Sends a fill beside the answer to its read, or drops it.
    fn start(self: &Arc<Self>, mut fill: Fill) -> CacheStatus {
        let Some(place) = fill.place.take().or_else(|| self.place()) else { return CacheStatus::Miss };
        let (filler, under_way) = (self.clone(), self.under_way.lead(&fill.item));
        let running = Running::new(&self.running);
        self.tasks.spawn(async move {
            let status = filler.send(fill).await;
            tracing::debug!(status = status.as_str(), "a fill has ended");
            drop((place, running, under_way));
        });
        CacheStatus::Filling
    }

    /// Sends a fill, and shares it if it was accepted.
    async fn send(&self, fill: Fill) -> CacheStatus {
        let Fill { item, granted, image, bytes, lent, flight, place: _place } = fill;
        let meta = Meta {
            content_type: Some(image.format.content_type().to_owned()),
            tag: Some(image.tag),
            modified_s: image.modified.map(Modified::to_wire),
            lease: Some(granted.lease()),
            near: self.near.as_ref().map(|near| near.holder()),
            ..Meta::default()
        };
        let asking = self.near.as_ref().map(|near| near.ask(&item));
        let answer = self.put(&item, meta, &bytes).await;
        if matches!(answer, Ok(_) | Err(RequestFailure::Refused(_))) {
            granted.use_up();
        }
        self.note_limit(image.size, &answer);
        match answer {
            Ok(reply) if reply.stored => {
                if let (Some(asking), Some(granted)) = (asking, reply.granted_ms) {
                    asking.keep(&image, bytes, Duration::from_millis(granted));
                }
                flight.land((image, lent));
                CacheStatus::Stored
            }
            // Nothing is kept. Other reads may not share an image whose fill was not accepted under its lease.
            Ok(_) => CacheStatus::Miss,
            Err(RequestFailure::Refused(refused)) => match refused.refusal.code {
                Code::Conflict => CacheStatus::Refused,
                Code::TooLarge => CacheStatus::TooLarge,
                _ => CacheStatus::Miss,
            },
            Err(RequestFailure::TooLarge(_)) => CacheStatus::TooLarge,
            // It may have been accepted or not. The image is right in any case.
            Err(_) => CacheStatus::Miss,
        }
    }

    /// Notes from how many bytes on the worker takes no image.
    fn note_limit(&self, size: u64, answer: &Result<PutReply, RequestFailure>) {
        match answer {
            Ok(reply) if reply.stored && size >= self.refused_from.load(Ordering::Relaxed) => {
                self.refused_from.store(u64::MAX, Ordering::Relaxed);
            }
            Err(RequestFailure::Refused(refused)) if refused.refusal.code == Code::TooLarge => {
                self.refused_from.fetch_min(size, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Sends the worker the bytes of a fill, or the file that they are in.
    async fn put(&self, item: &Item, meta: Meta, bytes: &Bytes) -> Result<PutReply, RequestFailure> {
        let limit = self.budget * FILL_BUDGETS;
        if let Some((shared, file)) =
            self.shared.as_ref().and_then(|shared| Some((shared, shared.write(bytes)?)))
        {
            let meta = Meta { file: Some(file.name()), size: Some(file.size()), ..meta.clone() };
            let answer = self.cache.put(item, &meta, Bytes::new(), limit).await;
            let is_unread = matches!(&answer, Err(RequestFailure::Refused(refused)) if refused.refusal.code == Code::NotFound);
            if !is_unread {
                return answer;
            }
            shared.note_unread();
        }
        self.cache.put(item, &meta, bytes.clone(), limit).await
    }

    /// Tells the worker that this image can't be cached, so that it counts it.
    pub(crate) async fn reject(&self, item: &Item, granted: Granted, size: u64) {
        let meta = Meta { lease: Some(granted.lease()), size: Some(size), ..Meta::default() };
        match self.cache.put(item, &meta, Bytes::new(), self.budget).await {
            Ok(_) | Err(RequestFailure::Refused(_)) => granted.use_up(),
            Err(failure) => tracing::debug!(%failure, "a rejected image was not counted"),
        }
    }
}

/// Counts a fill as under way as long as it lives.
struct Running(IntGauge);

impl Running {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}
