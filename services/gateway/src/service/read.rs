//! The look-aside read: the cache first, then the origin; and its outcome.
//!
//! Each read is counted by the cache once, so that the cache's own counts are those of the reads. Only while
//! too many bytes are on their way from it, the cache is not asked at all. A miss comes with a lease for one
//! asker at a time. That asker alone fills, with bytes from a row that was read after the lease had arrived
//! (design rules 1 and 2).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use origin::ImageRow;
use origin::blobs::{BlobError, Blobs};
use origin::dates::Modified;
use origin::images::Images;
use origin::ties::Ties;
use origin::upload::Uploaded;
use origin::variants::{PATIENCE, Rendition, VariantError, Variants, tag_of};
use prometheus::{IntCounter, IntGauge};
use runtime::bus::{Reply, RequestFailure};
use runtime::held::hold;
use sniff::Format;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout_at;
use tokio_util::task::TaskTracker;
use wire::reply::Code;
use wire::{Item, Key, Meta, Tag, Variant};

use crate::cache::client::CacheClient;
use crate::cache::granted::Granted;
use crate::cache::near::{Asking, Copy};
use crate::cache::room::Room;
use crate::cache::shared::{LARGE_BYTES, Shared};
use crate::conditional::Decision;
use crate::error::Error;
use crate::fair::{FairPlace, FairPlaces};
use crate::image::{Asker, CacheStatus, Content, Decide, ImageMeta, ReadFailure, ReadOutcome};
use crate::metrics::Metrics;
use crate::service::fill::{Fill, Filler, Place};
use crate::service::flight::Flights;
use crate::visitor::Visitor;

/// Bytes for the headers of a fill and of a hit, which the bus carries besides the image.
const HEADER_ROOM: usize = 512;
/// Up to this size in bytes, an image that is not filled is read at once; a larger one is read as it is sent.
const SMALL_BYTES: u64 = 256 << 10;
/// How often a row is read again because its file was gone. Each time, another upload of that key has
/// been stored in between.
const MAX_ROUNDS: u32 = 20;
/// The fewest places at the origin that are kept for addresses with few of them: one of them is for another address.
const FEWEST_KEPT: usize = 3;
/// How long a read waits for a place at the origin.
const BURST_LIMIT: Duration = Duration::from_secs(1);
/// How long a read waits for the cache when the origin does not answer: a late answer is better than none.
const LAST_RESORT: Duration = Duration::from_secs(2);
/// The most memory for bytes from the origin, in kilobytes, until the clients have taken them. When there
/// are more, a miss is streamed and not filled. So misses of many large images at once don't exhaust the
/// memory.
const FILL_KILOBYTES: usize = 128 << 10;

/// Reads images for all requests of this process.
#[derive(Debug)]
pub(crate) struct Reader {
    cache: CacheClient,
    images: Images,
    blobs: Blobs,
    variants: Variants,
    /// Places for reads at the origin, and as many for reads that wait for one there. Together they are fewer than
    /// the requests that are worked on at once, so that hits and pages are served while the origin is slow.
    at_the_origin: Semaphore,
    /// Further places there, for addresses that have few of these. Their reads don't wait behind those of others.
    kept_at_the_origin: FairPlaces,
    /// The places of all three kinds, of which no address has all.
    to_the_origin: FairPlaces,
    ties: Ties,
    budget: Duration,
    flights: Flights<(ImageMeta, Bytes)>,
    fills: Arc<Semaphore>,
    room: Room,
    filler: Arc<Filler>,
    origin_reads: IntCounter,
    waiting_reads: IntGauge,
    /// Whether the last read found the cache out of reach: only a change is logged.
    without_cache: AtomicBool,
}

/// The file that the bytes of an item are in.
#[derive(Debug)]
struct Source {
    location: String,
    image: ImageMeta,
    /// The bytes, where they had to be read already.
    bytes: Option<Bytes>,
}

/// The place of a read at the origin, which is free again when this is dropped.
struct AtTheOrigin<'a> {
    _admitted: FairPlace<'a>,
    _common: Option<SemaphorePermit<'a>>,
    _kept: Option<FairPlace<'a>>,
}

/// A read that is not answered yet.
struct Asked<'a> {
    item: &'a Item,
    /// The tag of the bytes that the asker has already.
    held: Option<Tag>,
    decide: Decide<'a>,
    /// The moment until which the read waits for a variant.
    patience: Instant,
    /// The bytes of the upload that this read follows.
    uploaded: Option<HeldUpload>,
}

/// The bytes of an upload, which count among those of the origin that are in memory.
#[derive(Debug)]
pub(crate) struct HeldUpload {
    uploaded: Uploaded,
    _room: OwnedSemaphorePermit,
}

/// The cache's answer to a read.
enum Looked {
    Hit(ImageMeta, Content),
    Absent(Absent),
}

impl Looked {
    fn bypass(status: CacheStatus) -> Self {
        Self::Absent(Absent::Bypass(status))
    }
}

/// Why an answer of the cache has no image.
enum Absent {
    /// Nothing is resident, and this asker is to fill it.
    Leased(Granted),
    /// Nothing is resident, and another asker is to fill it.
    Missed,
    /// The read is served from the origin, without the cache.
    Bypass(CacheStatus),
}

impl Absent {
    /// The cache's part in a read that fails after this answer.
    fn status(&self) -> CacheStatus {
        match self {
            Self::Leased(_) | Self::Missed => CacheStatus::Miss,
            Self::Bypass(status) => *status,
        }
    }
}

/// An image that was found, and the decision about the read.
struct Found {
    image: ImageMeta,
    content: Content,
    status: CacheStatus,
    decision: Decision,
}

impl Found {
    fn new(image: ImageMeta, content: Content, status: CacheStatus, decide: Decide<'_>) -> Self {
        let decision = match content {
            Content::Fresh => Decision::NotModified,
            Content::Bytes(_) | Content::Stream(_) => decide(&image),
        };
        Self { image, content, status, decision }
    }

    fn hit(image: ImageMeta, content: Content, decide: Decide<'_>) -> Self {
        Self::new(image, content, CacheStatus::Hit, decide)
    }
}

impl Reader {
    /// A reader of these parts. At most `at_the_origin` reads are at the origin at once, and as many wait for that.
    #[expect(clippy::too_many_arguments, reason = "it is called once, with all that a read may need")]
    pub(crate) fn new(
        cache: CacheClient,
        images: Images,
        blobs: Blobs,
        variants: Variants,
        at_the_origin: usize,
        ties: Ties,
        budget: Duration,
        filler: Filler,
        metrics: &Metrics,
    ) -> Self {
        Self {
            cache,
            images,
            blobs,
            variants,
            at_the_origin: Semaphore::new((at_the_origin - at_the_origin / 4).max(1)),
            kept_at_the_origin: FairPlaces::new((at_the_origin / 4).max(FEWEST_KEPT)),
            to_the_origin: FairPlaces::new(2 * at_the_origin),
            ties,
            budget,
            flights: Flights::default(),
            fills: Arc::new(Semaphore::new(FILL_KILOBYTES)),
            room: Room::default(),
            filler: Arc::new(filler),
            origin_reads: metrics.origin_reads(),
            waiting_reads: metrics.waiting_reads(),
            without_cache: AtomicBool::new(false),
        }
    }

    /// Reads `item` for an asker whom no copy of this gateway serves.
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::Unavailable`] when it is not cached and the origin does not answer.
    pub(crate) async fn read(
        &self,
        item: &Item,
        Asker { visitor, held, decide }: Asker<'_>,
    ) -> Result<ReadOutcome, ReadFailure> {
        let started = Instant::now();
        if self.variants.are_busy_with(item) {
            let (cache_status, cache_time) = (CacheStatus::Busy, started.elapsed());
            return Err(ReadFailure { error: Error::VariantsBusy, cache_status, cache_time });
        }
        if self.filler.settle(item).await
            && let Some(found) = self.read_copy(item, decide)
        {
            let Found { image, content, status: cache_status, decision } = found;
            let elapsed = started.elapsed();
            return Ok(ReadOutcome { image, content, decision, cache_status, cache_time: elapsed, elapsed });
        }
        let looked = self.look(item, held, self.budget).await;
        let cache_time = started.elapsed();
        let failed = |error, cache_status| ReadFailure { error, cache_status, cache_time };
        let found = match looked {
            Looked::Hit(image, content) => Found::hit(image, content, decide),
            Looked::Absent(absent) => {
                // Readers of variants have turns of their own.
                let _at_the_origin = match item.variant {
                    Some(_) => None,
                    None => Some(
                        self.go_to_the_origin(visitor)
                            .await
                            .ok_or_else(|| failed(Error::Busy, CacheStatus::Busy))?,
                    ),
                };
                let status = absent.status();
                let asked = Asked { item, held, decide, patience: started + PATIENCE, uploaded: None };
                self.read_absent(&asked, absent).await.map_err(|error| failed(error, status))?
            }
        };
        let Found { image, content, status: cache_status, decision } = found;
        Ok(ReadOutcome { image, content, decision, cache_status, cache_time, elapsed: started.elapsed() })
    }

    /// Waits until no fill of `item` is under way, for half the budget at most.
    pub(crate) async fn settle(&self, item: &Item) {
        self.filler.settle(item).await;
    }

    /// The copy that a fill has brought to the near cache of this gateway.
    fn read_copy(&self, item: &Item, decide: Decide<'_>) -> Option<Found> {
        let (copy, bytes) = self.filler.near()?.hit(item.key.as_str(), item.variant)?;
        Some(Found::new(copy.image.clone(), Content::Bytes(bytes), CacheStatus::Near, decide))
    }

    /// Reads what the cache has not answered.
    async fn read_absent(&self, asked: &Asked<'_>, absent: Absent) -> Result<Found, Error> {
        match absent {
            Absent::Leased(lease) => self.fill(asked, lease, None).await,
            Absent::Missed => match self.share(asked).await {
                Some((image, bytes)) => {
                    Ok(Found::new(image, Content::Bytes(bytes), CacheStatus::Collapsed, asked.decide))
                }
                None => self.origin(asked, CacheStatus::Miss).await,
            },
            Absent::Bypass(status) => match self.origin(asked, status).await {
                Err(error @ Error::Unavailable { .. }) if status == CacheStatus::TimedOut => {
                    match self.look(asked.item, asked.held, LAST_RESORT).await {
                        Looked::Hit(image, content) => Ok(Found::hit(image, content, asked.decide)),
                        Looked::Absent(_) => Err(error),
                    }
                }
                found => found,
            },
        }
    }

    /// A place at the origin, for which a read waits [`BURST_LIMIT`] at most. As many reads may wait as there are
    /// places.
    async fn go_to_the_origin(&self, visitor: Visitor) -> Option<AtTheOrigin<'_>> {
        let admitted = self.to_the_origin.take(visitor)?;
        let (mut common, mut kept) = (self.at_the_origin.try_acquire().ok(), None);
        if common.is_none() {
            kept = self.kept_at_the_origin.take(visitor);
        }
        if common.is_none() && kept.is_none() {
            common = Some(tokio::time::timeout(BURST_LIMIT, self.at_the_origin.acquire()).await.ok()?.ok()?);
        }
        Some(AtTheOrigin { _admitted: admitted, _common: common, _kept: kept })
    }

    /// Asks the cache within `limit`.
    async fn look(&self, item: &Item, held: Option<Tag>, limit: Duration) -> Looked {
        let asking_since = Instant::now();
        let asking = self.filler.near().map(|near| near.ask(item));
        // With a near cache the bytes are wanted even if the asker holds them: the next asker may not.
        let tag = asking.as_ref().map_or(held, Asking::tag);
        let answer = match self.ask(item, tag, limit).await {
            Err(Some(RequestFailure::Refused(refused))) if refused.meta.size.is_some() => {
                // Another gateway has stored a larger image there. The second question has room for it, and
                // only that one is counted.
                self.room.note(item, refused.meta.size.unwrap_or_default());
                self.ask(item, tag, limit.saturating_sub(asking_since.elapsed())).await
            }
            answer => answer,
        };
        let (looked, trouble) = match answer {
            Ok(reply) => match asking.as_ref().and_then(Asking::copy).filter(|_| reply.meta.fresh) {
                Some(copy) => (self.confirmed(copy.clone(), asking, &reply.meta), None),
                None => match hit(reply, asking) {
                    Some((image, content)) => (Looked::Hit(image, content), None),
                    None => (
                        Looked::bypass(CacheStatus::Unavailable),
                        Some("it answered a hit without type and tag".to_owned()),
                    ),
                },
            },
            Err(None) => return Looked::bypass(CacheStatus::Busy),
            Err(Some(RequestFailure::Refused(refused))) => match refused.refusal.code {
                Code::NotFound => (Looked::Absent(self.missed(item, &refused.meta)), None),
                // A still larger image was stored between the two questions.
                Code::TooLarge if refused.meta.size.is_some() => (Looked::bypass(CacheStatus::Busy), None),
                Code::TooLarge => (Looked::bypass(CacheStatus::TooLarge), None),
                _ => (Looked::bypass(CacheStatus::Unavailable), Some(refused.refusal.message)),
            },
            Err(Some(failure @ RequestFailure::TimedOut { .. })) => {
                (Looked::bypass(CacheStatus::TimedOut), Some(failure.to_string()))
            }
            Err(Some(failure)) => (Looked::bypass(CacheStatus::Unavailable), Some(failure.to_string())),
        };
        self.note_trouble(trouble);
        looked
    }

    /// A miss, with the lease that the worker's answer hands out.
    fn missed(&self, item: &Item, answer: &Meta) -> Absent {
        if let Some(shared) = self.filler.shared() {
            shared.note(answer);
        }
        match answer.lease {
            Some(lease) => Absent::Leased(Granted::new(self.cache.bus().clone(), item.clone(), lease)),
            None => {
                self.filler.note_unfilled();
                Absent::Missed
            }
        }
    }

    /// Serves the copy that is here: the worker has confirmed that it is still the right image.
    fn confirmed(&self, copy: Arc<Copy>, asking: Option<Asking<'_>>, answer: &Meta) -> Looked {
        if let (Some(asking), Some(granted_ms)) = (asking, answer.granted_ms) {
            asking.renew(Duration::from_millis(granted_ms));
        }
        match self.filler.near().and_then(|near| near.lend(&copy)) {
            Some(bytes) => Looked::Hit(copy.image.clone(), Content::Bytes(bytes)),
            None => Looked::bypass(CacheStatus::Busy),
        }
    }

    /// Asks the cache within `limit`, of which half may pass in waiting for room. `Err(None)` if there was none.
    async fn ask(
        &self,
        item: &Item,
        tag: Option<Tag>,
        limit: Duration,
    ) -> Result<Reply, Option<RequestFailure>> {
        let asking = Instant::now();
        // A header costs a tenth of a small image's rate.
        let shared = self.filler.shared().filter(|_| !self.room.is_smaller(item, LARGE_BYTES));
        let shelf = shared.and_then(Shared::folder);
        let near = self.filler.near().map(|near| near.holder());
        // A lease is of no use where its fill would be dropped.
        let look = item.variant.is_none() && self.filler.is_busy();
        let mut asked = Meta { tag, near, shelf, look, ..Meta::default() };
        let mut reply = self.ask_once(item, &asked, limit).await?;
        if reply.meta.file.is_some() {
            // The entry has left the cache meanwhile, or somebody has taken its file away.
            (asked.shelf, asked.again) = (None, true);
            reply = self.ask_once(item, &asked, limit.saturating_sub(asking.elapsed())).await?;
        }
        if !reply.meta.fresh {
            self.room.note(item, reply.payload.len() as u64);
        }
        Ok(reply)
    }

    async fn ask_once(
        &self,
        item: &Item,
        asked: &Meta,
        limit: Duration,
    ) -> Result<Reply, Option<RequestFailure>> {
        let asking = Instant::now();
        let most = self.cache.bus().max_payload();
        let reserved = self.room.reserve(item, most, limit / 2).await.ok_or(None)?;
        let limit = limit.saturating_sub(asking.elapsed());
        let asked = (*asked != Meta::default()).then_some(asked);
        Ok(reserved.ask(self.cache.get(item), asked, self.filler.shared(), limit).await?)
    }

    /// Logs when the cache goes away and when it is back, not each read in between.
    fn note_trouble(&self, trouble: Option<String>) {
        match trouble {
            Some(reason) => {
                if !self.without_cache.swap(true, Ordering::Relaxed) {
                    tracing::warn!(reason, "reads bypass the cache: it can't be used");
                }
            }
            None => {
                if self.without_cache.load(Ordering::Relaxed)
                    && self.without_cache.swap(false, Ordering::Relaxed)
                {
                    tracing::info!("reads use the cache again");
                }
            }
        }
    }

    /// Reads the origin for all reads that miss this item, and fills the cache, in `place` if it has that already.
    async fn fill(&self, asked: &Asked<'_>, granted: Granted, place: Option<Place>) -> Result<Found, Error> {
        let item = asked.item;
        let flight = self.flights.lead(item);
        let mut rounds = Rounds::until(asked.patience);
        let (image, bytes, permit) = loop {
            // The lease is here already, so a change that this row does not show yet will void it.
            let source = match self.source(item, &mut rounds).await {
                Err(error @ Error::NoImage(_)) => {
                    // Its lease is void once there is an image.
                    granted.use_up();
                    return Err(error);
                }
                source => source?,
            };
            let size = source.image.size;
            if self.is_too_large(size) {
                drop(flight);
                self.filler.reject(item, granted, size).await;
                return self.finish(asked, source, CacheStatus::TooLarge, rounds).await;
            }
            let Some(permit) = self.fill_permit(size) else {
                drop((flight, granted));
                return self.finish(asked, source, CacheStatus::Miss, rounds).await;
            };
            let uploaded = asked.uploaded.as_ref().and_then(|held| held.uploaded.bytes_of(&source.location));
            let read = match uploaded {
                Some(bytes) => Ok(bytes),
                None => self.read_source(&source).await,
            };
            match read {
                Ok(bytes) => break (source.image, bytes, permit),
                Err(error) => self.again(&mut rounds, &source.location, error).await?,
            }
        };
        let lent = hold(bytes.clone(), permit);
        let fill = Fill {
            item: item.clone(),
            granted,
            image: image.clone(),
            bytes,
            lent: lent.clone(),
            flight: flight.close(),
            place,
        };
        let status = self.filler.fill(fill).await;
        Ok(Found::new(image, Content::Bytes(lent), status, asked.decide))
    }

    /// The image that another read of this process fills the cache with, if there is one under way.
    async fn share(&self, asked: &Asked<'_>) -> Option<(ImageMeta, Bytes)> {
        let passenger = self.flights.join(asked.item)?;
        let _waiting = Waiting::new(&self.waiting_reads);
        if asked.item.variant.is_none() {
            return passenger.arrive().await;
        }
        let _may_wait = self.variants.wait().ok()?;
        timeout_at(asked.patience.into(), passenger.arrive()).await.ok()?
    }

    /// Reads the origin for one asker alone.
    async fn origin(&self, asked: &Asked<'_>, status: CacheStatus) -> Result<Found, Error> {
        let mut rounds = Rounds::until(asked.patience);
        let source = self.source(asked.item, &mut rounds).await?;
        self.finish(asked, source, status, rounds).await
    }

    /// Gets the bytes of a file, and reads the row again as long as the file is gone (design rule 5).
    async fn finish(
        &self,
        asked: &Asked<'_>,
        mut source: Source,
        status: CacheStatus,
        mut rounds: Rounds,
    ) -> Result<Found, Error> {
        loop {
            let size = source.image.size;
            let decision = (asked.decide)(&source.image);
            let opened = match &decision {
                Decision::Whole => match self.fill_permit(size).filter(|_| size <= SMALL_BYTES) {
                    Some(permit) => {
                        let read = self.read_source(&source).await;
                        read.map(|bytes| Content::Bytes(hold(bytes, permit)))
                    }
                    None => self.open(&source, 0..size).await,
                },
                Decision::Part(range) => self.open(&source, range.clone()).await,
                Decision::Head
                | Decision::NotModified
                | Decision::PreconditionFailed
                | Decision::NotSatisfiable => Ok(Content::Stream(Body::empty())),
            };
            match opened {
                Ok(content) => return Ok(Found { image: source.image, content, status, decision }),
                Err(error) => self.again(&mut rounds, &source.location, error).await?,
            }
            source = self.source(asked.item, &mut rounds).await?;
        }
    }

    async fn open(&self, source: &Source, range: Range<u64>) -> Result<Content, BlobError> {
        self.blobs
            .open(&source.location, source.image.size, range)
            .await
            .map(|pieces| Content::Stream(Body::from_stream(pieces)))
    }

    async fn read_source(&self, source: &Source) -> Result<Bytes, BlobError> {
        match &source.bytes {
            Some(bytes) => Ok(bytes.clone()),
            None => self.blobs.read(&source.location, source.image.size).await,
        }
    }

    /// The file that `item` has now. A variant is made if it has none, from the file of the row alone, so that
    /// its bytes are no older than the row (design rule 2).
    async fn source(&self, item: &Item, rounds: &mut Rounds) -> Result<Source, Error> {
        loop {
            self.origin_reads.inc();
            let row = self.images.get(&item.key).await?.ok_or_else(|| Error::NoImage(item.key.clone()))?;
            let source = match item.variant {
                None => Source::from(row),
                Some(variant) => match self.variants.get(&row, variant, rounds.patience.into()).await {
                    Ok(None) => Source::from(row),
                    Ok(Some(rendition)) => Source::of_variant(&row, variant, rendition),
                    Err(VariantError::Gone(location)) => {
                        self.again(rounds, &row.location, BlobError::Gone(location)).await?;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            self.room.note(item, source.image.size);
            return Ok(source);
        }
    }

    /// Returns if it makes sense to read the row again after its file was not there, and fails with `error` if not.
    async fn again(&self, rounds: &mut Rounds, location: &str, error: BlobError) -> Result<(), Error> {
        if self.variants.forget(location) && matches!(error, BlobError::Damaged { .. }) {
            return Ok(());
        }
        if !matches!(error, BlobError::Gone(_)) {
            return Err(error.into());
        }
        match rounds.note(location) {
            Gone::Perhaps => Ok(()),
            Gone::FromRow if self.ties.may_change().is_ok() => {
                rounds.is_put_back = true;
                if !self.blobs.put_back(location).await? {
                    return Err(error.into());
                }
                tracing::info!(location, "a file was put back from the trash, because a row names it");
                Ok(())
            }
            Gone::FromRow | Gone::ForGood => Err(error.into()),
        }
    }

    /// Whether the bus carries an image of `size` bytes, and a fill would not be dropped at this moment. A drop is counted.
    pub(crate) fn may_refill(&self, size: u64) -> bool {
        if self.is_too_large(size) {
            return false;
        }
        self.filler.note_unfilled();
        !self.filler.is_busy()
    }

    /// Keeps the bytes of an upload for [`Reader::refill`], if there is room for them.
    pub(crate) fn hold(&self, uploaded: Uploaded, size: u64) -> Option<HeldUpload> {
        Some(HeldUpload { uploaded, _room: self.fill_permit(size)? })
    }

    /// Fills the cache with the image that `item` has now, under the lease that came with the acknowledgement of an upload.
    ///
    /// As after a miss, the row is read after the lease has come (design rule 2): another upload may have replaced the image
    /// meanwhile. The bytes of `uploaded` are used only if the row names their file.
    pub(crate) async fn refill(&self, item: &Item, granted: Granted, uploaded: Option<HeldUpload>) {
        let Some(place) = self.filler.place() else { return };
        let Ok(_at_the_origin) = self.at_the_origin.try_acquire() else {
            self.filler.note_dropped();
            return;
        };
        let decide = |_: &ImageMeta| Decision::Head;
        let asked =
            Asked { item, held: None, decide: &decide, patience: Instant::now() + PATIENCE, uploaded };
        match self.fill(&asked, granted, Some(place)).await {
            Ok(found) => tracing::debug!(status = found.status.as_str(), "an upload fills the cache"),
            Err(error) => tracing::debug!(%error, "an upload does not fill the cache"),
        }
    }

    /// The variants of the images.
    pub(crate) fn variants(&self) -> &Variants {
        &self.variants
    }

    /// The tasks that fill the cache, which a stop waits for.
    pub(crate) fn fill_tasks(&self) -> &TaskTracker {
        self.filler.tasks()
    }

    /// Waits for the fills that are under way.
    pub(crate) async fn finish_fills(&self) {
        self.filler.finish().await;
    }

    /// Notes how large the image is that is about to be stored under `key`.
    pub(crate) fn expect(&self, key: &Key, size: u64) {
        self.room.note(&key.clone().into(), size);
    }

    fn is_too_large(&self, size: u64) -> bool {
        usize::try_from(size).map_or(true, |size| size + HEADER_ROOM > self.cache.bus().max_payload())
    }

    /// The permit to hold `size` bytes from the origin, if there is room.
    fn fill_permit(&self, size: u64) -> Option<OwnedSemaphorePermit> {
        let kilobytes = u32::try_from(size.div_ceil(1024)).ok()?;
        self.fills.clone().try_acquire_many_owned(kilobytes).ok()
    }
}

/// Counts a read as waiting, until it goes on or is given up.
struct Waiting<'a>(&'a IntGauge);

impl<'a> Waiting<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// How often one read has found a file gone.
#[derive(Debug)]
struct Rounds {
    count: u32,
    last: Option<String>,
    /// Whether the file was looked for in the trash already.
    is_put_back: bool,
    /// The moment until which the read waits for a variant.
    patience: Instant,
}

impl Rounds {
    fn until(patience: Instant) -> Self {
        Self { count: 0, last: None, is_put_back: false, patience }
    }

    /// Notes that the file `location` of a row is gone, and says what that means.
    fn note(&mut self, location: &str) -> Gone {
        let (before, count) = (self.last.replace(location.to_owned()), self.count);
        self.count += 1;
        match before {
            _ if count >= MAX_ROUNDS => Gone::ForGood,
            Some(before) if before == location && self.is_put_back => Gone::ForGood,
            Some(before) if before == location => Gone::FromRow,
            _ => Gone::Perhaps,
        }
    }
}

/// The conclusion from a file that is gone although a row names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// The row may have moved on: it is read again (design rule 5).
    Perhaps,
    /// The row was read again and still names it: it may lie in the trash, if the database was restored.
    FromRow,
    /// It is not in the trash either.
    ForGood,
}

impl From<ImageRow> for Source {
    fn from(row: ImageRow) -> Self {
        Self { image: ImageMeta::from(&row), location: row.location, bytes: None }
    }
}

impl Source {
    fn of_variant(row: &ImageRow, variant: Variant, rendition: Rendition) -> Self {
        let image = ImageMeta {
            format: rendition.format,
            tag: tag_of(row.tag, variant),
            size: rendition.size,
            ..ImageMeta::from(row)
        };
        Self { location: rendition.location, image, bytes: rendition.bytes }
    }
}

/// The image of a hit, if the reply names a known format and a tag.
fn hit(reply: Reply, asking: Option<Asking<'_>>) -> Option<(ImageMeta, Content)> {
    let granted = reply.meta.granted_ms.map(Duration::from_millis);
    let image = ImageMeta {
        format: Format::from_content_type(&reply.meta.content_type?)?,
        tag: reply.meta.tag?,
        modified: reply.meta.modified_s.and_then(Modified::from_wire),
        size: reply.payload.len() as u64,
    };
    if reply.meta.fresh {
        return Some((image, Content::Fresh));
    }
    if let (Some(asking), Some(granted)) = (asking, granted) {
        asking.keep_copied(&image, &reply.payload, granted);
    }
    Some((image, Content::Bytes(reply.payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_needs_type_and_tag() {
        let meta = Meta {
            content_type: Some("image/png".into()),
            tag: Some(Tag([7; 32])),
            modified_s: Some(5),
            ..Meta::default()
        };
        let payload = Bytes::from_static(b"abc");
        let whole = hit(Reply { payload: payload.clone(), meta: meta.clone() }, None);
        assert!(matches!(whole, Some((image, Content::Bytes(bytes))) if image.size == 3 && bytes == "abc"));
        let fresh = hit(Reply { payload: Bytes::new(), meta: Meta { fresh: true, ..meta.clone() } }, None);
        assert!(matches!(fresh, Some((image, Content::Fresh)) if image.size == 0));
        assert!(
            hit(Reply { payload: payload.clone(), meta: Meta { tag: None, ..meta.clone() } }, None).is_none()
        );
        assert!(hit(Reply { payload, meta: Meta { content_type: None, ..meta } }, None).is_none());
    }
}
