//! Single flight: concurrent misses of one item read the origin once (design rule 4).
//!
//! A flight is led by the read that holds the item's fill lease. While it is open, other reads that missed
//! without a lease join it. No read joins once the fill has been sent, and the result is shared only if the
//! fill was accepted. The cache accepts a fill only while its lease stands. So no upload can have been
//! answered between the lease and the acceptance, and every read joined before that. In every other case each
//! read goes to the origin by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use wire::Item;

/// The open flights of one gateway. Clones share them.
#[derive(Debug)]
pub(crate) struct Flights<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    /// A std mutex: it is held for a few instructions and never across an await.
    open: Mutex<HashMap<Item, Flight<T>>>,
    next_number: AtomicU64,
}

#[derive(Debug)]
struct Flight<T> {
    number: u64,
    result: watch::Receiver<Option<T>>,
}

/// A flight that may still be joined. Dropping it ends it without a result.
#[derive(Debug)]
pub(crate) struct OpenFlight<T> {
    shared: Arc<Shared<T>>,
    item: Item,
    number: u64,
    result: watch::Sender<Option<T>>,
}

/// A flight that no read can join any more. Dropping it ends it without a result.
#[derive(Debug)]
pub(crate) struct ClosedFlight<T> {
    result: watch::Sender<Option<T>>,
}

/// A read that waits for the result of another read's flight.
#[derive(Debug)]
pub(crate) struct Passenger<T> {
    result: watch::Receiver<Option<T>>,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        let shared = Shared { open: Mutex::default(), next_number: AtomicU64::new(0) };
        Self { shared: Arc::new(shared) }
    }
}

impl<T> Flights<T> {
    /// Opens a flight for `item`. No read joins an earlier one any more that is still open: its lease is older
    /// than the new one, so it was used, has expired or was voided.
    pub(crate) fn lead(&self, item: &Item) -> OpenFlight<T> {
        let number = self.shared.next_number.fetch_add(1, Ordering::Relaxed);
        let (result, watcher) = watch::channel(None);
        self.shared.open().insert(item.clone(), Flight { number, result: watcher });
        OpenFlight { shared: self.shared.clone(), item: item.clone(), number, result }
    }

    /// Joins the open flight for `item`, if there is one.
    pub(crate) fn join(&self, item: &Item) -> Option<Passenger<T>> {
        self.shared.open().get(item).map(|flight| Passenger { result: flight.result.clone() })
    }
}

impl<T> Shared<T> {
    /// The table holds no invariant that a panic elsewhere could break.
    fn open(&self) -> MutexGuard<'_, HashMap<Item, Flight<T>>> {
        self.open.lock()
    }

    fn close(&self, item: &Item, number: u64) {
        let mut open = self.open();
        if open.get(item).is_some_and(|flight| flight.number == number) {
            open.remove(item);
        }
    }
}

impl<T> OpenFlight<T> {
    /// Lets no further read join. To be called before the fill is sent.
    pub(crate) fn close(self) -> ClosedFlight<T> {
        ClosedFlight { result: self.result.clone() }
    }
}

impl<T> Drop for OpenFlight<T> {
    fn drop(&mut self) {
        self.shared.close(&self.item, self.number);
    }
}

impl<T> ClosedFlight<T> {
    /// Shares the result, whose fill was accepted.
    pub(crate) fn land(self, result: T) {
        self.result.send_replace(Some(result));
    }
}

impl<T: Clone> Passenger<T> {
    /// Waits for the result; `None` when there is nothing to share.
    pub(crate) async fn arrive(mut self) -> Option<T> {
        let result = self.result.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use wire::Key;

    fn item(text: &str) -> Item {
        Key::new(text).unwrap().into()
    }

    #[tokio::test]
    async fn those_who_join_in_time_share_the_result() {
        let flights = Flights::default();
        assert!(flights.join(&item("cat")).is_none());
        let flight = flights.lead(&item("cat"));
        let (early, late) = (flights.join(&item("cat")).unwrap(), flights.join(&item("cat")).unwrap());
        assert!(flights.join(&item("dog")).is_none());
        let waiting = tokio::spawn(early.arrive());
        flight.close().land(7);
        assert_eq!(waiting.await.unwrap(), Some(7));
        assert_eq!(late.arrive().await, Some(7));
    }

    #[tokio::test]
    async fn a_closed_flight_takes_nobody_in() {
        let flights = Flights::default();
        let flight = flights.lead(&item("cat"));
        let aboard = flights.join(&item("cat")).unwrap();
        let flight = flight.close();
        assert!(flights.join(&item("cat")).is_none());
        flight.land(7);
        assert!(flights.join(&item("cat")).is_none());
        assert_eq!(aboard.arrive().await, Some(7));
    }

    #[tokio::test]
    async fn a_flight_that_is_given_up_has_no_result() {
        let flights = Flights::<u32>::default();
        let flight = flights.lead(&item("cat"));
        let aboard = flights.join(&item("cat")).unwrap();
        drop(flight);
        assert_eq!(aboard.arrive().await, None);
        assert!(flights.join(&item("cat")).is_none());

        let flight = flights.lead(&item("cat"));
        let aboard = flights.join(&item("cat")).unwrap();
        drop(flight.close());
        assert_eq!(aboard.arrive().await, None);
    }

    #[tokio::test]
    async fn a_newer_lease_takes_over_and_the_older_flight_does_not_close_it() {
        let flights = Flights::default();
        let older = flights.lead(&item("cat"));
        let aboard_older = flights.join(&item("cat")).unwrap();
        let newer = flights.lead(&item("cat"));
        let aboard_newer = flights.join(&item("cat")).unwrap();
        older.close().land(1);
        let late = flights.join(&item("cat")).unwrap();
        newer.close().land(2);
        assert_eq!(aboard_older.arrive().await, Some(1));
        assert_eq!(aboard_newer.arrive().await, Some(2));
        assert_eq!(late.arrive().await, Some(2));
        assert!(flights.shared.open().is_empty());
    }
}
