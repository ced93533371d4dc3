//! Which connection gives way when there is no place for another one.
//!
//! Anybody can open as many connections as the gateway takes and say nothing on them. If further ones then
//! waited, everybody else would. So when all places are taken, whoever has been waiting for a request for
//! longest leaves: those who say nothing before those who have just come. Nobody leaves whose request is
//! being worked on, of which there are fewer than places; nobody who follows events, though nothing may have
//! happened for long, and who have half of the places at most; and whoever takes his answer slowly, only after
//! he has taken nothing of it for a while.
//!
//! All this lets an address keep every place that keeps them busy, by slow reading for one. So if one has more than its
//! share, those who leave are of the address that has most, whatever they do; a further one of its own is closed
//! unless an idle one can leave: in the queue it would hold up every other address behind it.

use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::visitor::Visitor;

/// For how long somebody may take nothing of his answer while others wait for his place.
const BLOCKED_LIMIT: Duration = Duration::from_secs(5);

/// An address may have a sixteenth of all places for good.
const SHARES: usize = 16;

/// All connections.
#[derive(Debug, Clone)]
pub(crate) struct Crowd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The zero of all times.
    origin: Instant,
    next: AtomicU64,
    /// The most places that an address has for good.
    share: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    taken: HashMap<u64, Arc<Place>>,
    counts: HashMap<Visitor, usize>,
}

/// What became of a newcomer's wish for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// A connection leaves.
    Made,
    /// None can be asked to.
    None,
    /// There is none for this one: its address has most places, and keeps all of them busy.
    Refused,
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
    /// Whose it is; nobody's, if a proxy has it for many.
    visitor: Option<Visitor>,
}

impl Place {
    fn is_doing(&self, doing: Doing) -> bool {
        self.doing.load(Ordering::Relaxed) == doing as u8
    }

    fn moved_ms(&self) -> u64 {
        self.moved_ms.load(Ordering::Relaxed)
    }

    /// Whether it may be ended for a newcomer of any address.
    fn may_leave(&self, now_ms: u64) -> bool {
        let limit = u64::try_from(BLOCKED_LIMIT.as_millis()).unwrap_or(u64::MAX);
        let is_blocked = self.is_doing(Doing::Blocked);
        let may_stay = self.is_doing(Doing::Working)
            || (self.is_endless.load(Ordering::Relaxed) && !is_blocked)
            || (is_blocked && now_ms.saturating_sub(self.moved_ms()) < limit);
        !may_stay
    }
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
    /// Nobody is there, and there are so many places.
    pub(crate) fn new(places: usize) -> Self {
        Self(Arc::new(Inner {
            origin: Instant::now(),
            next: AtomicU64::new(0),
            share: (places / SHARES).max(1),
            places: Mutex::default(),
        }))
    }

    /// A place for a connection that has just come; of nobody, if it is a proxy's.
    pub(crate) fn enter(&self, visitor: Option<Visitor>) -> Seat {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let place = Arc::new(Place {
            moved_ms: AtomicU64::new(self.now_ms()),
            doing: AtomicU8::new(Doing::Waiting as u8),
            is_endless: AtomicBool::new(false),
            leave: CancellationToken::new(),
            visitor,
        });
        let mut places = self.places();
        if let Some(visitor) = visitor {
            *places.counts.entry(visitor).or_default() += 1;
        }
        places.taken.insert(number, place.clone());
        drop(places);
        Seat(Arc::new(Taken { crowd: self.clone(), number, place }))
    }

    /// Makes one connection leave for a newcomer, if one can be asked to.
    pub(crate) fn make_room(&self, newcomer: Option<Visitor>) -> Room {
        let now = self.now_ms();
        let mut places = self.places();
        let heaviest = places.counts.iter().map(|(visitor, count)| (*count, *visitor));
        let heaviest = heaviest.max_by_key(|(count, _)| *count).filter(|(count, _)| *count > self.0.share);
        let heaviest = heaviest.map(|(_, visitor)| visitor);
        let is_own = heaviest.is_some() && heaviest == newcomer;
        let leaving = places.taken.iter().filter_map(|(number, place)| {
            let is_free_to = place.may_leave(now);
            let is_asked = match heaviest {
                Some(_) if is_own => place.visitor == heaviest && is_free_to,
                Some(_) => place.visitor == heaviest,
                None => is_free_to,
            };
            let doing = place.doing.load(Ordering::Relaxed);
            is_asked.then_some((!is_free_to, doing == Doing::Working as u8, doing, place.moved_ms(), *number))
        });
        match leaving.min() {
            Some((.., number)) => {
                places.remove(number);
                Room::Made
            }
            None if is_own => Room::Refused,
            None => Room::None,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.places.lock()
    }
}

impl Places {
    /// Has a connection leave, if it is still there.
    fn remove(&mut self, number: u64) {
        let Some(place) = self.taken.remove(&number) else { return };
        place.leave.cancel();
        let Some(visitor) = place.visitor else { return };
        if let Some(count) = self.counts.get_mut(&visitor) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&visitor);
            }
        }
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
        self.crowd.places().remove(self.number);
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
        let crowd = Crowd::new(64);
        assert_eq!(crowd.make_room(None), Room::None);
        let working = crowd.enter(None);
        working.does(Doing::Working);
        let reading = crowd.enter(None);
        reading.does(Doing::Blocked);
        let following = crowd.enter(None);
        following.follows();
        let (mute, talker) = (crowd.enter(None), crowd.enter(None));
        tokio::time::advance(second).await;
        talker.moved();
        tokio::time::advance(second).await;
        let newcomer = crowd.enter(None);

        assert_eq!(crowd.make_room(None), Room::Made);
        assert!(has_to_leave(&mute) && !has_to_leave(&talker));
        assert_eq!(crowd.make_room(None), Room::Made);
        assert!(has_to_leave(&talker) && !has_to_leave(&newcomer));
        drop(newcomer);
        // Nobody is left but those who are served.
        assert_eq!(crowd.make_room(None), Room::None);
        tokio::time::advance(BLOCKED_LIMIT).await;
        reading.moved();
        assert_eq!(crowd.make_room(None), Room::None);
        tokio::time::advance(BLOCKED_LIMIT).await;
        assert_eq!(crowd.make_room(None), Room::Made);
        assert!(has_to_leave(&reading) && !has_to_leave(&working));
        // Nor do those who follow events, unless they take none.
        assert_eq!(crowd.make_room(None), Room::None);
        following.does(Doing::Blocked);
        assert_eq!(crowd.make_room(None), Room::Made);
        assert!(has_to_leave(&following));
        drop((working, reading, following, mute, talker));
        assert!(crowd.places().taken.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_keeps_every_place_busy_gives_way_to_another_one() {
        use std::net::{IpAddr, Ipv4Addr};
        let visitor = |number| Some(Visitor::from(IpAddr::V4(Ipv4Addr::from_bits(number))));
        let crowd = Crowd::new(64);
        let proxy: Vec<_> = (0..30).map(|_| crowd.enter(None)).collect();
        let (working, following, reading) =
            (crowd.enter(visitor(1)), crowd.enter(visitor(1)), crowd.enter(visitor(1)));
        working.does(Doing::Working);
        following.follows();
        reading.does(Doing::Blocked);
        let others: Vec<_> = (2..6).map(|number| crowd.enter(visitor(number))).collect();
        // Within its share, it is like everybody else: what is idle leaves.
        assert_eq!(crowd.make_room(visitor(6)), Room::Made);
        assert!(has_to_leave(&proxy[0]));
        let (more, idle) = (crowd.enter(visitor(1)), crowd.enter(visitor(1)));
        more.does(Doing::Working);
        // Beyond it, its own have to, the idle first, the working last.
        assert_eq!(crowd.make_room(visitor(1)), Room::Made);
        assert!(has_to_leave(&idle));
        let again = crowd.enter(visitor(1));
        again.does(Doing::Working);
        assert_eq!(crowd.make_room(visitor(1)), Room::Refused);
        assert_eq!(crowd.make_room(visitor(7)), Room::Made);
        let own = [&following, &reading, &working, &more, &again];
        assert_eq!(own.map(has_to_leave), [true, false, false, false, false]);
        let others_left = others.iter().chain(&proxy[1..]).filter(|seat| has_to_leave(seat)).count();
        assert_eq!(others_left, 0);
    }
}
