//! Places that are limited, and of which no address may have all.

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::holders::Counts;
use crate::visitor::Visitor;

/// The places that an address may have for each free place. One address alone gets three quarters of all places, two get
/// six sevenths (Choudhury and Hahne, "Dynamic queue length thresholds", 1998). From three places on, the last free one is for
/// an address that has none. One or two places are too few to share.
const FOR_EACH_FREE: usize = 3;

/// Places for requests, with the number that each address has.
#[derive(Debug)]
pub(crate) struct FairPlaces {
    all: usize,
    free: Semaphore,
    counts: Mutex<Counts>,
}

/// The place of a request, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct FairPlace<'a> {
    _place: SemaphorePermit<'a>,
    places: &'a FairPlaces,
    visitor: Visitor,
}

impl FairPlaces {
    /// This many places, and at least one.
    pub(crate) fn new(places: usize) -> Self {
        let all = places.max(1);
        Self { all, free: Semaphore::new(all), counts: Mutex::default() }
    }

    /// Whether the address may have another place. If no place is free, the rule has nothing to protect.
    pub(crate) fn is_fair(&self, visitor: Visitor) -> bool {
        let free = self.free.available_permits();
        let own = self.counts.lock().of(visitor);
        let is_last = free == 1 && self.all > 2;
        free == 0 || own == 0 || (!is_last && own < FOR_EACH_FREE * free)
    }

    /// A place, if one is free and the address may have it.
    pub(crate) fn take(&self, visitor: Visitor) -> Option<FairPlace<'_>> {
        if !self.is_fair(visitor) {
            return None;
        }
        self.free.try_acquire().ok().map(|place| self.with(place, visitor))
    }

    /// The next place that gets free.
    pub(crate) async fn next(&self, visitor: Visitor) -> Option<FairPlace<'_>> {
        self.free.acquire().await.ok().map(|place| self.with(place, visitor))
    }

    fn with<'a>(&'a self, place: SemaphorePermit<'a>, visitor: Visitor) -> FairPlace<'a> {
        self.counts.lock().add(visitor);
        FairPlace { _place: place, places: self, visitor }
    }
}

impl Drop for FairPlace<'_> {
    fn drop(&mut self) {
        self.places.counts.lock().remove(self.visitor);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn one_address_never_has_all_places() {
        for (all, shares) in
            [(100, &[75, 19, 5, 1, 0][..]), (8, &[6, 1, 1, 0]), (3, &[2, 1, 0]), (2, &[2, 0]), (1, &[1, 0])]
        {
            let places = FairPlaces::new(all);
            let mut held = Vec::new();
            let mut counts = Vec::new();
            for number in 0..shares.len() {
                let before = held.len();
                let number = u32::try_from(number).unwrap_or_default();
                let visitor = Visitor::from(IpAddr::V4(Ipv4Addr::from_bits(number)));
                held.extend(std::iter::from_fn(|| places.take(visitor)));
                counts.push(held.len() - before);
            }
            assert_eq!(counts, shares);
            drop(held);
            assert!(places.counts.lock().is_empty());
            assert_eq!(places.free.available_permits(), all);
        }
    }
}
