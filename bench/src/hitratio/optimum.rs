//! The most hits that any policy could have, knowing the future.

use std::collections::BinaryHeap;

use super::trace::Trace;

/// The facts about a trace from which its optimum at any capacity is found.
#[derive(Debug)]
pub(super) struct Optimum {
    requests: u64,
    how: How,
}

#[derive(Debug)]
enum How {
    /// All images weigh the same: Belady's MIN (*A study of replacement algorithms for a virtual-storage
    /// computer*, 1966) is exact. Of each request its key, and the number of the next one that it could answer.
    Exact { weight: u64, next: Vec<(u32, Option<u32>)> },
    /// Otherwise PFOO-L, an upper bound of the hits (Berger, Beckmann and Harchol-Balter, *Practical Bounds on
    /// Optimal Caching with Variable Object Sizes*, 2018). Keeping an image from one request to the next costs its
    /// weight for each request in between, and a cache can pay at most its capacity for each request of the trace.
    /// The cheapest stretches are paid for, even where they don't fit beside each other. Each stretch has its cost
    /// and its weight, in the order of cost.
    Bound { stretches: Vec<(u128, u64)> },
}

impl Optimum {
    /// The optimum of `trace`.
    pub(super) fn of(trace: &Trace) -> Self {
        let requests = trace.requests.len() as u64;
        let mut weights = trace.requests.iter().map(|request| trace.weight(*request));
        let first = weights.next().unwrap_or_default();
        if weights.all(|weight| weight == first) {
            let keys = trace.requests.iter().map(|request| request.key);
            return Self {
                requests,
                how: How::Exact { weight: first, next: keys.zip(next(trace)).collect() },
            };
        }
        Self { requests, how: How::Bound { stretches: stretches(trace) } }
    }

    /// The name of the method.
    pub(super) fn name(&self) -> &'static str {
        match self.how {
            How::Exact { .. } => "optimum (MIN)",
            How::Bound { .. } => "bound (PFOO-L)",
        }
    }

    /// The highest share of hits that a cache of this capacity, in bytes of weight, can have.
    pub(super) fn hit_ratio(&self, capacity: u64) -> f64 {
        let hits = match &self.how {
            How::Exact { weight, next } => min(next, capacity / weight),
            How::Bound { stretches } => pfoo_l(stretches, capacity, self.requests),
        };
        hits as f64 / self.requests as f64
    }
}

/// Of each request the number of the next one that its image could answer: for the same key, and not replaced
/// before.
fn next(trace: &Trace) -> Vec<Option<u32>> {
    let mut next = vec![None; trace.requests.len()];
    let mut last: Vec<Option<usize>> = vec![None; trace.keys.len()];
    for (at, request) in trace.requests.iter().enumerate() {
        if let Some(before) = last[request.key as usize].replace(at)
            && trace.requests[before].bytes == request.bytes
        {
            next[before] = u32::try_from(at).ok();
        }
    }
    next
}

/// The hits of a cache with room for `places` images that always keeps those which are asked for soonest. Unlike
/// the textbook's, it need not keep what it has just read; CLOCK-Pro doesn't always either.
fn min(next: &[(u32, Option<u32>)], places: u64) -> u64 {
    let mut hits = 0;
    let keys = next.iter().map(|(key, _)| *key as usize + 1).max().unwrap_or_default();
    let mut resident = vec![false; keys];
    let mut count = 0;
    // The resident images by their next request, the latest first. Those that have been asked for since are
    // still in it, with a request that has passed: behind all others.
    let mut latest: BinaryHeap<(u32, u32)> = BinaryHeap::new();
    for &(key, next) in next {
        if std::mem::take(&mut resident[key as usize]) {
            hits += 1;
            count -= 1;
        }
        let Some(next) = next else { continue };
        latest.push((next, key));
        resident[key as usize] = true;
        count += 1;
        if count > places
            && let Some((_, leaves)) = latest.pop()
        {
            resident[leaves as usize] = false;
            count -= 1;
        }
    }
    hits
}

fn stretches(trace: &Trace) -> Vec<(u128, u64)> {
    let stretch = |(at, next): (usize, Option<u32>)| {
        let weight = trace.weight(trace.requests[at]);
        next.map(|next| (u128::from(weight) * (next as usize - at) as u128, weight))
    };
    let mut stretches: Vec<_> = next(trace).into_iter().enumerate().filter_map(stretch).collect();
    stretches.sort_unstable();
    stretches
}

fn pfoo_l(stretches: &[(u128, u64)], capacity: u64, requests: u64) -> u64 {
    let mut left = u128::from(capacity) * u128::from(requests);
    let mut hits = 0;
    for (cost, _) in stretches.iter().filter(|(_, weight)| *weight <= capacity) {
        let Some(rest) = left.checked_sub(*cost) else { break };
        left = rest;
        hits += 1;
    }
    hits
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::HashMap;

    use proptest::prelude::*;
    use wire::{Capacity, Key};

    use super::super::POLICIES;
    use super::super::simulate;
    use super::super::trace::Request;
    use super::*;

    fn trace(requests: impl IntoIterator<Item = (u32, u64)>) -> Trace {
        let requests: Vec<Request> =
            requests.into_iter().map(|(key, bytes)| Request { key, bytes }).collect();
        let keys = requests.iter().map(|request| request.key + 1).max().unwrap_or_default();
        let keys = (0..keys).map(|number| Key::new(&format!("{number:04}")).unwrap()).collect();
        Trace { name: "t".to_owned(), about: String::new(), keys, requests }
    }

    /// The most hits, by trying everything: after each request, any subset of what was resident and what was read
    /// that fits.
    fn brute_force(trace: &Trace, capacity: u64) -> u64 {
        // Each set of resident images (a bit for each key, in its present size), and the hits so far.
        let mut states = HashMap::from([(0_u32, 0_u64)]);
        let mut sizes: HashMap<u32, u64> = HashMap::new();
        for request in &trace.requests {
            let bit = 1 << request.key;
            let replaced = sizes.insert(request.key, trace.weight(*request));
            let replaced = replaced.is_some_and(|before| before != trace.weight(*request));
            let mut after: HashMap<u32, u64> = HashMap::new();
            for (resident, hits) in states {
                let resident = if replaced { resident & !bit } else { resident };
                let hits = hits + u64::from(resident & bit != 0);
                let whole = resident | bit;
                let mut kept = whole;
                loop {
                    let weight: u64 = sizes
                        .iter()
                        .filter(|(key, _)| kept & (1 << **key) != 0)
                        .map(|(_, weight)| weight)
                        .sum();
                    if weight <= capacity {
                        let best = after.entry(kept).or_default();
                        *best = hits.max(*best);
                    }
                    if kept == 0 {
                        break;
                    }
                    kept = (kept - 1) & whole;
                }
            }
            states = after;
        }
        states.into_values().max().unwrap_or_default()
    }

    fn hits(trace: &Trace, capacity: u64) -> u64 {
        (Optimum::of(trace).hit_ratio(capacity) * trace.requests.len() as f64).round() as u64
    }

    proptest! {
        #[test]
        fn min_is_what_trying_everything_finds(keys in proptest::collection::vec(0..6u32, 1..14), places in 0..5u64) {
            let trace = trace(keys.into_iter().map(|key| (key, 1000)));
            let capacity = places * trace.weight(trace.requests[0]) + 7;
            prop_assert_eq!(Optimum::of(&trace).name(), "optimum (MIN)");
            prop_assert_eq!(hits(&trace, capacity), brute_force(&trace, capacity));
        }

        #[test]
        fn the_bound_is_no_less_than_trying_everything_finds(
            requests in proptest::collection::vec((0..5u32, 1..4u64), 1..12),
            capacity in 0..8u64,
        ) {
            let trace = trace(requests.into_iter().map(|(key, size)| (key, size * 1000)));
            let capacity = capacity * 1000;
            prop_assert!(hits(&trace, capacity) >= brute_force(&trace, capacity));
        }

        #[test]
        fn min_is_no_more_than_the_bound(keys in proptest::collection::vec(0..40u32, 1..300), places in 1..30u64) {
            let trace = trace(keys.into_iter().map(|key| (key, 1000)));
            let capacity = places * trace.weight(trace.requests[0]);
            let bound = pfoo_l(&stretches(&trace), capacity, trace.requests.len() as u64);
            prop_assert!(hits(&trace, capacity) <= bound);
        }

        #[test]
        fn no_policy_is_above_the_optimum(
            requests in proptest::collection::vec((0..24u32, 0..4usize), 1..120),
            equal in any::<bool>(),
        ) {
            let sizes = [60_000, 100_000, 250_000, 900_000];
            let requests = requests.into_iter().map(|(key, size)| (key, sizes[if equal { 1 } else { size }]));
            let trace = trace(requests);
            let capacity = Capacity::from_mb(1, 1).unwrap();
            let optimum = Optimum::of(&trace).hit_ratio(capacity.bytes());
            for policy in POLICIES {
                prop_assert!(simulate::hit_ratio(&trace, policy, capacity) <= optimum, "{}", policy);
            }
        }
    }

    #[test]
    fn where_everything_fits_only_first_requests_miss() {
        let trace = trace((0..100).map(|at| (at % 10, 1000)));
        assert_eq!(hits(&trace, trace.footprint()), 90);
    }
}
