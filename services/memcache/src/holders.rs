//! Near leases: a gateway with one may serve its own copy of an image until a given time (leases in time:
//! Gray and Cheriton, SOSP 1989).
//!
//! A grant outlives the entry that it was given for: evictions, changes of the policy, clears and lost
//! connections leave it standing, because its holder goes on serving all the same. It ends when its time
//! is over, or when its holder has acknowledged that the copy is dropped, and in no other way. A grant for one
//! variant of a key counts for all of them, as they are dropped together.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use runtime::clock::{Moment, with_margin};
use wire::{Holder, Key};

/// The most grants that are remembered, so that many keys and gateways take bounded memory. Beyond this limit
/// none is given, and gateways ask for the image each time.
const MOST_GRANTS: usize = 1 << 17;

/// The near leases that are out.
#[derive(Debug)]
pub(crate) struct Holders {
    length: Duration,
    /// Numbers grants and drops in one order.
    last: u64,
    out: HashMap<Key, Vec<Grant>>,
    /// Every grant with its end at the time of granting, in the order of these ends. Grants that were renewed or
    /// dropped since are among them.
    ends: VecDeque<(Moment, Key)>,
}

#[derive(Debug, Clone, Copy)]
struct Grant {
    holder: Holder,
    /// The moment from which on the holder certainly does not use it any more.
    end: Moment,
    number: u64,
}

/// A drop: the copies that holders must be told to drop, and these holders.
#[derive(Debug, Clone)]
pub(crate) struct Drop {
    /// The key of the copies; `None` for every copy.
    pub(crate) key: Option<Key>,
    /// Its place in the order of grants and drops: acknowledgements concern the grants before it.
    number: u64,
    /// The holders that must be told, each with the moment at which its lease ends without an answer.
    pub(crate) holders: Vec<(Holder, Moment)>,
}

impl Holders {
    /// A table without any lease. Each lease will be `length` long; with zero, none is given.
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, last: 0, out: HashMap::new(), ends: VecDeque::new() }
    }

    /// Gives `holder` a lease, and returns its length; `None` if none is given.
    ///
    /// The holder counts from the sending of its request, and this table from `now`, which is later.
    pub(crate) fn grant(&mut self, key: &Key, holder: Holder, now: Moment) -> Option<Duration> {
        self.forget_ended(now);
        if self.length.is_zero() || self.ends.len() >= MOST_GRANTS {
            return None;
        }
        self.last += 1;
        let grant = Grant { holder, end: now + with_margin(self.length), number: self.last };
        let grants = self.out.entry(key.clone()).or_default();
        match grants.iter_mut().find(|known| known.holder == holder) {
            Some(known) => *known = grant,
            None => grants.push(grant),
        }
        self.ends.push_back((grant.end, key.clone()));
        Some(self.length)
    }

    /// Begins to drop every copy of `key`.
    pub(crate) fn drop_key(&mut self, key: &Key, now: Moment) -> Drop {
        self.last += 1;
        let grants = self.out.get(key).map(Vec::as_slice).unwrap_or_default();
        let standing = grants.iter().filter(|grant| now < grant.end);
        let holders = standing.map(|grant| (grant.holder, grant.end)).collect();
        Drop { key: Some(key.clone()), number: self.last, holders }
    }

    /// Begins to drop every copy.
    pub(crate) fn drop_all(&mut self, now: Moment) -> Drop {
        self.last += 1;
        let mut holders = HashMap::new();
        for grant in self.out.values().flatten().filter(|grant| now < grant.end) {
            let end = holders.entry(grant.holder).or_insert(grant.end);
            *end = grant.end.max(*end);
        }
        Drop { key: None, number: self.last, holders: holders.into_iter().collect() }
    }

    /// Notes that `holder` has made the drop. Leases that it was granted after the drop began stay.
    pub(crate) fn acknowledged(&mut self, drop: &Drop, holder: Holder) {
        let stands = |grant: &Grant| grant.holder != holder || grant.number > drop.number;
        match &drop.key {
            Some(key) => {
                if let Some(grants) = self.out.get_mut(key) {
                    grants.retain(stands);
                    if grants.is_empty() {
                        self.out.remove(key);
                    }
                }
            }
            None => self.out.retain(|_, grants| {
                grants.retain(stands);
                !grants.is_empty()
            }),
        }
    }

    fn forget_ended(&mut self, now: Moment) {
        while let Some((_, key)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            if let Some(grants) = self.out.get_mut(&key) {
                grants.retain(|grant| now < grant.end);
                if grants.is_empty() {
                    self.out.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const LENGTH: Duration = Duration::from_millis(800);
    const A: Holder = Holder(1);
    const B: Holder = Holder(2);

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn told(drop: &Drop) -> Vec<Holder> {
        let mut holders: Vec<_> = drop.holders.iter().map(|(holder, _)| *holder).collect();
        holders.sort_unstable();
        holders
    }

    #[test]
    fn whoever_holds_a_lease_is_told_until_it_acknowledges_or_the_time_is_over() {
        let (mut holders, now) = (Holders::new(LENGTH), Moment::now());
        assert_eq!(holders.grant(&key("cat"), A, now), Some(LENGTH));
        holders.grant(&key("cat"), B, now + LENGTH / 2);
        holders.grant(&key("dog"), B, now);
        let first = holders.drop_key(&key("cat"), now + LENGTH);
        assert_eq!(told(&first), [A, B]);
        assert!(first.holders.contains(&(A, now + LENGTH + LENGTH / 8)), "with a margin for its clock");
        holders.acknowledged(&first, B);
        // A second change waits for the same holders that the first still waits for.
        assert_eq!(told(&holders.drop_key(&key("cat"), now + LENGTH)), [A]);
        assert_eq!(told(&holders.drop_key(&key("cat"), now + LENGTH * 9 / 8)), []);
        assert_eq!(told(&holders.drop_all(now)), [A, B]);
    }

    #[test]
    fn an_acknowledgement_leaves_what_was_granted_after_its_drop() {
        let (mut holders, now) = (Holders::new(LENGTH), Moment::now());
        holders.grant(&key("cat"), A, now);
        holders.grant(&key("dog"), A, now);
        let (cat, all) = (holders.drop_key(&key("cat"), now), holders.drop_all(now));
        holders.grant(&key("cat"), A, now);
        holders.acknowledged(&cat, A);
        assert_eq!(told(&holders.drop_key(&key("cat"), now)), [A]);
        holders.acknowledged(&all, A);
        assert_eq!(told(&holders.drop_key(&key("cat"), now)), [A]);
        assert_eq!(told(&holders.drop_key(&key("dog"), now)), []);
    }

    #[test]
    fn everything_waits_for_the_longest_lease_of_each() {
        let (mut holders, now) = (Holders::new(LENGTH), Moment::now());
        for (name, after) in [("a", 0), ("b", 3), ("c", 1)] {
            holders.grant(&key(name), A, now + Duration::from_millis(after));
        }
        let drop = holders.drop_all(now);
        assert_eq!(drop.holders, [(A, now + Duration::from_millis(3) + LENGTH * 9 / 8)]);
    }

    #[test]
    fn memory_is_bounded_by_the_leases_that_are_out() {
        let (mut holders, now) = (Holders::new(LENGTH), Moment::now());
        for round in 0..MOST_GRANTS {
            assert!(holders.grant(&key(&format!("k{round}")), A, now).is_some());
        }
        assert_eq!(holders.grant(&key("one more"), A, now), None);
        assert!(holders.grant(&key("one more"), A, now + LENGTH * 2).is_some());
        assert_eq!((holders.out.len(), holders.ends.len()), (1, 1));
        let mut none = Holders::new(Duration::ZERO);
        assert_eq!(none.grant(&key("cat"), A, now), None);
    }
}
