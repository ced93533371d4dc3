//! The state that all handlers share: what they read, and the health of the parts. Changes are in [`super::change`].

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use origin::Swept;
use origin::blobs::Blobs;
use origin::identity::Identity;
use origin::images::Images;
use origin::pending::Pending;
use origin::sizes;
use origin::sweep;
use origin::ties::Ties;
use origin::variants::Variants;
use runtime::shelf;
use sql::Database;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::stats::HistoryRequest;
use wire::{Item, Span, Variant};

use crate::cache::client::CacheClient;
use crate::cache::feed::Feed;
use crate::cache::near::upkeep::Upkeep;
use crate::cache::near::{Copy, Near};
use crate::conditional::Decision;
use crate::config::Config;
use crate::error::Error;
use crate::health::{Health, Part};
use crate::image::{Asker, CacheStatus, Content, ReadFailure, ReadOutcome};
use crate::metrics::{ConnectionMetrics, Metrics};
use crate::service::fill::Filler;
use crate::service::reach::Reach;
use crate::service::read::Reader;
use crate::service::serving::Serving;
use crate::service::telling::Teller;
use crate::views::Views;
use crate::visitor::Visitor;

/// How long a part may take to say that it is there.
const HEALTH_LIMIT: Duration = Duration::from_secs(1);
/// How long a page waits for MySQL, and how long while MySQL is known to be away.
const PAGE_LIMIT: Duration = Duration::from_secs(2);
const AWAY_LIMIT: Duration = Duration::from_millis(50);
/// How often dates of deleted images are looked at that may be old enough to go.
const FORGET_EVERY: Duration = Duration::from_secs(600);

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
    pub(super) reader: Reader,
    near: Option<Arc<Near>>,
    upkeep: Option<Arc<Upkeep>>,
    pub(super) teller: Teller,
    reach: Reach,
    feed: Arc<Feed>,
    pub(super) ties: Ties,
    /// Changes on their way: they go on even if the client closes its connection.
    pub(super) changes: TaskTracker,
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

/// A copy of this gateway that may be served now.
#[derive(Debug)]
pub(crate) struct NearHit {
    pub(crate) copy: Arc<Copy>,
    pub(crate) bytes: Bytes,
    /// How long the read has taken.
    pub(crate) took: Duration,
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
        let shelf = shelf::from_setting(&config.shared_dir);
        let filler = Filler::new(cache.clone(), budget, !blobs.is_folder(), &metrics)
            .with_near(near.clone())
            .with_shared(shelf);
        let reader =
            Reader::new(cache.clone(), rows, files, variants, at_origin, own, budget, filler, &metrics);
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

    /// Reads all of `item`, from the cache where that is possible.
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::Unavailable`] when it is not cached and the origin does not answer.
    pub(crate) async fn read(&self, item: &Item, visitor: Visitor) -> Result<ReadOutcome, Error> {
        let Some(NearHit { copy, bytes, took }) =
            self.read_near(item.key.as_str(), item.variant, Instant::now())
        else {
            return self.read_far(item, Asker::of_all(visitor)).await.map_err(|failure| failure.error);
        };
        Ok(ReadOutcome {
            image: copy.image.clone(),
            content: Content::Bytes(bytes),
            decision: Decision::Whole,
            cache_status: CacheStatus::Near,
            cache_time: took,
            elapsed: took,
        })
    }

    /// Waits until no fill of `item` is under way, for half the budget of a read at most.
    pub(crate) async fn settle(&self, item: &Item) {
        self.reader.settle(item).await;
    }

    /// Reads an item from the copy of this gateway, if there is one that may be served. Only an item without one is read by
    /// [`AppState::read_far`]. `started` is when the read began.
    pub(crate) fn read_near(&self, key: &str, variant: Option<Variant>, started: Instant) -> Option<NearHit> {
        let (copy, bytes) = self.near.as_ref()?.hit(key, variant)?;
        let took = started.elapsed();
        self.metrics.count_read(CacheStatus::Near, took);
        Some(NearHit { copy, bytes, took })
    }

    /// Reads an item of which this gateway has no copy.
    ///
    /// # Errors
    /// As [`AppState::read`].
    pub(crate) async fn read_far(&self, item: &Item, asker: Asker<'_>) -> Result<ReadOutcome, ReadFailure> {
        let read = self.reader.read(item, asker).await;
        let (status, time) = match &read {
            Ok(outcome) => (outcome.cache_status, outcome.cache_time),
            Err(failure) => (failure.cache_status, failure.cache_time),
        };
        self.metrics.count_read(status, time);
        read
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

    /// Brings sizes in rows of an earlier version up to date, until the stop.
    pub(crate) fn run_sizes(
        &self,
        identity: Identity,
        shutdown: CancellationToken,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        sizes::run(identity, self.images.clone(), self.blobs.clone(), shutdown)
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
