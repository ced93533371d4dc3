//! Chooses the connection that is closed when all places are taken and another connection comes.
//!
//! One client can open as many connections as the gateway takes, and send nothing on them. If new connections then
//! waited, every other client would wait too. So the connection that has been waiting for a request for longest is
//! closed: a silent one before one that has just come. Three kinds of connection are spared:
//! - A connection whose request is handled. There are fewer of these than places.
//! - A connection that follows events, even if nothing has happened for long. These have at most half of the places.
//! - A connection whose peer reads its answer slowly, until it has read nothing for a while.
//!
//! By these rules alone, one address could keep every place with busy connections, for example by reading slowly. So if
//! an address has more than its share, a connection of the address with the most places is closed, whatever it does. A
//! further connection of that address is refused, unless one of its own may be closed: in the queue it would hold up
//! every other address behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::holders::{Held, Registry};
use crate::visitor::Visitor;

/// How long a peer may read nothing of its answer while another connection waits for the place.
const BLOCKED_LIMIT: Duration = Duration::from_secs(5);

/// The share of an address is all places divided by this. Its busy connections are safe within its share.
const SHARES: usize = 16;

/// All connections.
#[derive(Debug, Clone)]
pub(crate) struct Crowd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The moment from which all times are counted.
    origin: Instant,
    /// The most places in which the busy connections of an address are safe.
    share: usize,
    /// A connection counts for no address if a trusted proxy has it for many clients.
    places: Registry<Arc<Place>>,
}

/// The outcome of the search for a place for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// A connection is closed for it.
    Made,
    /// No connection may be closed now.
    None,
    /// The new connection is refused: its address has the most places, and keeps all of them busy.
    Refused,
}

/// The state of one connection.
#[derive(Debug)]
struct Place {
    /// When bytes last went over it, in milliseconds since the crowd's origin.
    moved_ms: AtomicU64,
    doing: AtomicU8,
    /// Whether its answer has no end.
    is_endless: AtomicBool,
}

impl Place {
    fn is_doing(&self, doing: Doing) -> bool {
        self.doing.load(Ordering::Relaxed) == doing as u8
    }

    fn moved_ms(&self) -> u64 {
        self.moved_ms.load(Ordering::Relaxed)
    }

    /// Whether it may be closed for a new connection of any address.
    fn may_leave(&self, now_ms: u64) -> bool {
        let limit = u64::try_from(BLOCKED_LIMIT.as_millis()).unwrap_or(u64::MAX);
        let is_blocked = self.is_doing(Doing::Blocked);
        let may_stay = self.is_doing(Doing::Working)
            || (self.is_endless.load(Ordering::Relaxed) && !is_blocked)
            || (is_blocked && now_ms.saturating_sub(self.moved_ms()) < limit);
        !may_stay
    }
}

/// The activity of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Doing {
    /// Nothing, or sending the head of a request.
    Waiting,
    /// Its request is handled.
    Working,
    /// Its answer waits until the peer reads it.
    Blocked,
}

/// The place of a connection, until its last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Seat(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    crowd: Crowd,
    place: Arc<Place>,
    held: Held<Arc<Place>>,
}

impl Crowd {
    /// A crowd of so many places, all of them free.
    pub(crate) fn new(places: usize) -> Self {
        Self(Arc::new(Inner {
            origin: Instant::now(),
            share: (places / SHARES).max(1),
            places: Registry::default(),
        }))
    }

    /// Takes a place for a new connection. `visitor` is `None` if the connection is that of a trusted proxy.
    pub(crate) fn enter(&self, visitor: Option<Visitor>) -> Seat {
        let place = Arc::new(Place {
            moved_ms: AtomicU64::new(self.now_ms()),
            doing: AtomicU8::new(Doing::Waiting as u8),
            is_endless: AtomicBool::new(false),
        });
        let held = self.0.places.enter(visitor, place.clone());
        Seat(Arc::new(Taken { crowd: self.clone(), place, held }))
    }

    /// Closes one connection for a new one of `newcomer`, if one may be closed.
    pub(crate) fn make_room(&self, newcomer: Option<Visitor>) -> Room {
        let now = self.now_ms();
        let mut places = self.0.places.lock();
        let heaviest = places.counts().most().filter(|(_, count)| *count > self.0.share);
        let heaviest = heaviest.map(|(visitor, _)| visitor);
        let is_own = heaviest.is_some() && heaviest == newcomer;
        let leaving = places.iter().filter_map(|(number, holder)| {
            let place = &holder.state;
            let is_free_to = place.may_leave(now);
            let is_asked = match heaviest {
                Some(_) if is_own => holder.visitor == heaviest && is_free_to,
                Some(_) => holder.visitor == heaviest,
                None => is_free_to,
            };
            let doing = place.doing.load(Ordering::Relaxed);
            is_asked.then_some((!is_free_to, doing == Doing::Working as u8, doing, place.moved_ms(), number))
        });
        match leaving.min() {
            Some((.., number)) => {
                places.end(number);
                Room::Made
            }
            None if is_own => Room::Refused,
            None => Room::None,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Seat {
    /// Notes the activity of the connection from now on.
    pub(crate) fn does(&self, doing: Doing) {
        self.0.place.doing.store(doing as u8, Ordering::Relaxed);
    }

    /// Notes that its answer has no end, so that it waits for no request any more.
    pub(crate) fn follows(&self) {
        self.0.place.is_endless.store(true, Ordering::Relaxed);
    }

    /// Notes that bytes went over it.
    pub(crate) fn moved(&self) {
        self.0.place.moved_ms.store(self.0.crowd.now_ms(), Ordering::Relaxed);
    }

    /// Returns when the connection has to close.
    pub(crate) async fn asked_to_leave(&self) {
        self.0.held.leave().cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_to_leave(seat: &Seat) -> bool {
        seat.0.held.leave().is_cancelled()
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
        // All connections that are left are served.
        assert_eq!(crowd.make_room(None), Room::None);
        tokio::time::advance(BLOCKED_LIMIT).await;
        reading.moved();
        assert_eq!(crowd.make_room(None), Room::None);
        tokio::time::advance(BLOCKED_LIMIT).await;
        assert_eq!(crowd.make_room(None), Room::Made);
        assert!(has_to_leave(&reading) && !has_to_leave(&working));
        // A connection that follows events stays too, unless its peer reads none of them.
        assert_eq!(crowd.make_room(None), Room::None);
        following.does(Doing::Blocked);
        assert_eq!(crowd.make_room(None), Room::Made);
        assert!(has_to_leave(&following));
        drop((working, reading, following, mute, talker));
        assert_eq!(crowd.0.places.lock().len(), 0);
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
        // Within its share, an address is treated like any other: an idle connection of any address is closed.
        assert_eq!(crowd.make_room(visitor(6)), Room::Made);
        assert!(has_to_leave(&proxy[0]));
        let (more, idle) = (crowd.enter(visitor(1)), crowd.enter(visitor(1)));
        more.does(Doing::Working);
        // Beyond its share, its own connections are closed, the idle first, the working last.
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
