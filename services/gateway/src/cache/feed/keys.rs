//! Key events: asked for while there are readers, and passed on in batches.
//!
//! The worker publishes them only for as long as it was asked to. So the question is asked again and again, for
//! the kinds that any reader wants. When the last reader leaves, nothing is asked and nothing subscribed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use wire::event::{KeyEvent, KeyEventKind};
use wire::inspect::{WatchReply, WatchRequest};
use wire::subject;

use super::places::{GaveWay, Place};
use crate::cache::client::CacheClient;

const KINDS: usize = KeyEventKind::ALL.len();
/// How long the worker is asked to publish, and how often it is asked again: often enough that a worker that has
/// just taken over is asked within a second.
const WATCH_S: u32 = 5;
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Key events that wait for the slowest reader: more than a second of the most that a worker publishes.
const EVENT_CAPACITY: usize = 8192;
/// How often a reader gets a batch of events.
const BATCH_EVERY: Duration = Duration::from_millis(250);
/// The batches over which the rate is an average: two seconds.
const RATE_BATCHES: u32 = 8;
/// The most events that a batch shows one by one.
const MOST_SHOWN: usize = 50;

/// One message of `/events/keys`; the name of the event is [`KeysEvent::name`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum KeysEvent {
    /// Whether a worker publishes key events: sent at first, and whenever that changes.
    Watch(Watching),
    /// The events since the batch before.
    Keys(Batch),
    /// The stream ends, because its place is needed.
    GaveWay(GaveWay),
}

impl KeysEvent {
    /// The name of the event on the stream.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Watch(_) => "watch",
            Self::Keys(_) => "keys",
            Self::GaveWay(_) => GaveWay::NAME,
        }
    }
}

/// The data of the event `watch` of `/events/keys`: whether a worker publishes key events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = KeysWatch)]
pub(crate) struct Watching {
    /// True if a worker does.
    pub(crate) watching: bool,
    /// The worker that publishes them.
    pub(crate) worker: Option<String>,
    /// The worker's incarnation: this life of its process.
    pub(crate) incarnation: Option<String>,
    /// The most events that it publishes in a second.
    pub(crate) max_per_second: Option<u32>,
    /// The reason why no worker publishes them; nothing while the first question has no answer yet.
    pub(crate) reason: Option<String>,
}

impl Watching {
    fn asking() -> Self {
        Self { watching: false, worker: None, incarnation: None, max_per_second: None, reason: None }
    }

    fn not(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::asking() }
    }
}

impl From<WatchReply> for Watching {
    fn from(reply: WatchReply) -> Self {
        Self {
            watching: true,
            worker: Some(reply.worker),
            incarnation: Some(reply.incarnation),
            max_per_second: Some(reply.max_per_second),
            reason: None,
        }
    }
}

/// The data of the event `keys` of `/events/keys`: the events of a quarter of a second, on the keys that the reader
/// wants to see.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = KeysBatch)]
pub(crate) struct Batch {
    /// The newest events, up to 50, the oldest first.
    #[schema(value_type = Vec<KeyEvent>)]
    pub(crate) events: Vec<Arc<KeyEvent>>,
    /// How often each kind happened since the batch before, including the events that are not shown.
    pub(crate) counts: Counts,
    /// How often all kinds together happened in a second, on average over the last two.
    pub(crate) rate_per_s: f64,
    /// Events of any kind that the worker has left out since the stream began, because there were too many.
    pub(crate) dropped_by_worker: u64,
    /// Events of any kind that the gateway has left out since the stream began, because they were read too slowly.
    pub(crate) dropped_by_gateway: u64,
}

/// The number of events of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = KeyEventCounts)]
pub(crate) struct Counts {
    hit: u64,
    miss: u64,
    put: u64,
    evicted: u64,
    invalidated: u64,
    rejected: u64,
}

impl Counts {
    fn add(&mut self, event: &KeyEvent) {
        let count = match event.kind {
            KeyEventKind::Hit => &mut self.hit,
            KeyEventKind::Miss => &mut self.miss,
            KeyEventKind::Put => &mut self.put,
            KeyEventKind::Evicted => &mut self.evicted,
            KeyEventKind::Invalidated => &mut self.invalidated,
            KeyEventKind::Rejected => &mut self.rejected,
        };
        *count += event.count;
    }

    fn sum(&self) -> u64 {
        self.hit + self.miss + self.put + self.evicted + self.invalidated + self.rejected
    }
}

/// The key events that a reader wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// The kinds of events; at least one.
    pub(crate) kinds: Vec<KeyEventKind>,
    /// The beginning of the keys that the events are about.
    pub(crate) prefix: String,
}

impl Filter {
    fn takes(&self, event: &KeyEvent) -> bool {
        self.kinds.contains(&event.kind) && event.key.as_str().starts_with(&self.prefix)
    }
}

/// Key events for all readers that want some.
#[derive(Debug)]
pub(super) struct KeyFeed {
    cache: CacheClient,
    events: broadcast::Sender<Arc<KeyEvent>>,
    watching: watch::Sender<Watching>,
    /// How many readers want to see each kind.
    wanted: watch::Sender<[usize; KINDS]>,
}

impl KeyFeed {
    pub(super) fn new(cache: CacheClient) -> Self {
        Self {
            cache,
            events: broadcast::Sender::new(EVENT_CAPACITY),
            watching: watch::Sender::new(Watching::asking()),
            wanted: watch::Sender::new([0; KINDS]),
        }
    }

    /// Has the worker publish key events, and passes them on, whenever a reader wants some.
    ///
    /// # Errors
    /// When the subscription can't be made.
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        let mut wanted = self.wanted.subscribe();
        loop {
            wanted.wait_for(is_any).await?;
            self.watching.send_replace(Watching::asking());
            let mut events = self.cache.bus().client().subscribe(subject::ALL_KEY_EVENTS).await?;
            tokio::select! {
                // The client has gone, and all its subscriptions with it.
                () = self.pass_on(&mut events) => anyhow::bail!("no more key events come"),
                () = self.keep_asking() => {}
                left = wanted.wait_for(|wanted| !is_any(wanted)) => drop(left?),
            }
        }
    }

    async fn pass_on(&self, events: &mut Subscriber) {
        while let Some(message) = events.next().await {
            if let Some(event) = read(&message) {
                // It is no failure that the last reader has just left.
                drop(self.events.send(event));
            }
        }
    }

    async fn keep_asking(&self) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let now = *wanted.borrow_and_update();
            let kinds = KeyEventKind::ALL.into_iter().filter(|kind| now[*kind as usize] > 0).collect();
            let watching = match self.cache.watch(&WatchRequest { seconds: WATCH_S, kinds }).await {
                Ok(reply) => reply.into(),
                Err(error) => Watching::not(error.message()),
            };
            self.watching.send_if_modified(|before| std::mem::replace(before, watching.clone()) != watching);
            tokio::select! {
                () = sleep(ASK_EVERY) => {}
                // At once, if a reader wants to see another kind.
                _ = wanted.wait_for(|wanted| asks_for_more(wanted, &now)) => {}
            }
        }
    }

    /// A reader from now on.
    pub(super) fn viewer(&self, place: Place, filter: Filter, shutdown: CancellationToken) -> KeysViewer {
        let (events, mut watching) = (self.events.subscribe(), self.watching.subscribe());
        watching.mark_changed();
        let mut ticks = interval(BATCH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        KeysViewer {
            place: Some(place),
            _interest: Interest::new(&self.wanted, filter.kinds.clone()),
            filter,
            events,
            watching,
            ticks,
            recent: VecDeque::from([0; RATE_BATCHES as usize]),
            dropped: Dropped::default(),
            shutdown,
        }
    }
}

fn is_any(wanted: &[usize; KINDS]) -> bool {
    wanted.iter().any(|count| *count > 0)
}

fn asks_for_more(wanted: &[usize; KINDS], asked: &[usize; KINDS]) -> bool {
    wanted.iter().zip(asked).any(|(wanted, asked)| *wanted > 0 && *asked == 0)
}

/// A reader's interest in these kinds, until it is dropped.
#[derive(Debug)]
struct Interest {
    wanted: watch::Sender<[usize; KINDS]>,
    kinds: Vec<KeyEventKind>,
}

impl Interest {
    fn new(wanted: &watch::Sender<[usize; KINDS]>, kinds: Vec<KeyEventKind>) -> Self {
        wanted.send_modify(|wanted| kinds.iter().for_each(|kind| wanted[*kind as usize] += 1));
        Self { wanted: wanted.clone(), kinds }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.wanted.send_modify(|wanted| self.kinds.iter().for_each(|kind| wanted[*kind as usize] -= 1));
    }
}

/// One reader of key events.
#[derive(Debug)]
pub(super) struct KeysViewer {
    /// `None` once the place was given to another reader: then the stream ends.
    place: Option<Place>,
    _interest: Interest,
    filter: Filter,
    events: broadcast::Receiver<Arc<KeyEvent>>,
    watching: watch::Receiver<Watching>,
    ticks: Interval,
    /// How many events there were in each of the last batches.
    recent: VecDeque<u64>,
    dropped: Dropped,
    shutdown: CancellationToken,
}

impl KeysViewer {
    /// The next message, when there is something to say; `None` at the stop.
    pub(super) async fn next(&mut self) -> Option<KeysEvent> {
        loop {
            let place = self.place.as_ref()?;
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                () = place.given_away() => {
                    self.place = None;
                    return Some(KeysEvent::GaveWay(GaveWay::WORDS));
                }
                changed = self.watching.changed() => match changed {
                    Ok(()) => return Some(KeysEvent::Watch(self.watching.borrow_and_update().clone())),
                    Err(_) => return None,
                },
                _ = self.ticks.tick() => {}
            }
            if let Some(batch) = self.batch() {
                self.place.as_ref()?.moved();
                return Some(KeysEvent::Keys(batch));
            }
        }
    }

    /// The events since the batch before. `None` when nothing happens and the rate says so already.
    fn batch(&mut self) -> Option<Batch> {
        let was_moving = self.recent.iter().any(|count| *count > 0);
        let mut shown = VecDeque::with_capacity(MOST_SHOWN);
        let mut counts = Counts::default();
        let before = self.dropped.clone();
        loop {
            match self.events.try_recv() {
                Ok(event) => {
                    self.dropped.see(&event);
                    if self.filter.takes(&event) {
                        counts.add(&event);
                        if shown.len() == MOST_SHOWN {
                            shown.pop_front();
                        }
                        shown.push_back(event);
                    }
                }
                Err(TryRecvError::Lagged(count)) => self.dropped.by_gateway += count,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.recent.pop_front();
        self.recent.push_back(counts.sum());
        let happened: u64 = self.recent.iter().sum();
        let seconds = BATCH_EVERY.as_secs_f64() * f64::from(RATE_BATCHES);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate_per_s = happened as f64 / seconds;
        (was_moving || happened > 0 || self.dropped != before).then(|| Batch {
            events: shown.into(),
            counts,
            rate_per_s,
            dropped_by_worker: self.dropped.by_worker,
            dropped_by_gateway: self.dropped.by_gateway,
        })
    }
}

/// The counts of events that were left out since a reader began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Dropped {
    by_worker: u64,
    by_gateway: u64,
    /// The worker's last count: it counts since its watch began, which other readers may have asked for earlier.
    said: Option<u64>,
}

impl Dropped {
    fn see(&mut self, event: &KeyEvent) {
        let before = self.said.replace(event.dropped_count).unwrap_or(event.dropped_count);
        // Another worker, or another watch, begins at zero.
        self.by_worker += event.dropped_count.checked_sub(before).unwrap_or(event.dropped_count);
    }
}

/// The contents of a message, if they can be read.
pub(super) fn read<T: DeserializeOwned>(message: &Message) -> Option<Arc<T>> {
    match serde_json::from_slice(&message.payload) {
        Ok(said) => Some(Arc::new(said)),
        Err(error) => {
            tracing::warn!(subject = %message.subject, %error, "an event of a worker could not be read and was left out");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use time::OffsetDateTime;
    use wire::Key;

    fn event(dropped_count: u64) -> KeyEvent {
        KeyEvent {
            kind: KeyEventKind::Hit,
            key: Key::new("a/cat").unwrap(),
            variant: None,
            bytes: 1,
            count: 1,
            near: false,
            worker: "w".into(),
            time: OffsetDateTime::UNIX_EPOCH,
            dropped_count,
        }
    }

    #[test]
    fn what_the_worker_left_out_is_counted_from_where_a_reader_began() {
        let mut dropped = Dropped::default();
        for said in [7, 7, 9, 0, 4] {
            dropped.see(&event(said));
        }
        assert_eq!(dropped.by_worker, 2 + 4);
    }

    #[test]
    fn a_filter_takes_kinds_and_a_prefix() {
        let filter = |kind, prefix: &str| Filter { kinds: vec![kind], prefix: prefix.into() };
        assert!(filter(KeyEventKind::Hit, "").takes(&event(0)));
        assert!(filter(KeyEventKind::Hit, "a/").takes(&event(0)));
        assert!(!filter(KeyEventKind::Hit, "b").takes(&event(0)));
        assert!(!filter(KeyEventKind::Miss, "").takes(&event(0)));
    }

    #[test]
    fn only_a_kind_that_was_not_asked_for_is_asked_for_at_once() {
        assert!(asks_for_more(&[0, 1, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0]));
        assert!(!asks_for_more(&[2, 0, 0, 0, 0, 0], &[1, 1, 0, 0, 0, 0]));
        assert!(!asks_for_more(&[0; KINDS], &[1, 0, 0, 0, 0, 0]));
    }
}
