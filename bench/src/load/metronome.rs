//! The schedule of an open loop: the moments at which requests are due.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

/// Hands out beats at a steady rate to free connections. It is a timer of the kernel, because Tokio's own clock
/// goes in milliseconds, and many requests would come at once in each.
#[derive(Debug)]
pub(super) struct Metronome {
    timer: AsyncFd<OwnedFd>,
    first: Instant,
    interval: Duration,
    total: u64,
    taken: Cell<u64>,
    due: Semaphore,
}

impl Metronome {
    /// Beats from `start` until `end`, `rate` a second; `phase` (0 to 1) is the part of an interval by which the
    /// first one is early.
    pub(super) fn start(start: Instant, rate: f64, phase: f64, end: Instant) -> std::io::Result<Self> {
        let interval = Duration::from_secs_f64(1.0 / rate).max(Duration::from_nanos(1));
        let wait = interval.mul_f64(1.0 - phase).max(Duration::from_nanos(1));
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let first = Instant::now() + wait;
        let times = Itimerspec { it_interval: timespec(interval), it_value: timespec(wait) };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        let total = (end - start).as_nanos() / interval.as_nanos();
        #[expect(
            deprecated,
            reason = "it is unsound for what does not own its descriptor; what replaces it is unsafe"
        )]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Self {
            timer,
            first,
            interval,
            total: u64::try_from(total).unwrap_or(u64::MAX),
            taken: Cell::new(0),
            due: Semaphore::new(0),
        })
    }

    /// Waits for the next beat that is not taken yet, and returns when it was due; `None` after the last.
    pub(super) async fn next(&self) -> Option<Instant> {
        // The semaphore is never closed.
        self.due.acquire().await.ok()?.forget();
        let number = self.taken.get();
        if number == self.total {
            return None;
        }
        self.taken.set(number + 1);
        let nanoseconds = self.interval.as_nanos().saturating_mul(u128::from(number));
        Some(self.first + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }

    /// Beats until the last one, and then lets each of the `listeners` know that it was the last.
    pub(super) async fn run(&self, listeners: usize) -> std::io::Result<()> {
        let mut left = self.total;
        while left > 0 {
            let mut ready = self.timer.readable().await?;
            let beats = ready.try_io(|timer| {
                let mut count = [0; 8];
                rustix::io::read(timer, &mut count)?;
                Ok(u64::from_ne_bytes(count))
            });
            if let Ok(beats) = beats {
                let beats = beats?.min(left);
                left -= beats;
                self.due.add_permits(usize::try_from(beats).unwrap_or(usize::MAX));
            }
        }
        self.due.add_permits(listeners);
        Ok(())
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
