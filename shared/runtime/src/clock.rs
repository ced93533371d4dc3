//! The clock by which claims and leases end.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The clock that goes on during a sleep. `std::time::Instant` stands still while a Linux machine sleeps, and so would
/// a lease that counts by it. After the sleep its holder would still count on the lease, though it is over for all
/// other processes.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
/// Elsewhere the monotonic clock goes on during a sleep.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// A length of time by another process's clock, which may run slower than this one by up to an eighth.
pub const fn with_margin(length: Duration) -> Duration {
    length.saturating_add(Duration::from_nanos_u128(length.as_nanos() / 8))
}

/// A moment on a clock that never goes back, is never set, and goes on while the machine sleeps: in nanoseconds since
/// the clock's zero. The number suffices for 584 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        let now = clock_gettime(CLOCK);
        // Neither part is negative on a clock that counts from the machine's start.
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
        Self(seconds * 1_000_000_000 + nanoseconds)
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time from this moment to now.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, length: Duration) -> Self {
        let nanoseconds = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

/// A moment that threads share.
#[derive(Debug)]
pub struct AtomicMoment(AtomicU64);

impl AtomicMoment {
    /// A shared moment with this value.
    pub fn new(moment: Moment) -> Self {
        Self(AtomicU64::new(moment.0))
    }

    /// The value.
    pub fn get(&self) -> Moment {
        Moment(self.0.load(Ordering::Acquire))
    }

    /// Makes it `moment`, unless it is later already.
    pub fn raise(&self, moment: Moment) {
        self.0.fetch_max(moment.0, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_and_counts() {
        let earlier = Moment::now();
        let later = earlier + Duration::from_secs(3);
        assert_eq!(later.since(earlier), Duration::from_secs(3));
        assert_eq!(earlier.since(later), Duration::ZERO);
        assert!(Moment::now() >= earlier);
        assert!(earlier.elapsed() < Duration::from_secs(3600));
    }

    #[test]
    fn a_shared_moment_only_grows() {
        let now = Moment::now();
        let shared = AtomicMoment::new(now);
        let later = now + Duration::from_nanos(1);
        shared.raise(later);
        shared.raise(now);
        assert_eq!(shared.get(), later);
    }
}
