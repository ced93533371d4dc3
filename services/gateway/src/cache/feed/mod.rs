//! The events that workers publish, passed on to all readers: one set of subscriptions a gateway, however many
//! readers there are.
//!
//! A reader that is too slow loses messages and is told how many. Nothing waits for it, and the messages that
//! are kept are bounded for all readers together.

mod keys;
mod places;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{select_all, unfold};
use futures_util::{Stream, StreamExt as _};
use runtime::Bus;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use wire::Window;
use wire::event::{Cleared, Configured};
use wire::subject;

use crate::cache::client::CacheClient;
use crate::error::Error;
use crate::visitor::Visitor;
pub(crate) use keys::{Batch, Filter, KeysEvent, Watching};
use keys::{KeyFeed, read};
pub(crate) use places::GaveWay;
use places::{Place, Places};

/// Messages that wait for the slowest reader of the statistics: minutes of them.
const NEWS_CAPACITY: usize = 64;
/// How often the connection to NATS is checked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// One message of `/events/stats`; the name of the event is [`StatsEvent::name`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum StatsEvent {
    /// Whether the gateway is connected to the bus: sent at first, and whenever that changes.
    Bus(Connected),
    /// A worker has counted a window.
    Window(Arc<Window>),
    /// A worker has put a configuration into force.
    Configured(Arc<Configured>),
    /// A worker has dropped everything, because it was asked to.
    Cleared(Arc<Cleared>),
    /// This reader was too slow for so many messages.
    Skipped(Skipped),
    /// The stream ends, because its place is needed.
    GaveWay(GaveWay),
}

/// Whether the gateway hears the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Connected {
    /// If false, no other event comes until it is true again.
    pub(crate) connected: bool,
}

/// Events that a reader did not get, because it was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Skipped {
    /// The number of events.
    pub(crate) count: u64,
}

impl StatsEvent {
    /// The name of the event on the stream.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Bus(_) => "bus",
            Self::Window(_) => "window",
            Self::Configured(_) => "configured",
            Self::Cleared(_) => "cleared",
            Self::Skipped(_) => "skipped",
            Self::GaveWay(_) => GaveWay::NAME,
        }
    }
}

/// The events from the bus, for as many readers as there are places.
#[derive(Debug)]
pub(crate) struct Feed {
    bus: Bus,
    news: broadcast::Sender<StatsEvent>,
    connected: watch::Sender<bool>,
    keys: KeyFeed,
    places: Places,
    shutdown: CancellationToken,
}

impl Feed {
    /// A feed for `places` readers at once, until the stop.
    pub(crate) fn new(cache: CacheClient, places: usize, shutdown: CancellationToken) -> Self {
        let bus = cache.bus().clone();
        let keys = KeyFeed::new(cache);
        let connected = watch::Sender::new(bus.is_connected());
        let places = Places::new(places);
        Self { bus, news: broadcast::Sender::new(NEWS_CAPACITY), connected, keys, places, shutdown }
    }

    /// Receives the workers' events and watches the connection to the bus, until the stop.
    ///
    /// # Errors
    /// When a subscription can't be made.
    pub(crate) async fn run(self: Arc<Self>) -> anyhow::Result<()> {
        let both = async { tokio::try_join!(self.hear_news(), self.keys.run()) };
        match self.shutdown.run_until_cancelled(both).await {
            Some(ended) => ended.map(|_| ()),
            None => Ok(()),
        }
    }

    async fn hear_news(&self) -> anyhow::Result<()> {
        let client = self.bus.client();
        let [windows, configured, cleared] = subject::EVENT_STREAM_SUBJECTS;
        let windows = client.subscribe(windows).await?.map(|said| read(&said).map(StatsEvent::Window));
        let configured =
            client.subscribe(configured).await?.map(|said| read(&said).map(StatsEvent::Configured));
        let cleared = client.subscribe(cleared).await?.map(|said| read(&said).map(StatsEvent::Cleared));
        let mut said = select_all([windows.boxed(), configured.boxed(), cleared.boxed()]);
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                _ = ticks.tick() => {
                    self.look();
                    continue;
                }
                event = said.next() => event,
            };
            match event {
                // It is no failure that there is no reader.
                Some(Some(event)) => drop(self.news.send(event)),
                Some(None) => {}
                // The client has gone, and all its subscriptions with it.
                None => anyhow::bail!("no more events come"),
            }
        }
    }

    fn look(&self) {
        let now = self.bus.is_connected();
        self.connected.send_if_modified(|before| std::mem::replace(before, now) != now);
    }

    /// The windows and changes from now on.
    ///
    /// # Errors
    /// [`Error::TooManyStreams`].
    pub(crate) fn stats(&self, visitor: Visitor) -> Result<impl Stream<Item = StatsEvent> + use<>, Error> {
        let mut connected = self.connected.subscribe();
        connected.mark_changed();
        let viewer = StatsViewer {
            place: Some(self.places.take(visitor)?),
            news: self.news.subscribe(),
            connected,
            shutdown: self.shutdown.clone(),
        };
        Ok(unfold(viewer, |mut viewer| async {
            let event = viewer.next().await?;
            if let Some(place) = &viewer.place {
                place.moved();
            }
            Some((event, viewer))
        }))
    }

    /// The key events that `filter` takes, from now on.
    ///
    /// # Errors
    /// [`Error::TooManyStreams`].
    pub(crate) fn keys(
        &self,
        filter: Filter,
        visitor: Visitor,
    ) -> Result<impl Stream<Item = KeysEvent> + use<>, Error> {
        let viewer = self.keys.viewer(self.places.take(visitor)?, filter, self.shutdown.clone());
        Ok(unfold(viewer, |mut viewer| async {
            let event = viewer.next().await?;
            Some((event, viewer))
        }))
    }
}

/// One reader of the statistics.
struct StatsViewer {
    /// `None` once the place was given to another reader: then the stream ends.
    place: Option<Place>,
    news: broadcast::Receiver<StatsEvent>,
    connected: watch::Receiver<bool>,
    shutdown: CancellationToken,
}

impl StatsViewer {
    async fn next(&mut self) -> Option<StatsEvent> {
        let place = self.place.as_ref()?;
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            () = place.given_away() => {
                self.place = None;
                Some(StatsEvent::GaveWay(GaveWay::WORDS))
            }
            Ok(()) = self.connected.changed() => {
                Some(StatsEvent::Bus(Connected { connected: *self.connected.borrow_and_update() }))
            }
            event = self.news.recv() => match event {
                Ok(event) => Some(event),
                Err(RecvError::Lagged(count)) => Some(StatsEvent::Skipped(Skipped { count })),
                Err(RecvError::Closed) => None,
            },
            else => None,
        }
    }
}
