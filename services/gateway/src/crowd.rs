//! Which connection gives way when there is no place for another one.
//!
//! Anybody can open as many connections as the gateway takes and say nothing on them. If further ones then
//! waited, everybody else would. So when all places are taken, whoever has been waiting for a request for
//! longest leaves: those who say nothing before those who have just come. Nobody leaves whose request is
//! being worked on, of which there are fewer than places; nobody who follows events, though nothing may have
//! happened for long, and who have half of the places at most; and whoever takes his answer slowly, only after
//! he has taken nothing of it for a while.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// For how long somebody may take nothing of his answer while others wait for his place.
const BLOCKED_LIMIT: Duration = Duration::from_secs(5);

/// All connections.
#[derive(Debug, Clone)]
pub(crate) struct Crowd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The zero of all times.
    origin: Instant,
    next: AtomicU64,
    places: Mutex<HashMap<u64, Arc<Place>>>,
}

/// What is known of one connection.
#[derive(Debug)]
struct Place {
    /// When bytes last went over it, in milliseconds since the crowd's origin.
    moved_ms: AtomicU64,
    doing: AtomicU8,
    /// Whether its answer has no end.
    is_endless: AtomicBool,
    leave: CancellationToken,
}

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Doing {
    /// Nothing, or sending the head of a request.
    Waiting,
    /// Its request is being worked on.
    Working,
    /// Its answer waits for being taken.
    Blocked,
}

/// A place in the crowd, until it is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Seat(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    crowd: Crowd,
    number: u64,
    place: Arc<Place>,
}

impl Crowd {
    /// Nobody is there.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { origin: Instant::now(), next: AtomicU64::new(0), places: Mutex::default() }))
    }

    /// A place for a connection that has just come.
    pub(crate) fn enter(&self) -> Seat {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let place = Arc::new(Place {
            moved_ms: AtomicU64::new(self.now_ms()),
            doing: AtomicU8::new(Doing::Waiting as u8),
            is_endless: AtomicBool::new(false),
            leave: CancellationToken::new(),
        });
        self.places().insert(number, place.clone());
        Seat(Arc::new(Taken { crowd: self.clone(), number, place }))
    }

    /// Makes one connection leave, if one can be asked to.
    pub(crate) fn make_room(&self) -> bool {
        let now = self.now_ms();
        let limit = u64::try_from(BLOCKED_LIMIT.as_millis()).unwrap_or(u64::MAX);
        let mut places = self.places();
        let leaving = places
            .iter()
            .filter_map(|(number, place)| {
                let moved = place.moved_ms.load(Ordering::Relaxed);
                let doing = place.doing.load(Ordering::Relaxed);
                let is_endless = place.is_endless.load(Ordering::Relaxed);
                let may_stay = doing == Doing::Working as u8
                    || (is_endless && doing != Doing::Blocked as u8)
                    || (doing == Doing::Blocked as u8 && now.saturating_sub(moved) < limit);
                (!may_stay).then_some((doing, moved, *number))
            })
            .min();
        let Some((_, _, number)) = leaving else { return false };
        if let Some(place) = places.remove(&number) {
            place.leave.cancel();
        }
        true
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A panic elsewhere could break no rule about what is in there.
    fn places(&self) -> MutexGuard<'_, HashMap<u64, Arc<Place>>> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Notes what the connection does from now on.
    pub(crate) fn does(&self, doing: Doing) {
        self.0.place.doing.store(doing as u8, Ordering::Relaxed);
    }

    /// Notes that its answer has no end: it waits for no request any more.
    pub(crate) fn follows(&self) {
        self.0.place.is_endless.store(true, Ordering::Relaxed);
    }

    /// Notes that bytes went over it.
    pub(crate) fn moved(&self) {
        self.0.place.moved_ms.store(self.0.crowd.now_ms(), Ordering::Relaxed);
    }

    /// Returns when the connection is to leave.
    pub(crate) async fn asked_to_leave(&self) {
        self.0.place.leave.cancelled().await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.crowd.places().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_to_leave(seat: &Seat) -> bool {
        seat.0.place.leave.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_longest_gives_way_and_whoever_is_served_does_not() {
        let second = Duration::from_secs(1);
        let crowd = Crowd::new();
        assert!(!crowd.make_room());
        let working = crowd.enter();
        working.does(Doing::Working);
        let reading = crowd.enter();
        reading.does(Doing::Blocked);
        let following = crowd.enter();
        following.follows();
        let (mute, talker) = (crowd.enter(), crowd.enter());
        tokio::time::advance(second).await;
        talker.moved();
        tokio::time::advance(second).await;
        let newcomer = crowd.enter();

        assert!(crowd.make_room());
        assert!(has_to_leave(&mute) && !has_to_leave(&talker));
        assert!(crowd.make_room());
        assert!(has_to_leave(&talker) && !has_to_leave(&newcomer));
        drop(newcomer);
        // Nobody is left but those who are served.
        assert!(!crowd.make_room());
        tokio::time::advance(BLOCKED_LIMIT).await;
        reading.moved();
        assert!(!crowd.make_room());
        tokio::time::advance(BLOCKED_LIMIT).await;
        assert!(crowd.make_room());
        assert!(has_to_leave(&reading) && !has_to_leave(&working));
        // Nor do those who follow events, unless they take none.
        assert!(!crowd.make_room());
        following.does(Doing::Blocked);
        assert!(crowd.make_room() && has_to_leave(&following));
        drop((working, reading, following, mute, talker));
        assert!(crowd.places().is_empty());
    }
}
