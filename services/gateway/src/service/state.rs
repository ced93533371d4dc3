//! The state that all handlers share, and its operations: read, store, delete, ask for health.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use origin::ImageRow;
use origin::OriginId;
use origin::Swept;
use origin::blobs::Blobs;
use origin::blobs::unavailable;
use origin::identity::Identity;
use origin::images::{Change, Images};
use origin::pending::{Note, Pending};
use origin::sweep;
use origin::ties::Ties;
use origin::upload::{self, Staged, UploadLimits, discard};
use origin::variants::Variants;
use sql::Database;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::inspect::{ClearReply, InvalidateReply};
use wire::stats::HistoryRequest;
use wire::{Item, Key, Span, Tag};

use crate::cache::client::CacheClient;
use crate::cache::feed::Feed;
use crate::cache::near::upkeep::Upkeep;
use crate::cache::near::{Copy, Near};
use crate::conditional::WriteConditions;
use crate::config::Config;
use crate::error::Error;
use crate::health::{Health, Part};
use crate::image::{Choose, Portion, ReadFailure, ReadOutcome};
use crate::metrics::{ConnectionMetrics, Metrics};
use crate::service::reach::Reach;
use crate::service::read::Reader;
use crate::service::serving::Serving;
use crate::service::telling::Teller;
use crate::views::Views;

/// How long a part may take to say that it is there.
const HEALTH_LIMIT: Duration = Duration::from_secs(1);
/// How long a page waits for MySQL, and how long while MySQL is known to be away.
const PAGE_LIMIT: Duration = Duration::from_secs(2);
const AWAY_LIMIT: Duration = Duration::from_millis(50);
/// How often dates of deleted images are looked at that may be old enough to go.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// How many files are removed at once when everything is deleted.
const REMOVALS_AT_ONCE: usize = 16;

/// Everything that a handler needs. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Shared>);

/// The contents of an [`AppState`], which all its clones share.
pub(crate) struct Shared {
    /// When the parts were asked last, and their answer.
    health: tokio::sync::Mutex<Option<(Instant, Health)>>,
    /// The settings.
    pub(crate) config: Config,
    /// When this gateway was started.
    pub(crate) started: SystemTime,
    /// The page templates.
    pub(crate) views: Views,
    /// The rows of the images.
    pub(crate) images: Images,
    /// The memcache worker and the recorder.
    pub(crate) cache: CacheClient,
    pub(crate) blobs: Blobs,
    pub(crate) metrics: Metrics,
    reader: Reader,
    near: Option<Arc<Near>>,
    upkeep: Option<Arc<Upkeep>>,
    teller: Teller,
    reach: Reach,
    feed: Arc<Feed>,
    ties: Ties,
    /// Changes on their way: they go on even if the client closes its connection.
    changes: TaskTracker,
}

impl Deref for AppState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl fmt::Debug for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppState").finish_non_exhaustive()
    }
}

/// An image that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its row as it is now.
    pub(crate) row: ImageRow,
    /// Whether nothing was stored under the key before.
    pub(crate) created: bool,
}

impl AppState {
    /// The state on connections that are open; and the copies that are to be renewed, unless the near cache is off.
    ///
    /// # Errors
    /// When the metrics can't be registered, or the near cache can't be made.
    #[expect(clippy::too_many_arguments, reason = "it is called once, with all that there is")]
    pub(crate) fn new(
        config: Config,
        views: Views,
        blobs: Blobs,
        database: Database,
        cache: CacheClient,
        feed: Arc<Feed>,
        connections: &ConnectionMetrics,
        ties: Ties,
    ) -> anyhow::Result<(Self, Option<mpsc::Receiver<Arc<Copy>>>)> {
        let images = Images::new(database.clone());
        let serving = Serving::new(cache.own().clone());
        let metrics = Metrics::new(connections)?;
        // With no capacity it is off, and nothing asks for leases.
        let (near, to_renew) = match config.near_cache_bytes() {
            0 => (None, None),
            bytes => {
                let (near, to_renew) = Near::new(bytes)?;
                (Some(near), Some(to_renew))
            }
        };
        let upkeep = near.clone().map(|near| Arc::new(Upkeep::new(near, cache.clone())));
        let turns = config.max_requests as usize;
        let variants = Variants::new(blobs.clone(), ties.clone(), config.max_image_pixels(), turns / 4);
        let (rows, files, budget) = (images.clone(), blobs.clone(), config.cache_budget());
        let (own, at_origin) = (ties.clone(), turns * 3 / 8);
        let reader = Reader::new(cache.clone(), rows, files, variants, at_origin, own, budget, &metrics);
        let reader = reader.with_near(near.clone());
        let reach = Reach::default();
        let teller = Teller::new(cache.clone(), serving, Pending::new(database), reach.clone());
        let state = Self(Arc::new(Shared {
            config,
            started: SystemTime::now(),
            views,
            images,
            cache,
            blobs,
            metrics,
            reader,
            near,
            upkeep,
            teller,
            reach,
            feed,
            ties,
            changes: TaskTracker::new(),
            health: tokio::sync::Mutex::default(),
        }));
        Ok((state, to_renew))
    }

    /// The upkeep of the near cache, unless that is off.
    pub(crate) fn near_upkeep(&self) -> Option<Arc<Upkeep>> {
        self.upkeep.clone()
    }

    /// The near cache, unless it is off.
    pub(crate) fn near(&self) -> Option<&Arc<Near>> {
        self.near.as_ref()
    }

    /// The events that workers publish.
    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Reads the image under `key`, from the cache where that is possible. `held` is the tag of the
    /// bytes that the asker has already.
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::Unavailable`] when it is not cached and the origin does not answer.
    pub(crate) async fn read(&self, key: &Key, held: Option<Tag>) -> Result<ReadOutcome, Error> {
        self.read_portion(&key.clone().into(), held, &|_| Portion::All).await.map_err(|failure| failure.error)
    }

    /// As [`AppState::read`], also of variants, for a client that may need less than all of it.
    pub(crate) async fn read_portion(
        &self,
        item: &Item,
        held: Option<Tag>,
        choose: Choose<'_>,
    ) -> Result<ReadOutcome, ReadFailure> {
        let read = self.reader.read(item, held, choose).await;
        let (status, time) = match &read {
            Ok(outcome) => (outcome.cache_status, outcome.cache_time),
            Err(failure) => (failure.cache_status, failure.cache_time),
        };
        self.metrics.count_read(status, time);
        read
    }

    /// The limits of an upload, in bytes and in pixels.
    pub(crate) fn upload_limits(&self) -> UploadLimits {
        UploadLimits { max_bytes: self.config.max_image_bytes(), max_pixels: self.config.max_image_pixels() }
    }

    /// Takes in the body of an upload, as [`upload::receive`] does, if anything may be stored.
    pub(crate) async fn receive(
        &self,
        body: impl Stream<Item = Result<Bytes, Error>>,
    ) -> Result<Staged, Error> {
        self.ties.may_change()?;
        let received = upload::receive(&self.blobs, self.upload_limits(), body).await;
        if let Err(Error::Unavailable { .. }) = &received {
            self.ties.look_soon();
        }
        received
    }

    /// Stores a received image under `key`, if `conditions` hold, and tells the cache. It goes on even if the
    /// client closes its connection.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`]; [`Error::StillTelling`] when it is stored and the cache may not know
    /// it yet; [`Error::Unavailable`].
    pub(crate) async fn store(
        &self,
        key: Key,
        staged: Staged,
        conditions: WriteConditions,
    ) -> Result<Stored, Error> {
        let state = self.clone();
        self.see_through(async move { state.store_now(&key, staged, &conditions).await }).await
    }

    async fn store_now(
        &self,
        key: &Key,
        staged: Staged,
        conditions: &WriteConditions,
    ) -> Result<Stored, Error> {
        let id = self.ties.may_change()?;
        let size = staged.image()?.size;
        let location = staged.image()?.location.clone();
        let Change { note, outcome } = match self.images.put(key, staged.image()?, conditions).await {
            Ok(change) => change,
            Err(failed) => {
                if failed.may_have_committed {
                    // A row may name the file. If none does, the sweep finds it.
                    staged.keep();
                }
                return Err(failed.error.into());
            }
        };
        let written = match outcome {
            Ok(written) => written,
            Err(unmet) => return self.tell(&note, "", Err(unmet.into())).await,
        };
        staged.keep();
        // The file may have been taken away between its last byte and the row, and a row without a file is no stored
        // image.
        let (told, held) = tokio::join!(self.teller.tell(&note), self.holds(&location, id));
        if told {
            self.teller.forget(note, &self.changes);
        }
        if let Err(error) = held {
            self.ties.look_soon();
            // It is rarely reached, and large.
            return Err(Box::pin(self.take_back(key, &location, written.previous, error)).await);
        }
        self.metrics.count_upload(size);
        self.reader.expect(&written.row.key, size);
        let created = written.previous.is_none();
        if let Some(previous) = written.previous {
            self.discard_later(previous.location);
        }
        if !told {
            return Err(Error::StillTelling { done: "the image is stored, but not yet confirmed" });
        }
        Ok(Stored { created, row: written.row })
    }

    /// Makes sure that the file that a row names now is at `location`, and puts it back there if that is possible.
    async fn holds(&self, location: &str, id: OriginId) -> Result<(), Error> {
        if self.blobs.holds(location, id).await.map_err(|error| unavailable(&error))? {
            return Ok(());
        }
        if self.blobs.put_back(location).await.map_err(|error| unavailable(&error))?
            && self.blobs.holds(location, id).await.map_err(|error| unavailable(&error))?
        {
            return Ok(());
        }
        Err(Error::Unavailable {
            part: "the image store",
            reason: "the file of this image was gone before the upload could be answered".to_owned(),
        })
    }

    /// Gives a key back its previous image, because it is not certain that the file of the new one is there. Returns
    /// the error to answer with.
    async fn take_back(&self, key: &Key, location: &str, previous: Option<ImageRow>, error: Error) -> Error {
        let note = match self.images.take_back(key, location, previous.as_ref()).await {
            Ok(Some(note)) => note,
            // Another upload has replaced it already.
            Ok(None) => return error,
            Err(failed) => {
                Error::from(failed.error).log();
                return error;
            }
        };
        // The file may be there all the same, behind a store that does not answer.
        self.discard_later(location.to_owned());
        if self.teller.tell(&note).await {
            self.teller.forget(note, &self.changes);
        }
        match error {
            Error::Unavailable { part, reason } => {
                Error::Unavailable { part, reason: format!("{reason}; nothing was changed") }
            }
            error => error,
        }
    }

    /// Deletes the image under `key`, if `conditions` hold, and tells the cache.
    ///
    /// # Errors
    /// [`Error::NoImage`]; otherwise as for storing.
    pub(crate) async fn delete(&self, key: &Key, conditions: WriteConditions) -> Result<(), Error> {
        let (state, key) = (self.clone(), key.clone());
        self.see_through(async move {
            state.ties.may_change()?;
            let change = state.images.delete(&key, &conditions).await.map_err(|failed| failed.error)?;
            let outcome = change.outcome.map_err(Error::from);
            let outcome = outcome.and_then(|deleted| deleted.ok_or(Error::NoImage(key)));
            let outcome = outcome.map(|location| state.discard_later(location));
            state.tell(&change.note, "the image is deleted, but not yet confirmed", outcome).await
        })
        .await
    }

    /// Deletes all images, and says how many there were.
    ///
    /// # Errors
    /// [`Error::StillTelling`] when they are deleted and the cache may not know it yet;
    /// [`Error::Unavailable`] when MySQL fails; some of them may be deleted by then.
    pub(crate) async fn delete_all(&self) -> Result<u64, Error> {
        let state = self.clone();
        self.see_through(async move {
            state.ties.may_change()?;
            let mut after = Vec::new();
            let mut count = 0;
            loop {
                let batch = state.images.delete_batch(&after).await.map_err(|failed| failed.error)?;
                count += batch.locations.len() as u64;
                futures_util::stream::iter(&batch.locations)
                    .for_each_concurrent(REMOVALS_AT_ONCE, |location| discard(&state.blobs, location))
                    .await;
                match batch.last {
                    Some(last) => after = last,
                    None => {
                        let outcome = Ok(count);
                        return state
                            .tell(&batch.note, "all images are deleted, but not yet confirmed", outcome)
                            .await;
                    }
                }
            }
        })
        .await
    }

    /// Drops everything that is cached; the images stay stored. `by` goes into the history.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no worker that serves answers; a refusal in the worker's own words.
    pub(crate) async fn clear_cache(&self, by: &str) -> Result<ClearReply, Error> {
        self.teller.clear(by).await
    }

    /// Drops what is cached under `key`, the copies of gateways included; the image stays stored.
    ///
    /// # Errors
    /// As [`AppState::clear_cache`].
    pub(crate) async fn drop_cached(&self, key: &Key) -> Result<InvalidateReply, Error> {
        self.teller.drop_cached(key).await
    }

    /// Tells the cache of a change, and returns `outcome` once it has acknowledged.
    async fn tell<T>(&self, note: &Note, done: &'static str, outcome: Result<T, Error>) -> Result<T, Error> {
        if self.teller.tell(note).await {
            self.teller.forget(note.clone(), &self.changes);
            return outcome;
        }
        let done = if outcome.is_ok() {
            done
        } else {
            "nothing was changed by this request, and an earlier change is not yet confirmed"
        };
        Err(Error::StillTelling { done })
    }

    /// Runs a change to its end, even if the client closes its connection.
    async fn see_through<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        match self.changes.spawn(change).await {
            Ok(done) => done,
            Err(error) => Err(Error::Internal(anyhow::Error::new(error).context("a change broke off"))),
        }
    }

    fn discard_later(&self, location: String) {
        let blobs = self.blobs.clone();
        self.changes.spawn(async move { discard(&blobs, &location).await });
    }

    /// Waits for the changes on their way.
    pub(crate) async fn finish_changes(&self) {
        self.changes.close();
        self.changes.wait().await;
    }

    /// Tells the cache of changes that were left behind, until the stop.
    pub(crate) fn run_teller(
        &self,
        shutdown: CancellationToken,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        self.teller.clone().run(shutdown)
    }

    /// Removes the dates of deleted images that are not needed any more, until the stop.
    pub(crate) fn run_forgetting(
        &self,
        shutdown: CancellationToken,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let images = self.images.clone();
        async move {
            while shutdown.run_until_cancelled(sleep(FORGET_EVERY)).await.is_some() {
                while let Some(Ok(true)) = shutdown.run_until_cancelled(images.forget_dates()).await {}
            }
            Ok(())
        }
    }

    /// Sweeps away files that no row names, until the stop.
    pub(crate) fn run_sweep(
        &self,
        identity: Identity,
        shutdown: CancellationToken,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let rules = sweep::Rules {
            age: sweep::AGE,
            trash: self.config.origin.trash(),
            max_percent: self.config.sweep_max_percent,
        };
        sweep::run(identity, self.images.clone(), self.blobs.clone(), rules, self.ties.clone(), shutdown)
    }

    /// The result of the last sweep, if there was one.
    pub(crate) fn swept(&self) -> Option<Swept> {
        self.ties.swept()
    }

    /// How many changes the cache has not acknowledged yet.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when MySQL does not answer.
    pub(crate) async fn pending_count(&self) -> Result<u64, Error> {
        self.teller.pending_count().await
    }

    /// MySQL's answer to a page. A page waits for it for [`PAGE_LIMIT`] at most, and only for [`AWAY_LIMIT`] while
    /// MySQL is known to be away: then the page says so.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it has not answered in time; any other failure of `question`.
    pub(crate) async fn for_page<T, E: Into<Error>>(
        &self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        let limit = if self.reach.is_away() { AWAY_LIMIT } else { PAGE_LIMIT };
        let answer = match timeout(limit, question).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => {
                let reason = format!("no answer within {} ms", limit.as_millis());
                Err(Error::Unavailable { part: "MySQL", reason })
            }
        };
        // An answer in time is enough to know that it is back.
        self.reach.note(&answer);
        answer
    }

    /// The recorder's answer to a page. It reads MySQL too, so a page hardly waits for it while MySQL is away.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it has not answered in time; any other failure of `question`.
    pub(crate) async fn history_for_page<T>(
        &self,
        question: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if !self.reach.is_away() {
            return question.await;
        }
        timeout(AWAY_LIMIT, question).await.unwrap_or_else(|_| {
            Err(Error::Unavailable { part: "the recorder", reason: "it can’t read MySQL".to_owned() })
        })
    }

    /// Asks all parts whether they are there. Takes at most two seconds.
    ///
    /// One caller at a time asks the parts, and the answer is for all callers that came before it began. So many probes
    /// and pages ask the parts no more often than a few.
    pub(crate) async fn health(&self) -> Health {
        let came = Instant::now();
        let mut last = self.0.health.lock().await;
        match &*last {
            Some((began, health)) if *began >= came => health.clone(),
            _ => {
                let began = Instant::now();
                let health = self.ask_for_health().await;
                *last = Some((began, health.clone()));
                health
            }
        }
    }

    async fn ask_for_health(&self) -> Health {
        let refusal = self.cache.bus().refusal().or_else(|| self.cache.own().refusal());
        let nats = if let Some(refusal) = refusal {
            Part::missing(refusal.to_string())
        } else if self.cache.bus().is_connected() && self.cache.own().is_connected() {
            Part::there("connected")
        } else {
            Part::missing("not connected; the gateway keeps trying")
        };
        let memcache = within(async {
            let stats = self.cache.stats().await?;
            Ok(if stats.serving {
                Part::there(format!("{} serves", stats.worker))
            } else {
                Part::missing(format!("{} has just connected and does not serve yet", stats.worker))
            })
        });
        let recorder = within(self.history_for_page(async {
            let asked = HistoryRequest { range: Span::from_millis(1).ok(), limit: 1, compare: None };
            self.cache.config_history(&asked).await?;
            Ok(Part::there("answers"))
        }));
        let mysql = within(self.for_page(async {
            self.images.probe().await?;
            self.images.probe_writing().await?;
            Ok::<_, origin::Error>(Part::there("answers, with its tables"))
        }));
        let (memcache, recorder, mysql) = tokio::join!(memcache, recorder, mysql);
        let store = match self.ties.health(self.config.sweep_max_percent) {
            Ok(message) => Part::there(message),
            Err(message) => Part::missing(message),
        };
        Health { nats, memcache, recorder, mysql, store }
    }
}

async fn within(question: impl Future<Output = Result<Part, Error>>) -> Part {
    match timeout(HEALTH_LIMIT, question).await {
        Ok(Ok(part)) => part,
        Ok(Err(Error::Unavailable { reason, .. })) => Part::missing(reason),
        Ok(Err(error)) => Part::missing(error.message()),
        Err(_) => Part::missing(format!("no answer within {} ms", HEALTH_LIMIT.as_millis())),
    }
}
