//! Windows: what was counted in each interval, cut on the wall clock and published to JetStream.
//!
//! A window is the difference of two snapshots of counters that only grow, both taken under the
//! store's lock: no get is counted twice or falls between two windows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use parking_lot::Mutex;
use runtime::Bus;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wire::{Window, subject};

/// How long windows are kept while JetStream does not acknowledge them.
const KEPT: Duration = Duration::from_secs(3600);
/// How long one publication may take. A server that has just started may drop one before JetStream is there.
const PUBLISH_TIME: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The windows that JetStream has not acknowledged, the oldest first.
#[derive(Debug)]
pub(crate) struct WindowQueue {
    windows: Mutex<VecDeque<Window>>,
    /// The most windows that are kept.
    most: usize,
    lost: AtomicU64,
    /// Notified after each window that was added or acknowledged.
    changed: Notify,
}

impl WindowQueue {
    /// An empty queue for windows of `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        let most =
            usize::try_from(KEPT.as_millis() / interval.as_millis().max(1)).unwrap_or(usize::MAX).max(1);
        Self { windows: Mutex::default(), most, lost: AtomicU64::new(0), changed: Notify::new() }
    }

    /// How many windows wait for their acknowledgement.
    pub(crate) fn pending_count(&self) -> u64 {
        self.locked().len() as u64
    }

    /// How many windows were given up because too many waited.
    pub(crate) fn lost_count(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Adds a window behind all others; the oldest is given up when there are too many.
    pub(crate) fn push(&self, window: Window) {
        let mut windows = self.locked();
        if windows.len() >= self.most {
            windows.pop_front();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        windows.push_back(window);
        drop(windows);
        self.changed.notify_waiters();
    }

    fn first(&self) -> Option<Window> {
        self.locked().front().cloned()
    }

    fn acknowledged(&self, window: &Window) {
        let mut windows = self.locked();
        // The window may have been given up while its publication was under way.
        if windows.front() == Some(window) {
            windows.pop_front();
        }
        drop(windows);
        self.changed.notify_waiters();
    }

    fn locked(&self) -> parking_lot::MutexGuard<'_, VecDeque<Window>> {
        self.windows.lock()
    }

    /// Returns when no window waits for its acknowledgement any more.
    pub(crate) async fn emptied(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.pending_count() == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// Publishes the windows one after the other, each until JetStream has acknowledged it, across the lives
/// of the worker.
///
/// # Errors
/// Never by itself; ends with `shutdown`.
pub(crate) async fn publish(
    bus: Bus,
    windows: Arc<WindowQueue>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut pause = FIRST_PAUSE;
    let mut failing = false;
    loop {
        let changed = windows.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let Some(window) = windows.first() else {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = changed => continue,
            }
        };
        // A publication that is cut short here may still have arrived. JetStream then knows a second one by its id.
        let Some(published) = shutdown.run_until_cancelled(publish_one(&bus, &window)).await else {
            return Ok(());
        };
        match published {
            Ok(()) => {
                windows.acknowledged(&window);
                pause = FIRST_PAUSE;
                if failing {
                    failing = false;
                    tracing::info!(sequence = window.sequence, "JetStream acknowledges windows again");
                }
            }
            Err(error) => {
                if !failing {
                    failing = true;
                    tracing::warn!(%error, sequence = window.sequence, "JetStream has not acknowledged a window: windows are kept for an hour and sent again");
                }
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn publish_one(bus: &Bus, window: &Window) -> anyhow::Result<()> {
    anyhow::ensure!(bus.is_connected(), "not connected to NATS");
    let body = serde_json::to_vec(window)?;
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, window.message_id());
    let acknowledged = async {
        let subject = subject::window_event(&window.worker);
        bus.jetstream().publish_with_headers(subject, headers, body.into()).await?.await
    };
    timeout(PUBLISH_TIME, acknowledged).await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use time::OffsetDateTime;
    use wire::Counters;

    fn window(sequence: u64) -> Window {
        Window {
            worker: "w".into(),
            incarnation: "i".into(),
            sequence,
            interval_start: OffsetDateTime::UNIX_EPOCH,
            interval_ms: 1,
            cache_size: 0,
            capacity: 0,
            key_count: 0,
            counters: Counters::default(),
        }
    }

    #[tokio::test]
    async fn an_hour_of_windows_is_kept_and_the_oldest_are_given_up() {
        let queue = WindowQueue::new(Duration::from_secs(600));
        for sequence in 1..=8 {
            queue.push(window(sequence));
        }
        assert_eq!((queue.pending_count(), queue.lost_count()), (6, 2));
        assert_eq!(queue.first().unwrap().sequence, 3);
        queue.acknowledged(&window(2));
        assert_eq!(queue.pending_count(), 6);
        for sequence in 3..=8 {
            queue.acknowledged(&window(sequence));
        }
        queue.emptied().await;
    }
}
