//! Fill leases (*Scaling Memcache at Facebook*, NSDI 2013, §3.2.1): the right to insert an image that was
//! read from the origin after a miss.
//!
//! Without them a late fill could put a replaced image back for good: a reader misses and reads the
//! old file, an upload replaces it and invalidates, then the reader's bytes arrive. Here the
//! invalidation voids the lease, and the fill is refused.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use wire::{Item, Lease};

/// How long a lease is valid. A holder that takes longer is probably gone.
pub(crate) const LEASE_TIME: Duration = Duration::from_secs(10);
/// The most leases that are out at once, so that misses of made-up keys take bounded memory. Beyond
/// this limit a miss hands out none, and its reader does not fill.
const MOST_LEASES: usize = 1 << 17;

/// The leases that are out: one at a time for an item.
#[derive(Debug)]
pub(crate) struct Leases {
    /// Drawn anew in each life of the worker, so that no number is ever used twice.
    life: u64,
    last: u64,
    out: HashMap<Item, Grant>,
    /// The grants in the order of their end, those already used or voided among them.
    ends: VecDeque<(Instant, Item, Lease)>,
}

#[derive(Debug)]
struct Grant {
    lease: Lease,
    end: Instant,
}

impl Default for Leases {
    /// A table without any lease.
    fn default() -> Self {
        Self { life: rand::random(), last: 0, out: HashMap::new(), ends: VecDeque::new() }
    }
}

impl Leases {
    /// A lease for `item`; `None` if one is out for it, or too many are out.
    pub(crate) fn grant(&mut self, item: &Item, now: Instant) -> Option<Lease> {
        self.forget_ended(now);
        if self.out.len() >= MOST_LEASES || self.out.contains_key(item) {
            return None;
        }
        self.last += 1;
        let lease = Lease(u128::from(self.life) << 64 | u128::from(self.last));
        let end = now + LEASE_TIME;
        self.out.insert(item.clone(), Grant { lease, end });
        self.ends.push_back((end, item.clone(), lease));
        Some(lease)
    }

    /// Uses up `lease`, and returns whether it was the current one of `item` and had not ended.
    pub(crate) fn redeem(&mut self, item: &Item, lease: Lease, now: Instant) -> bool {
        match self.out.get(item) {
            Some(grant) if grant.lease == lease => {
                let good = now < grant.end;
                self.out.remove(item);
                good
            }
            _ => false,
        }
    }

    /// Takes back `lease`, which its holder does not use. Another one that is out for `item` stays.
    pub(crate) fn take_back(&mut self, item: &Item, lease: Lease) {
        if self.out.get(item).is_some_and(|grant| grant.lease == lease) {
            self.out.remove(item);
        }
    }

    /// Voids the lease that is out for `item`.
    pub(crate) fn void(&mut self, item: &Item) {
        self.out.remove(item);
    }

    /// Voids all leases.
    pub(crate) fn void_all(&mut self) {
        self.out = HashMap::new();
        self.ends = VecDeque::new();
    }

    fn forget_ended(&mut self, now: Instant) {
        while let Some((_, item, lease)) = self.ends.pop_front_if(|(end, ..)| *end <= now) {
            if self.out.get(&item).is_some_and(|grant| grant.lease == lease) {
                self.out.remove(&item);
            }
        }
        // Used and voided grants are removed before their end when they are the greater part of the queue.
        if self.ends.len() > 2 * self.out.len() + 1024 {
            self.ends
                .retain(|(_, item, lease)| self.out.get(item).is_some_and(|grant| grant.lease == *lease));
        }
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

    #[test]
    fn one_lease_is_out_for_a_key_and_is_used_once() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let lease = leases.grant(&item("a"), now).unwrap();
        assert_eq!(leases.grant(&item("a"), now), None);
        assert!(!leases.redeem(&item("a"), Lease(lease.0 + 1), now));
        assert!(!leases.redeem(&item("b"), lease, now));
        assert!(leases.redeem(&item("a"), lease, now));
        assert!(!leases.redeem(&item("a"), lease, now));
        assert_ne!(leases.grant(&item("a"), now).unwrap(), lease);
    }

    #[test]
    fn an_ended_lease_is_refused_and_makes_room_for_the_next() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let first = leases.grant(&item("a"), now).unwrap();
        assert!(!leases.redeem(&item("a"), first, now + LEASE_TIME));
        let second = leases.grant(&item("a"), now).unwrap();
        let third = leases.grant(&item("a"), now + LEASE_TIME).unwrap();
        assert!(!leases.redeem(&item("a"), second, now + LEASE_TIME));
        assert!(leases.redeem(&item("a"), third, now + LEASE_TIME));
    }

    #[test]
    fn a_voided_lease_is_refused() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let lease = leases.grant(&item("a"), now).unwrap();
        leases.void(&item("a"));
        assert!(!leases.redeem(&item("a"), lease, now));
        let lease = leases.grant(&item("a"), now).unwrap();
        leases.void_all();
        assert!(!leases.redeem(&item("a"), lease, now));
    }

    #[test]
    fn two_lives_of_a_worker_hand_out_different_leases() {
        let now = Instant::now();
        let (mut one, mut other) = (Leases::default(), Leases::default());
        let lease = one.grant(&item("a"), now).unwrap();
        other.grant(&item("a"), now).unwrap();
        assert!(!other.redeem(&item("a"), lease, now));
    }

    #[test]
    fn memory_is_bounded_by_the_leases_that_are_out() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        for round in 0..10_000 {
            let item = item(&format!("k{round}"));
            let lease = leases.grant(&item, now).unwrap();
            assert!(leases.redeem(&item, lease, now));
        }
        assert!(leases.out.is_empty());
        assert!(leases.ends.len() <= 1025);
        for round in 0..MOST_LEASES + 10 {
            leases.grant(&item(&format!("k{round}")), now);
        }
        assert_eq!(leases.out.len(), MOST_LEASES);
        assert!(leases.grant(&item("later"), now + LEASE_TIME).is_some());
        assert_eq!(leases.out.len(), 1);
    }
}
