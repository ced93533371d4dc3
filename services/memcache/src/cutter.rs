//! Cuts windows on the wall clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use wire::{Counters, Window};

use crate::worker::Worker;

/// Cuts windows out of the worker's counters.
#[derive(Debug)]
pub(crate) struct Cutter {
    worker: Arc<Worker>,
    interval: Duration,
    sequence: u64,
    counted: Counters,
    began: Instant,
    began_at: OffsetDateTime,
}

impl Cutter {
    /// A cutter whose first window begins now.
    pub(crate) fn new(worker: Arc<Worker>, interval: Duration) -> Self {
        let (began, began_at) = (Instant::now(), OffsetDateTime::now_utc());
        Self { worker, interval, sequence: 0, counted: Counters::default(), began, began_at }
    }

    /// Cuts a window at each multiple of the interval on the wall clock, and the last one at the stop.
    ///
    /// # Errors
    /// Never by itself; ends with `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            let pause = until_boundary(OffsetDateTime::now_utc(), self.interval);
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.cut();
                    return Ok(());
                }
                () = tokio::time::sleep(pause) => self.cut(),
            }
        }
    }

    fn cut(&mut self) {
        let snapshot = self.worker.store().snapshot();
        let (now, now_at) = (Instant::now(), OffsetDateTime::now_utc());
        self.sequence += 1;
        let window = Window {
            worker: self.worker.name.clone(),
            incarnation: self.worker.incarnation.clone(),
            sequence: self.sequence,
            interval_start: self.began_at,
            // Measured by the monotonic clock, so that a step of the wall clock falsifies no rate.
            interval_ms: u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX),
            cache_size: snapshot.cache_size,
            capacity: snapshot.capacity,
            key_count: snapshot.key_count,
            counters: snapshot.counters.since(&self.counted),
        };
        self.counted = snapshot.counters;
        (self.began, self.began_at) = (now, now_at);
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
