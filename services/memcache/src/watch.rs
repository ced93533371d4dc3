//! Key events: published at a bounded rate while a watch is set, and almost free of cost otherwise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::Client;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire::event::{KeyEvent, KeyEventKind};
use wire::{Item, subject};

/// The most key events in one second.
pub(crate) const MAX_EVENTS_PER_SECOND: u32 = 5000;
/// Events that wait for being published; more are dropped and counted.
const QUEUE: usize = 1024;

/// The watches that are set, and the events that wait for their publication.
#[derive(Debug)]
pub(crate) struct Watch {
    worker: String,
    client: Client,
    origin: Instant,
    /// The end of the watch on each kind, in milliseconds since `origin`; 0 if it is not watched.
    until_ms: [AtomicU64; KeyEventKind::ALL.len()],
    pace: Mutex<Pace>,
    queue: mpsc::Sender<KeyEvent>,
    queued: Mutex<Option<mpsc::Receiver<KeyEvent>>>,
}

#[derive(Debug)]
struct Pace {
    second: u64,
    published: u32,
    dropped: u64,
    /// As `dropped`, but for all watches so far.
    dropped_ever: u64,
    /// The end of the watch for which `dropped` counts.
    end_ms: u64,
}

impl Pace {
    fn drop_one(&mut self) {
        self.dropped += 1;
        self.dropped_ever += 1;
    }
}

impl Watch {
    /// No kind of event is watched yet.
    pub(crate) fn new(worker: String, client: Client) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE);
        let pace = Mutex::new(Pace { second: 0, published: 0, dropped: 0, dropped_ever: 0, end_ms: 0 });
        let queued = Mutex::new(Some(queued));
        Self { worker, client, origin: Instant::now(), until_ms: Default::default(), pace, queue, queued }
    }

    /// Publishes events of `kinds` for `length` from now. A watch never shortens an earlier one.
    pub(crate) fn extend(&self, kinds: &[KeyEventKind], length: Duration) {
        let now = self.now_ms();
        let until = now + millis(length);
        {
            let mut pace = self.pace.lock();
            if pace.end_ms < now {
                pace.dropped = 0;
            }
            pace.end_ms = pace.end_ms.max(until);
        }
        for kind in kinds {
            self.until_ms[*kind as usize].fetch_max(until, Ordering::Relaxed);
        }
    }

    /// Queues an event about `item`, if its kind is watched.
    pub(crate) fn tell(&self, kind: KeyEventKind, item: &Item, bytes: u64) {
        self.tell_of(kind, item, bytes, 1, false);
    }

    /// Queues the event that a gateway has served `item` from its near cache `count` times, as it reports.
    pub(crate) fn tell_near(&self, item: &Item, bytes: u64, count: u64) {
        self.tell_of(KeyEventKind::Hit, item, bytes, count, true);
    }

    fn tell_of(&self, kind: KeyEventKind, item: &Item, bytes: u64, count: u64, near: bool) {
        let until = self.until_ms[kind as usize].load(Ordering::Relaxed);
        if until == 0 {
            return;
        }
        let now = self.now_ms();
        if until <= now {
            self.until_ms[kind as usize].store(0, Ordering::Relaxed);
            return;
        }
        let mut pace = self.pace.lock();
        if pace.second != now / 1000 {
            pace.second = now / 1000;
            pace.published = 0;
        }
        if pace.published >= MAX_EVENTS_PER_SECOND {
            pace.drop_one();
            return;
        }
        pace.published += 1;
        let event = KeyEvent {
            kind,
            key: item.key.clone(),
            variant: item.variant,
            bytes,
            count,
            near,
            worker: self.worker.clone(),
            time: OffsetDateTime::now_utc(),
            dropped_count: pace.dropped,
        };
        if self.queue.try_send(event).is_err() {
            pace.drop_one();
        }
    }

    /// How many events were dropped so far, in all watches.
    pub(crate) fn dropped_count(&self) -> u64 {
        self.pace.lock().dropped_ever
    }

    /// Publishes queued events until `shutdown`.
    ///
    /// # Errors
    /// When it is started twice.
    pub(crate) async fn publish(&self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let queued = self.queued.lock().take();
        let Some(mut queued) = queued else { anyhow::bail!("key events are published already") };
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                event = queued.recv() => event,
            };
            let Some(event) = event else { return Ok(()) };
            let body = serde_json::to_vec(&event)?;
            if let Err(error) =
                self.client.publish(subject::key_event(event.kind, &event.key), body.into()).await
            {
                // A key event is not worth a retry: its watcher sees the state of the connection.
                tracing::debug!(%error, "a key event was not published");
            }
        }
    }

    fn now_ms(&self) -> u64 {
        // One more than the elapsed time, so that 0 can mean "not watched".
        millis(self.origin.elapsed()) + 1
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
