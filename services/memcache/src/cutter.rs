//! Cuts windows on the wall clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use wire::{Counters, Window};

use crate::worker::Worker;

/// Cuts windows out of the worker's counters.
#[derive(Debug)]
pub(crate) struct Cutter {
    worker: Arc<Worker>,
    interval: Duration,
    last: Mutex<Last>,
}

/// The end of the last window.
#[derive(Debug)]
struct Last {
    sequence: u64,
    counted: Counters,
    ended: Instant,
    ended_at: OffsetDateTime,
}

impl Cutter {
    /// A cutter whose first window begins now.
    pub(crate) fn new(worker: Arc<Worker>, interval: Duration) -> Self {
        let (ended, ended_at) = (Instant::now(), OffsetDateTime::now_utc());
        let last = Last { sequence: 0, counted: Counters::default(), ended, ended_at };
        Self { worker, interval, last: Mutex::new(last) }
    }

    /// Cuts a window at each multiple of the interval on the wall clock, until the stop. The last one is left to the caller,
    /// who knows when nothing is counted any more.
    ///
    /// # Errors
    /// Never by itself; ends with `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            let pause = until_boundary(OffsetDateTime::now_utc(), self.interval);
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
            self.cut();
        }
    }

    /// Cuts a window.
    pub(crate) fn cut(&self) {
        let mut last = self.last.lock();
        let snapshot = self.worker.store().snapshot();
        let (now, now_at) = (Instant::now(), OffsetDateTime::now_utc());
        last.sequence += 1;
        let window = Window {
            worker: self.worker.name.clone(),
            incarnation: self.worker.incarnation.clone(),
            sequence: last.sequence,
            interval_start: last.ended_at,
            // Measured by the monotonic clock, so that a step of the wall clock falsifies no rate.
            interval_ms: u64::try_from((now - last.ended).as_millis()).unwrap_or(u64::MAX),
            cache_size: snapshot.cache_size,
            capacity: snapshot.capacity,
            key_count: snapshot.key_count,
            counters: snapshot.counters.since(&last.counted),
        };
        last.counted = snapshot.counters;
        (last.ended, last.ended_at) = (now, now_at);
        self.worker.windows.push(window);
        self.worker.let_files_go();
    }
}

/// The time from `now` to the next multiple of `interval` since 1970; more than zero.
fn until_boundary(now: OffsetDateTime, interval: Duration) -> Duration {
    let interval = i128::try_from(interval.as_nanos()).unwrap_or(i128::MAX).max(1);
    let left = interval - now.unix_timestamp_nanos().rem_euclid(interval);
    Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn boundaries_are_multiples_of_the_interval() {
        let at = |ms: i64| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
        let five = Duration::from_secs(5);
        assert_eq!(until_boundary(at(1_764_000_001_000), five), Duration::from_secs(4));
        assert_eq!(until_boundary(at(1_764_000_005_000), five), five);
        assert_eq!(until_boundary(at(-1), five), Duration::from_millis(1));
    }
}
