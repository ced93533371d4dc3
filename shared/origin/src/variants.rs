//! The variants of images: made when they are first asked for, and kept beside the original.
//!
//! The file of a variant has the name of the original's file with the variant behind it. Such a name is given to one
//! image only and never again, so a variant can't outlive the image that it was made of. Once a row names another file,
//! the variant is no longer asked for, and it is removed with the original or swept away. So it needs no row, and it is
//! as fresh as the row that gave the original's name.
//!
//! Making a variant takes long compared with the other work of a gateway, and anybody may ask for many. So variants
//! that are not made yet wait in a queue of their own. The threads that make them leave one processor free and run at
//! the lowest priority. A reader that finds the queue full is told to come again, and so is a reader that has waited
//! for long. Images that can't be made narrower are remembered, so that they cost nothing a second time.
//!
//! Variants may also be made right after an upload. Those are made one by one, while no reader waits for one.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, available_parallelism};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use quick_cache::sync::Cache;
use runtime::held::hold;
use sha2::{Digest as _, Sha256};
use sniff::{Format, Limits};
use thumbnail::Picture;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use wire::{Item, Tag, Variant};

use crate::blobs::{BlobError, Blobs};
use crate::error::Error;
use crate::names::{MAKING, location_of};
use crate::rows::ImageRow;
use crate::ties::Ties;

/// How many variants may wait to be made.
const QUEUE: usize = 64;
/// The most variants that are made at once, however many processors there are: each holds its original in memory.
const MOST_AT_ONCE: usize = 8;
/// How many images may wait for the variants that are made of them after their upload.
const LATER: usize = 256;
/// How often these look whether a reader waits.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a reader waits for a variant.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The memory for all images that are decoded at once, in bytes for each pixel of the largest allowed image.
const BYTES_A_PIXEL: u64 = 5;
/// The memory on top of that, so that small limits leave room for the fixed needs of a decoder.
const SPARE_KILOBYTES: u64 = 32 << 10;
/// How many kilobytes of files are read at once to find out whether they are whole.
const EXAMINED_KILOBYTES: u32 = 64 << 10;
/// How many files are remembered as whole; that takes two megabytes.
const KNOWN: usize = 8192;
/// The time after which a refused reader is told to come again (`Retry-After`).
const COME_AGAIN: Duration = Duration::from_secs(1);
/// How many variants with refused readers are remembered; that takes half a megabyte.
const TURNED_AWAY: usize = 4096;
/// How many images that can't be made narrower are remembered; that takes a megabyte.
const REMEMBERED: usize = 4096;
/// The length to which a remembered reason is cut, in bytes.
const REASON_BYTES: usize = 300;

/// Finds and makes variants. Clones share it.
#[derive(Debug, Clone)]
pub struct Variants(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    blobs: Blobs,
    ties: Ties,
    max_pixels: u64,
    /// The files that are being made or wait for that, each with the sender of its outcome.
    under_way: Mutex<HashMap<String, watch::Sender<Option<Outcome>>>>,
    queue: Arc<Semaphore>,
    /// Permits to wait for a variant. Each waiting reader occupies a request, and some must be left for other requests.
    readers: Semaphore,
    workers: Arc<Semaphore>,
    /// Permits of images whose variants are made without a reader, and the turn of the one that is at work.
    later: Arc<Semaphore>,
    turn: tokio::sync::Mutex<()>,
    /// Permits for the memory of decoding, one for each kilobyte.
    memory: Arc<Semaphore>,
    all_memory: u32,
    refused: Mutex<Refused>,
    /// Format and size of files that are known to be whole. A HEAD request reads none of these files.
    known: Cache<String, (Format, u64)>,
    examined: Arc<Semaphore>,
    /// The variants whose readers were told to come again, each with the time of the last refusal.
    turned_away: Cache<Item, Instant>,
}

/// A variant; none if the image itself is narrow enough.
type Outcome = Result<Option<Rendition>, VariantError>;

/// A variant.
#[derive(Debug, Clone)]
pub struct Rendition {
    /// The name of its file.
    pub location: String,
    /// The format of its bytes.
    pub format: Format,
    /// The size in bytes.
    pub size: u64,
    /// Its bytes, where they had to be read or made.
    pub bytes: Option<Bytes>,
}

impl Rendition {
    fn with_bytes(location: &str, format: Format, bytes: Bytes) -> Self {
        Self { location: location.to_owned(), format, size: bytes.len() as u64, bytes: Some(bytes) }
    }
}

/// Why there is no variant. Every reader that waited for it gets this.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VariantError {
    /// The original's file is gone: its row names another file by now (design rule 5).
    #[error("the file {0} is gone")]
    Gone(String),
    /// The original's file is not what its row says.
    #[error("{0}")]
    Damaged(String),
    /// The storage failed.
    #[error("{part} can't be reached now: {reason}")]
    Unavailable {
        /// The part that failed.
        part: &'static str,
        /// The reason in a few words.
        reason: String,
    },
    /// The image can't be made narrower, now or later.
    #[error("{0}")]
    Refused(Arc<str>),
    /// As many readers wait for variants as may.
    #[error("as many variants are waited for as may be")]
    Busy,
    /// The variant was not made before the deadline.
    #[error("the variant is not made yet")]
    Late,
    /// Something that should not happen.
    #[error("{0:#}")]
    Other(Arc<anyhow::Error>),
}

impl VariantError {
    fn other(error: impl std::fmt::Display) -> Self {
        Self::Other(Arc::new(anyhow::anyhow!("a variant: {error}")))
    }

    fn of_original(error: BlobError) -> Self {
        if let BlobError::Gone(location) = error {
            return Self::Gone(location);
        }
        match Error::from(error) {
            Error::Unavailable { part, reason } => Self::Unavailable { part, reason },
            Error::FileMissing(reason) => Self::Damaged(reason),
            error => Self::other(error),
        }
    }
}

impl Variants {
    /// The variants of images of at most `max_pixels` pixels. At most `max_readers` requests may wait for them.
    pub fn new(blobs: Blobs, ties: Ties, max_pixels: u64, max_readers: usize) -> Self {
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        let at_once = processors.saturating_sub(1).clamp(1, MOST_AT_ONCE);
        let kilobytes = max_pixels.saturating_mul(BYTES_A_PIXEL) / 1024 + SPARE_KILOBYTES;
        let all_memory = u32::try_from(kilobytes).unwrap_or(u32::MAX);
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Inner {
            blobs,
            ties,
            max_pixels,
            under_way: Mutex::default(),
            queue: semaphore(QUEUE),
            readers: Semaphore::new(max_readers.max(1)),
            workers: semaphore(at_once),
            later: semaphore(LATER),
            turn: tokio::sync::Mutex::default(),
            memory: semaphore(all_memory as usize),
            all_memory,
            refused: Mutex::default(),
            known: Cache::new(KNOWN),
            examined: semaphore(EXAMINED_KILOBYTES as usize),
            turned_away: Cache::new(TURNED_AWAY),
        }))
    }

    /// Takes the right to wait for a variant.
    pub fn wait(&self) -> Result<tokio::sync::SemaphorePermit<'_>, TryAcquireError> {
        self.0.readers.try_acquire()
    }

    /// The variant of the image of a row; none if the image itself is not wider than the variant.
    ///
    /// # Errors
    /// [`VariantError`]; [`VariantError::Gone`] means that the row names another file by now (design rule 5).
    pub async fn get(&self, row: &ImageRow, variant: Variant, deadline: Instant) -> Outcome {
        // After it is turned upright, the image may be as wide as it was high.
        if row.width.max(row.height) <= variant.width() {
            return Ok(None);
        }
        let inner = &self.0;
        if let Some(reason) = inner.refused().reason(row.tag, variant) {
            return Err(VariantError::Refused(reason));
        }
        let location = location_of(&row.location, variant);
        if let Some(found) = inner.find(&location).await? {
            return Ok(Some(found));
        }
        let joined = match self.wait() {
            Ok(waiting) => inner.join(row, variant, location).map(|made| (waiting, made)),
            Err(_) => Err(VariantError::Busy),
        };
        let (_waiting, mut made) = joined.inspect_err(|_| {
            inner.turned_away.insert(Item { key: row.key.clone(), variant: Some(variant) }, Instant::now());
        })?;
        let outcome = match timeout_at(deadline, made.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => None,
            Err(_) => return Err(VariantError::Late),
        };
        outcome.unwrap_or_else(|| Err(VariantError::other("its making broke off")))
    }

    /// Makes variants of an image that was stored, once no reader waits for one. If very many images wait for that, it
    /// is left to the first reader.
    pub fn make_later(&self, row: &ImageRow, variants: &[Variant]) {
        if variants.is_empty() {
            return;
        }
        let Ok(place) = self.0.later.clone().try_acquire_owned() else {
            tracing::debug!(key = %row.key, "too many images wait for their variants: these are made when they are asked for");
            return;
        };
        let (all, row) = (self.clone(), row.clone());
        let variants = variants.to_vec();
        tokio::spawn(async move {
            for variant in variants {
                let _turn = all.0.turn.lock().await;
                while !all.0.is_idle() {
                    sleep(LOOK_EVERY).await;
                }
                if let Err(error) = all.get(&row, variant, Instant::now() + PATIENCE).await {
                    tracing::debug!(key = %row.key, %variant, %error, "a variant is not made after the upload");
                }
            }
            drop(place);
        });
    }

    /// Whether a reader of this variant was refused less than [`COME_AGAIN`] ago, and would be again, because the queue
    /// is still full. The answer needs neither the cache nor the database.
    pub fn are_busy_with(&self, item: &Item) -> bool {
        let inner = &self.0;
        let is_full = || inner.queue.available_permits() == 0 || inner.readers.available_permits() == 0;
        item.variant.is_some()
            && is_full()
            && inner.turned_away.get(item).is_some_and(|since| since.elapsed() < COME_AGAIN)
    }

    /// Makes the next request for the file at `location` examine it anew, since it could not be read. Returns whether
    /// it was known as the whole file of a variant.
    pub fn forget(&self, location: &str) -> bool {
        self.0.known.remove(location).is_some()
    }
}

impl Inner {
    /// The file, if it is there and whole.
    async fn find(&self, location: &str) -> Outcome {
        if let Some(known) = self.known_whole(location) {
            return Ok(Some(known));
        }
        let permit = match self.blobs.size_of(location).await {
            Ok(size) => {
                let kilobytes =
                    u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX).min(EXAMINED_KILOBYTES);
                let permit = self.examined.clone().acquire_many_owned(kilobytes).await;
                permit.map_err(VariantError::other)?
            }
            Err(BlobError::Gone(_)) => return Ok(None),
            Err(error) => return Err(VariantError::of_original(error)),
        };
        // Another task may have examined it meanwhile.
        if let Some(known) = self.known_whole(location) {
            return Ok(Some(known));
        }
        let bytes = match self.blobs.read_any(location).await {
            Ok(bytes) => hold(bytes, permit),
            Err(BlobError::Gone(_)) => return Ok(None),
            Err(error) => return Err(VariantError::of_original(error)),
        };
        match sniff::sniff_to_end(&bytes, Limits { max_pixels: u64::MAX }) {
            Ok(image) => {
                self.known.insert(location.to_owned(), (image.format, bytes.len() as u64));
                Ok(Some(Rendition::with_bytes(location, image.format, bytes)))
            }
            Err(error) => {
                tracing::warn!(location, %error, "the file of a variant is damaged: it is made again");
                Ok(None)
            }
        }
    }

    fn known_whole(&self, location: &str) -> Option<Rendition> {
        let (format, size) = self.known.get(location)?;
        Some(Rendition { location: location.to_owned(), format, size, bytes: None })
    }

    /// Whether nobody waits for a variant.
    fn is_idle(&self) -> bool {
        self.queue.available_permits() == QUEUE && self.workers.available_permits() > 0
    }

    /// Waits for a variant that is being made, or has it made.
    fn join(
        self: &Arc<Self>,
        row: &ImageRow,
        variant: Variant,
        location: String,
    ) -> Result<watch::Receiver<Option<Outcome>>, VariantError> {
        let mut under_way = self.under_way();
        if let Some(making) = under_way.get(&location) {
            return Ok(making.subscribe());
        }
        let place = self.queue.clone().try_acquire_owned().map_err(|_| VariantError::Busy)?;
        let (sender, receiver) = watch::channel(None);
        under_way.insert(location.clone(), sender.clone());
        let making = Making { inner: self.clone(), location, sender };
        tokio::spawn(making.run(row.clone(), variant, place));
        Ok(receiver)
    }

    async fn make(&self, row: &ImageRow, variant: Variant, location: &str, me: &Arc<Self>) -> Outcome {
        // It may have been made meanwhile, by another gateway too, or found to be impossible under another key.
        if let Some(found) = self.find(location).await? {
            return Ok(Some(found));
        }
        if let Some(reason) = self.refused().reason(row.tag, variant) {
            return Err(VariantError::Refused(reason));
        }
        let original = self.blobs.read(&row.location, row.size).await.map_err(VariantError::of_original)?;
        let format = row.format;
        // An image that was stored under a higher limit is still made narrower.
        let pixels = u64::from(row.width) * u64::from(row.height);
        let limits = Limits { max_pixels: self.max_pixels.max(pixels) };
        let (sender, receiver) = oneshot::channel();
        let (runtime, inner) = (Handle::current(), me.clone());
        let thread = Builder::new().name("variant".into()).spawn(move || {
            runtime::priority::step_back();
            let decode = || inner.decode(&original, format, variant, limits, &runtime);
            let decoded = catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
                let reason = format!("the pixels of the {format} image can't be decoded: the decoder failed");
                Err(VariantError::Refused(reason.into()))
            });
            // The receiver may be gone, because the process is stopping.
            let _ = sender.send(decoded);
        });
        thread.map_err(VariantError::other)?;
        let made = match receiver.await.map_err(VariantError::other)? {
            Ok(made) => made,
            Err(error) => {
                if let VariantError::Refused(reason) = &error {
                    tracing::debug!(location, %reason, "an image can't be made narrower");
                    self.refused().note(row.tag, variant, reason);
                }
                return Err(error);
            }
        };
        let Some(made) = made else { return Ok(None) };
        let bytes = Bytes::from(made.bytes);
        // A store that does not belong to the database is left as it is.
        if self.ties.may_change().is_err() {
            return Ok(Some(Rendition::with_bytes(location, made.format, bytes)));
        }
        if let Err(error) = self.blobs.put(location, bytes.clone()).await {
            let reason = error.reason();
            tracing::warn!(
                location,
                reason,
                "a variant could not be stored: it is made again when it is asked for"
            );
        }
        Ok(Some(Rendition::with_bytes(location, made.format, bytes)))
    }

    /// Decodes the image, as soon as there is enough memory for it.
    fn decode(
        &self,
        original: &[u8],
        format: Format,
        variant: Variant,
        limits: Limits,
        runtime: &Handle,
    ) -> Result<Option<thumbnail::Thumbnail>, VariantError> {
        let refused = |error: thumbnail::DecodeError| {
            let mut reason = error.to_string();
            reason.truncate(reason.floor_char_boundary(REASON_BYTES));
            VariantError::Refused(reason.into())
        };
        let picture = Picture::look(original, format, limits).map_err(refused)?;
        let kilobytes = picture.memory(variant.width()).div_ceil(1024);
        let Some(kilobytes) = u32::try_from(kilobytes).ok().filter(|needed| *needed <= self.all_memory)
        else {
            return Err(refused(picture.too_large(variant.width(), u64::from(self.all_memory) * 1024)));
        };
        let permit = runtime.block_on(self.memory.acquire_many(kilobytes)).map_err(VariantError::other)?;
        let made = picture.rendition(variant.width()).map_err(refused);
        drop(permit);
        made
    }
    fn under_way(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Option<Outcome>>>> {
        self.under_way.lock()
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock()
    }
}

/// A variant that is being made, or waits for that.
struct Making {
    inner: Arc<Inner>,
    location: String,
    sender: watch::Sender<Option<Outcome>>,
}

impl Making {
    async fn run(self, row: ImageRow, variant: Variant, place: OwnedSemaphorePermit) {
        let worker = loop {
            tokio::select! {
                biased;
                () = self.sender.closed() => if self.is_given_up() { return },
                worker = self.inner.workers.clone().acquire_owned() => break worker,
            }
        };
        drop(place);
        let outcome = self.inner.make(&row, variant, &self.location, &self.inner).await;
        drop(worker);
        // A reader that asks from now on finds the file, or the reason why there is none.
        self.inner.under_way().remove(&self.location);
        self.sender.send_replace(Some(outcome));
    }

    /// Whether no reader waits for it any more. Then it is removed, so that no reader can start to wait for it.
    fn is_given_up(&self) -> bool {
        let mut under_way = self.inner.under_way();
        let given_up = self.sender.receiver_count() == 0;
        if given_up {
            under_way.remove(&self.location);
        }
        given_up
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // The entry is removed however the making ended. An entry of another making stays: that one began after this
        // entry had been removed.
        let mut under_way = self.inner.under_way();
        if under_way.get(&self.location).is_some_and(|making| making.same_channel(&self.sender)) {
            under_way.remove(&self.location);
        }
    }
}

/// The images that can't be made narrower, by the hash of their bytes, whatever keys they have.
#[derive(Debug, Default)]
struct Refused {
    reasons: HashMap<(Tag, Variant), Arc<str>>,
    oldest_first: VecDeque<(Tag, Variant)>,
}

impl Refused {
    fn reason(&self, tag: Tag, variant: Variant) -> Option<Arc<str>> {
        self.reasons.get(&(tag, variant)).cloned()
    }

    fn note(&mut self, tag: Tag, variant: Variant, reason: &Arc<str>) {
        if self.reasons.insert((tag, variant), reason.clone()).is_none() {
            self.oldest_first.push_back((tag, variant));
        }
        while self.oldest_first.len() > REMEMBERED {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.reasons.remove(&oldest);
            }
        }
    }
}

/// The entity tag of a variant. It follows from the tag of the original, so that the original of a variant is known.
/// It changes whenever variants are made in another way ([`MAKING`]).
pub fn tag_of(original: Tag, variant: Variant) -> Tag {
    let making = format!("pixcache variant {MAKING} ");
    let hash = Sha256::new().chain_update(making).chain_update(variant.as_str());
    Tag(hash.chain_update(original.0).finalize().into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::blobs::tests::in_folder;
    use crate::dates::Dates;
    use testkit::samples::{self, Sample};
    use time::OffsetDateTime;

    const MAX_PIXELS: u64 = 100_000_000;

    fn variants(blobs: &Blobs) -> Variants {
        Variants::new(blobs.clone(), Ties::joined(), MAX_PIXELS, 100)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    async fn stored(blobs: &Blobs, sample: Sample, bytes: &'static [u8]) -> ImageRow {
        let mut writer = blobs.create();
        writer.push(Bytes::from_static(bytes)).await.unwrap();
        let written = writer.finish().await.unwrap();
        let (location, size) = (written.location, written.size);
        let now = OffsetDateTime::UNIX_EPOCH;
        ImageRow {
            key: wire::Key::new(sample.name).unwrap(),
            location,
            format: Format::from_content_type(sample.content_type).unwrap(),
            size,
            width: sample.width,
            height: sample.height,
            tag: Tag([7; 32]),
            created_at: now,
            dates: Dates { updated_at: now, earlier_at: None },
        }
    }

    fn width_of(rendition: &Rendition) -> u32 {
        sniff::sniff(rendition.bytes.as_ref().unwrap(), Limits { max_pixels: MAX_PIXELS }).unwrap().width
    }

    #[tokio::test]
    async fn a_variant_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let variants = variants(&blobs);
        let row = stored(&blobs, samples::rocket(), samples::rocket().bytes).await;
        let all =
            futures_util::future::join_all((0..4).map(|_| variants.get(&row, Variant::W160, later()))).await;
        let first = all[0].as_ref().unwrap().clone().unwrap();
        assert_eq!((width_of(&first), first.format), (160, Format::Jpeg));
        for other in all {
            assert_eq!(other.unwrap().unwrap().bytes, first.bytes);
        }
        // From now on the original is missing.
        blobs.remove(&row.location).await.unwrap();
        assert_eq!(variants.get(&row, Variant::W160, later()).await.unwrap().unwrap().bytes, first.bytes);
        let gone = variants.get(&row, Variant::W320, later()).await.unwrap_err();
        assert!(matches!(gone, VariantError::Gone(_)));
        // 640 pixels are not made wider.
        assert!(variants.get(&row, Variant::W640, later()).await.unwrap().is_none());

        blobs.remove_image(&row.location).await.unwrap();
        assert!(variants.forget(&first.location));
        assert!(variants.get(&row, Variant::W160, later()).await.is_err());
    }

    #[tokio::test]
    async fn variants_are_made_after_an_upload_while_no_reader_waits() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let variants = variants(&blobs);
        let row = stored(&blobs, samples::retina(), samples::retina().bytes).await;
        let there = |variant| folder.path().join(location_of(&row.location, variant)).exists();
        variants.make_later(&row, &[]);
        // A reader waits.
        let reader = variants.0.queue.clone().try_acquire_owned().unwrap();
        variants.make_later(&row, &[Variant::W320, Variant::W640]);
        sleep(3 * LOOK_EVERY).await;
        assert!(!there(Variant::W320) && !there(Variant::W640));
        drop(reader);
        while variants.0.later.available_permits() < LATER {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(there(Variant::W320) && there(Variant::W640) && !there(Variant::W160));
        // As many as may wait, and one more.
        let _reader = variants.0.queue.clone().try_acquire_owned().unwrap();
        for _ in 0..=LATER {
            variants.make_later(&row, &[Variant::W160]);
        }
        assert_eq!(variants.0.later.available_permits(), 0);
    }

    #[tokio::test]
    async fn a_damaged_variant_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let variants = variants(&blobs);
        let row = stored(&blobs, samples::coffee(), samples::coffee().bytes).await;
        let made = variants.get(&row, Variant::W320, later()).await.unwrap().unwrap();
        let (location, whole) = (made.location, made.bytes.unwrap());
        let path = folder.path().join(&location);
        for damaged in [&whole[..whole.len() / 2], b"", b"something else"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(
                variants.get(&row, Variant::W320, later()).await.unwrap().unwrap().bytes.unwrap(),
                whole
            );
            variants.forget(&location);
        }
        // A file known to be whole is not read for its size and format, until it turns out to be gone.
        variants.get(&row, Variant::W320, later()).await.unwrap().unwrap();
        let known = variants.get(&row, Variant::W320, later()).await.unwrap().unwrap();
        assert_eq!((known.size, known.bytes), (whole.len() as u64, None));
        std::fs::remove_file(&path).unwrap();
        assert!(variants.forget(&location) && !variants.forget(&location));
        assert_eq!(variants.get(&row, Variant::W320, later()).await.unwrap().unwrap().bytes.unwrap(), whole);
    }

    #[tokio::test]
    async fn pixels_that_can_not_be_decoded_are_an_error_and_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let variants = variants(&blobs);
        let row = stored(&blobs, samples::astronaut(), &samples::astronaut().bytes[..1000]).await;
        let error = variants.get(&row, Variant::W320, later()).await.unwrap_err();
        assert!(matches!(error, VariantError::Refused(_)), "{error}");
        assert!(!folder.path().join(location_of(&row.location, Variant::W320)).exists());
    }

    #[tokio::test]
    async fn the_queue_is_short_and_patience_ends_and_what_nobody_waits_for_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let variants = variants(&blobs);
        let row = stored(&blobs, samples::rocket(), samples::rocket().bytes).await;
        // As many as can be made at once are under way.
        let workers = variants.0.workers.clone();
        let busy = workers.acquire_many_owned(variants.0.workers.available_permits() as u32).await.unwrap();
        let soon = || Instant::now() + Duration::from_millis(10);
        assert!(matches!(variants.get(&row, Variant::W160, soon()).await, Err(VariantError::Late)));
        let given_up = async || {
            while variants.0.queue.available_permits() < QUEUE {
                tokio::task::yield_now().await;
            }
            assert!(variants.0.under_way().is_empty());
        };
        given_up().await;
        let keys = (0..QUEUE + 10).map(|number| wire::Key::new(&format!("image-{number}")).unwrap());
        let many: Vec<ImageRow> = keys
            .map(|key| ImageRow { location: format!("{}{key}", row.location), key, ..row.clone() })
            .collect();
        let ends = Instant::now() + Duration::from_millis(500);
        let asked = many.iter().map(|row| variants.get(row, Variant::W160, ends));
        let turned_away = async {
            let is_busy = |row: &ImageRow, variant| {
                variants.are_busy_with(&Item { key: row.key.clone(), variant: Some(variant) })
            };
            while many.iter().filter(|row| is_busy(row, Variant::W160)).count() < 10 {
                tokio::task::yield_now().await;
            }
            many.iter().any(|row| is_busy(row, Variant::W320))
        };
        let (answers, turned_away) = tokio::join!(futures_util::future::join_all(asked), turned_away);
        assert!(!turned_away, "nobody has asked for those");
        let count = |wanted: fn(&VariantError) -> bool| {
            answers.iter().filter(|answer| answer.as_ref().is_err_and(wanted)).count()
        };
        assert_eq!(count(|error| matches!(error, VariantError::Busy)), 10);
        assert_eq!(count(|error| matches!(error, VariantError::Late)), QUEUE);
        given_up().await;
        let last = Item { key: many[QUEUE].key.clone(), variant: Some(Variant::W160) };
        assert!(!variants.are_busy_with(&last), "there is room again");
        drop(busy);
        let made = variants.get(&row, Variant::W160, later()).await.unwrap().unwrap();
        assert_eq!(width_of(&made), 160);
        assert!(!folder.path().join(location_of(&many[0].location, Variant::W160)).exists());
        // The number of readers that may wait for one is limited too.
        let few = Variants::new(blobs.clone(), Ties::joined(), MAX_PIXELS, 1);
        let waiting = few.wait().unwrap();
        assert!(matches!(few.get(&row, Variant::W320, later()).await, Err(VariantError::Busy)));
        // A variant that is there already needs no waiting.
        assert!(few.get(&row, Variant::W160, later()).await.is_ok());
        drop(waiting);
    }

    #[tokio::test]
    async fn what_can_not_be_made_narrower_is_remembered_by_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let variants = variants(&blobs);
        let row = stored(&blobs, samples::astronaut(), &samples::astronaut().bytes[..1000]).await;
        let first = variants.get(&row, Variant::W320, later()).await.unwrap_err().to_string();
        blobs.remove(&row.location).await.unwrap();
        let other = ImageRow { location: "elsewhere".into(), ..row.clone() };
        for row in [&row, &other] {
            let again = variants.get(row, Variant::W320, later()).await.unwrap_err();
            assert!(matches!(again, VariantError::Refused(_)));
            assert_eq!(again.to_string(), first);
        }
        // Other bytes under the same key are other bytes.
        let other = ImageRow { tag: Tag([8; 32]), ..row };
        assert!(matches!(variants.get(&other, Variant::W320, later()).await, Err(VariantError::Gone(_))));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut refused = Refused::default();
        let tag = |number: usize| {
            let mut tag = [0; 32];
            tag[..8].copy_from_slice(&number.to_be_bytes());
            Tag(tag)
        };
        for number in 0..2 * REMEMBERED {
            refused.note(tag(number), Variant::W160, &"a reason".into());
            refused.note(tag(number), Variant::W160, &"another one".into());
        }
        assert_eq!((refused.reasons.len(), refused.oldest_first.len()), (REMEMBERED, REMEMBERED));
        assert!(refused.reason(tag(0), Variant::W160).is_none());
        assert_eq!(&*refused.reason(tag(2 * REMEMBERED - 1), Variant::W160).unwrap(), "another one");
    }

    #[test]
    fn each_variant_of_each_image_has_a_tag_of_its_own() {
        let tags = [Tag([1; 32]), Tag([2; 32])]
            .into_iter()
            .flat_map(|tag| Variant::ALL.map(|variant| tag_of(tag, variant).0));
        let tags: std::collections::HashSet<_> = tags.collect();
        assert_eq!(tags.len(), 8);
    }
}
