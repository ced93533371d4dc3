//! The places for readers of events, and the choice of the reader that gives way when there is none for another.
//!
//! One address may have all places while no other address wants one. When another one does, a reader of the address
//! that has most gives way, so that no address keeps more than its share. Idle readers go first, then the oldest.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::error::Error;
use crate::holders::{Held, Holder, Holders, Registry};
use crate::visitor::Visitor;

/// The last event of a stream whose place another reader has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct GaveWay {
    /// The reason.
    reason: &'static str,
}

impl GaveWay {
    /// The name of the event on either stream.
    pub(crate) const NAME: &str = "gave_way";
    /// Its contents.
    pub(crate) const WORDS: Self = Self {
        reason: "another reader has this place now, because the address that asked from here has most of them \
                 (MAX_EVENT_STREAMS)",
    };
}

/// A stream that has taken nothing for so long is idle: nothing happened, or its reader has gone without closing it.
const IDLE: Duration = Duration::from_secs(30);
/// A stream that is younger gives way to no other stream of its own address: the two would only take turns.
const LEAST_TIME: Duration = Duration::from_secs(5);

/// The places, a fixed number of them. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    most: usize,
    taken: Registry<Reader>,
}

#[derive(Debug)]
struct Reader {
    since: Instant,
    moved: Instant,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Held<Reader>);

impl Places {
    /// `most` places, all free.
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Registry::default() }
    }

    /// Takes a place, for which another reader may have to give way.
    ///
    /// # Errors
    /// [`Error::TooManyStreams`], if this address has most of them and none of its own may go yet.
    pub(super) fn take(&self, visitor: Visitor) -> Result<Place, Error> {
        let now = Instant::now();
        let mut taken = self.taken.lock();
        if taken.len() >= self.most {
            let leaving = leaving(&taken, visitor, now).ok_or(Error::TooManyStreams)?;
            taken.end(leaving);
        }
        let reader = Reader { since: now, moved: now };
        Ok(Place(self.taken.enter_among(&mut taken, Some(visitor), reader)))
    }
}

/// The number of the reader that gives way to a further one of `visitor`, if one may.
fn leaving(taken: &Holders<Reader>, visitor: Visitor, now: Instant) -> Option<u64> {
    let (_, most) = taken.counts().most()?;
    let is_heaviest = taken.counts().of(visitor) == most;
    let may_go = |holder: &Holder<Reader>| {
        if is_heaviest {
            let age = now.saturating_duration_since(holder.state.since);
            holder.visitor == Some(visitor) && age >= LEAST_TIME
        } else {
            holder.visitor.is_some_and(|visitor| taken.counts().of(visitor) == most)
        }
    };
    let going = taken.iter().filter(|(_, holder)| may_go(holder));
    let is_busy = |reader: &Reader| now.saturating_duration_since(reader.moved) < IDLE;
    going.map(|(number, holder)| (is_busy(&holder.state), number)).min().map(|(_, number)| number)
}

impl Place {
    /// Notes that the reader has taken something.
    pub(super) fn moved(&self) {
        self.0.change(|reader| reader.moved = Instant::now());
    }

    /// Returns when the place belongs to another reader.
    pub(super) async fn given_away(&self) {
        self.0.leave().cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};
    use tokio::time::advance;

    fn visitor(number: u32) -> Visitor {
        IpAddr::V4(Ipv4Addr::from_bits(number)).into()
    }

    fn gone(places: &[Place]) -> Vec<usize> {
        (0..places.len()).filter(|at| places[*at].0.leave().is_cancelled()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_all_places_until_another_one_wants_some() {
        let places = Places::new(8);
        let greedy: Vec<_> = (0..8).map(|_| places.take(visitor(1)).unwrap()).collect();
        // At once, however young they are.
        let honest: Vec<_> = (2..5).map(|number| places.take(visitor(number)).unwrap()).collect();
        assert_eq!(gone(&greedy), [0, 1, 2]);
        let second = places.take(visitor(2)).unwrap();
        assert_eq!(gone(&greedy), [0, 1, 2, 3]);
        assert!(gone(&honest).is_empty());
        // The address that has most gets no further place from others, and none of its own before its time.
        assert!(matches!(places.take(visitor(1)), Err(Error::TooManyStreams)));
        advance(LEAST_TIME).await;
        let again = places.take(visitor(1)).unwrap();
        assert_eq!((gone(&greedy), gone(&honest)), (vec![0, 1, 2, 3, 4], vec![]));
        drop((greedy, honest, second, again));
        assert!(places.taken.lock().len() == 0 && places.taken.lock().counts().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_idle_go_before_the_oldest() {
        let places = Places::new(3);
        let held: Vec<_> = (0..3).map(|_| places.take(visitor(1)).unwrap()).collect();
        advance(IDLE).await;
        held[0].moved();
        held[2].moved();
        let other = places.take(visitor(2)).unwrap();
        assert_eq!(gone(&held), [1]);
        let third = places.take(visitor(3)).unwrap();
        assert_eq!(gone(&held), [0, 1]);
        // With one each, the oldest of all.
        let _fourth = places.take(visitor(4)).unwrap();
        assert_eq!(gone(&held), [0, 1, 2]);
        assert!(gone(&[other, third]).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_was_given_away_is_told_so() {
        let places = Places::new(1);
        let first = places.take(visitor(1)).unwrap();
        let second = places.take(visitor(2)).unwrap();
        first.given_away().await;
        // To leave afterwards takes nothing from the other one.
        drop(first);
        assert_eq!(places.taken.lock().len(), 1);
        drop(second);
    }
}
