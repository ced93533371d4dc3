//! Which missed items are filled: all, or at their second miss.
//!
//! The size of a missed item is not known when its lease is handed out. So there is room where an entry of the mean weight
//! fits in, and where a large entry was evicted, others are let in until the room is used up.
//!
//! Filling at the second miss keeps bytes that are asked for once from travelling and from evicting others (Maggs and
//! Sitaraman, *Algorithmic Nuggets in Content Delivery*, CCR 2015: the rule "cache-on-second-hit").

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use clap::ValueEnum;
use wire::Item;

/// The fewest misses that are remembered, so that a cache of few large images knows a second miss, too, also while a client
/// asks for hundreds of keys a second that don't exist.
const FEWEST: usize = 2048;

/// Which missed items may be filled while entries have to be evicted for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Admission {
    /// All
    #[default]
    All,
    /// Those missed before, within as many misses as there are entries
    Second,
}

/// Remembers misses by a hash: 8 bytes of it and 8 of their order, twice.
#[derive(Debug, Default)]
pub(super) struct Doorkeeper {
    admission: Admission,
    hashing: RandomState,
    /// The number of the last miss of each.
    missed: HashMap<u64, u64>,
    /// The same in the order of the misses, those missed again since among them.
    order: VecDeque<(u64, u64)>,
    last: u64,
}

impl Doorkeeper {
    pub(super) fn new(admission: Admission) -> Self {
        Self { admission, ..Self::default() }
    }

    /// Whether a miss of `item` may be filled, where `entries` are resident. `has_room` says whether none has to be evicted
    /// for it.
    pub(super) fn admits(&mut self, item: &Item, entries: usize, has_room: bool) -> bool {
        if self.admission == Admission::All || has_room {
            return true;
        }
        let hash = self.hashing.hash_one(item);
        self.last += 1;
        let before = self.missed.insert(hash, self.last);
        self.order.push_back((hash, self.last));
        while self.order.len() > entries.max(FEWEST)
            && let Some((hash, number)) = self.order.pop_front()
        {
            if self.missed.get(&hash) == Some(&number) {
                self.missed.remove(&hash);
            }
        }
        before.is_some()
    }

    /// Forgets all misses.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.admission);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use wire::Key;

    fn item(number: usize) -> Item {
        Key::new(&format!("key-{number}")).unwrap().into()
    }

    #[test]
    fn the_second_miss_is_admitted_unless_too_many_came_between() {
        let mut doorkeeper = Doorkeeper::new(Admission::Second);
        assert!(doorkeeper.admits(&item(0), 5000, true), "there is room");
        assert!(!doorkeeper.admits(&item(0), 5000, false));
        assert!(doorkeeper.admits(&item(0), 5000, false));
        assert!((1..=5000).all(|number| !doorkeeper.admits(&item(number), 5000, false)));
        assert!(!doorkeeper.admits(&item(0), 5000, false), "it is forgotten");
        assert!(doorkeeper.admits(&item(5000), 5000, false));
        doorkeeper.clear();
        assert!(!doorkeeper.admits(&item(5000), 5000, false));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut doorkeeper = Doorkeeper::new(Admission::Second);
        for round in 0..10_000 {
            doorkeeper.admits(&item(round % 9000), 3000, false);
        }
        assert!(doorkeeper.order.len() <= 3000 && doorkeeper.missed.len() <= 3000);
    }

    #[test]
    fn without_it_every_miss_is_admitted() {
        let mut doorkeeper = Doorkeeper::new(Admission::All);
        assert!((0..100).all(|number| doorkeeper.admits(&item(number), 1, false)));
        assert_eq!(doorkeeper.order.len(), 0);
    }
}
