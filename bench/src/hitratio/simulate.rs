//! A trace against the worker's store.

use std::time::Instant;

use memcache::{Entry, Lookup, Store};
use sniff::Format;
use wire::{Capacity, Item, Policy, Tag};

use super::trace::Trace;

/// The share of the requests that are hits.
pub(super) fn hit_ratio(trace: &Trace, policy: Policy, capacity: Capacity) -> f64 {
    let mut store = Store::new(policy, capacity);
    // All requests happen at one moment, so that no lease runs out.
    let now = Instant::now();
    let largest = trace.requests.iter().map(|request| request.bytes).max().unwrap_or_default();
    // The store weighs images and copies them; it looks at nothing else.
    let zeros = vec![0; largest as usize];
    let items: Vec<Item> = trace.keys.iter().map(|key| key.clone().into()).collect();
    let mut sizes = vec![None; trace.keys.len()];
    for request in &trace.requests {
        let item = &items[request.key as usize];
        let size = &mut sizes[request.key as usize];
        if size.replace(request.bytes).is_some_and(|before| before != request.bytes) {
            store.invalidate(&item.key);
        }
        if let Lookup::Miss(Some(lease)) = store.get(item, None, u64::MAX, true, now) {
            let entry =
                Entry::new(item.clone(), &zeros[..request.bytes as usize], Format::Png, Tag([0; 32]), 0);
            store.fill(entry, lease, now);
        }
    }
    let counters = store.snapshot().counters;
    counters.hit_count as f64 / counters.request_count as f64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use wire::Key;

    use super::*;
    use crate::hitratio::trace::Request;

    #[test]
    fn hits_are_counted_and_a_replaced_image_is_a_miss() {
        let requests = [(0, 100), (0, 100), (0, 200), (0, 200)].map(|(key, bytes)| Request { key, bytes });
        let trace = Trace {
            name: String::new(),
            about: String::new(),
            keys: vec![Key::new("a").unwrap()],
            requests: requests.to_vec(),
        };
        let capacity = Capacity::from_mb(1, 1).unwrap();
        for policy in [Policy::Random, Policy::Lru, Policy::ClockPro] {
            assert_eq!(hit_ratio(&trace, policy, capacity), 0.5);
        }
        assert_eq!(hit_ratio(&trace, Policy::None, capacity), 0.0);
    }
}
