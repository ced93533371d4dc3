#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use wire::config::MEGABYTE;
use wire::inspect::{KeySort, KeysRequest};

use runtime::clock::Moment;
use sniff::Format;
use wire::Variant;

use super::*;

fn capacity(mb: u64) -> Capacity {
    Capacity::from_mb(mb, 1 << 20).unwrap()
}

fn key(number: u16) -> Key {
    Key::new(&format!("k{number}")).unwrap()
}

fn item(number: u16) -> Item {
    key(number).into()
}

fn entry(number: u16, bytes: usize) -> Entry {
    Entry::new(item(number), &vec![7; bytes], Format::Png, Tag([1; 32]), 0)
}

fn is_hit(store: &mut Store, number: u16) -> bool {
    !matches!(store.get(&item(number), None, u64::MAX, true, Instant::now()), Lookup::Miss(_))
}

fn lease_for(store: &mut Store, number: u16) -> Lease {
    match store.get(&item(number), None, u64::MAX, true, Instant::now()) {
        Lookup::Miss(Some(lease)) => lease,
        other => panic!("no lease but {other:?}"),
    }
}

#[test]
fn a_miss_a_fill_and_a_hit() {
    let mut store = Store::new(Policy::Lru, capacity(1));
    let lease = lease_for(&mut store, 1);
    assert!(
        matches!(store.fill(entry(1, 100), lease, Instant::now()), Insert::Stored(evicted) if evicted.is_empty())
    );
    assert!(
        matches!(store.get(&item(1), None, u64::MAX, true, Instant::now()), Lookup::Hit(entry) if entry.size() == 100)
    );
    let held = Tag([1; 32]);
    assert!(matches!(store.get(&item(1), Some(&held), 0, true, Instant::now()), Lookup::Fresh(_)));
    let other = Tag([2; 32]);
    assert!(matches!(store.get(&item(1), Some(&other), 100, true, Instant::now()), Lookup::Hit(_)));
    // A get without room for the entry is counted only when it is asked again; one with the current tag needs no room.
    assert!(matches!(store.get(&item(1), None, 99, true, Instant::now()), Lookup::Larger(100)));
    let counters = store.snapshot().counters;
    assert_eq!((counters.request_count, counters.hit_count, counters.miss_count), (4, 3, 1));
    assert_eq!((counters.fill_count, counters.served_bytes), (1, 200));
}

#[test]
fn variants_are_entries_of_their_own_and_go_with_their_key() {
    for policy in [Policy::Random, Policy::Lru, Policy::ClockPro] {
        let mut store = Store::new(policy, capacity(1));
        let small = Item { variant: Some(Variant::W160), ..item(1) };
        let look = |store: &mut Store, item: &Item| store.get(item, None, u64::MAX, true, Instant::now());
        let (Lookup::Miss(Some(whole)), Lookup::Miss(Some(lease))) =
            (look(&mut store, &item(1)), look(&mut store, &small))
        else {
            panic!("each has a lease of its own")
        };
        let thumbnail = || Entry::new(small.clone(), &[7; 10], Format::Jpeg, Tag([2; 32]), 0);
        assert!(matches!(store.fill(thumbnail(), whole, Instant::now()), Insert::Refused));
        assert!(matches!(store.fill(entry(1, 100), whole, Instant::now()), Insert::Stored(_)));
        assert!(matches!(store.fill(thumbnail(), lease, Instant::now()), Insert::Stored(_)));
        assert!(matches!(look(&mut store, &item(1)), Lookup::Hit(entry) if entry.size() == 100));
        assert!(matches!(look(&mut store, &small), Lookup::Hit(entry) if entry.item() == small));
        assert_eq!(store.snapshot().key_count, 2);

        // A lease for a third one is void afterwards.
        let large = Item { variant: Some(Variant::W1280), ..item(1) };
        let Lookup::Miss(Some(lease)) = look(&mut store, &large) else { panic!("no lease") };
        store.put(entry(2, 100));
        assert_eq!(store.invalidate(&key(1)).len(), 2);
        let late = Entry::new(large, &[7; 10], Format::Jpeg, Tag([3; 32]), 0);
        assert!(matches!(store.fill(late, lease, Instant::now()), Insert::Refused));
        assert_eq!(store.snapshot().key_count, 1);
        assert_eq!(store.invalidate(&key(1)).len(), 0);
    }
}

#[test]
fn a_list_goes_through_variants_one_by_one() {
    let mut store = Store::new(Policy::Lru, capacity(1));
    let mut stored = Vec::new();
    for number in 1..=3 {
        Item::for_each_of(&key(number), |item| {
            store.put(Entry::new(item.clone(), &[7; 10], Format::Png, Tag([1; 32]), 0));
            stored.push(item.clone());
        });
    }
    for sort in [KeySort::Recent, KeySort::Size, KeySort::Hits, KeySort::Key] {
        let mut request = KeysRequest { sort, limit: 2, ..KeysRequest::default() };
        let mut seen = Vec::new();
        loop {
            let page = store.keys(&request, Moment::now()).unwrap();
            seen.extend(page.keys.into_iter().map(|entry| Item { key: entry.key, variant: entry.variant }));
            request.after = page.next;
            if request.after.is_none() {
                break;
            }
        }
        if sort == KeySort::Recent {
            seen.reverse();
        }
        assert_eq!(seen, stored, "{sort:?}");
    }
    let bad = KeysRequest { sort: KeySort::Key, after: Some("k1\nw99".into()), ..KeysRequest::default() };
    assert!(store.keys(&bad, Moment::now()).is_err());
}

#[test]
fn a_fill_after_an_invalidation_is_refused() {
    let mut store = Store::new(Policy::Lru, capacity(1));
    let lease = lease_for(&mut store, 1);
    store.invalidate(&key(1));
    assert!(matches!(store.fill(entry(1, 100), lease, Instant::now()), Insert::Refused));
    let lease = lease_for(&mut store, 1);
    store.clear();
    assert!(matches!(store.fill(entry(1, 100), lease, Instant::now()), Insert::Refused));
    let lease = lease_for(&mut store, 1);
    assert!(matches!(store.put(entry(1, 50)), Insert::Stored(_)));
    assert!(matches!(store.fill(entry(1, 100), lease, Instant::now()), Insert::Refused));
    assert!(
        matches!(store.get(&item(1), None, u64::MAX, true, Instant::now()), Lookup::Hit(entry) if entry.size() == 50)
    );
    assert_eq!(store.snapshot().counters.refused_fill_count, 3);
}

#[test]
fn while_not_serving_everything_is_a_miss_without_a_lease() {
    let mut store = Store::new(Policy::ClockPro, capacity(1));
    store.put(entry(1, 100));
    assert!(matches!(store.get(&item(1), None, u64::MAX, false, Instant::now()), Lookup::Miss(None)));
    assert!(matches!(store.get(&item(2), None, u64::MAX, false, Instant::now()), Lookup::Miss(None)));
    assert_eq!(store.snapshot().counters.miss_count, 2);
}

#[test]
fn the_policy_none_keeps_nothing_and_leases_nothing() {
    let mut store = Store::new(Policy::None, capacity(1));
    assert!(matches!(store.get(&item(1), None, u64::MAX, true, Instant::now()), Lookup::Miss(None)));
    assert!(matches!(store.put(entry(1, 100)), Insert::NotKept));
    assert_eq!(store.snapshot().key_count, 0);
    assert!(matches!(store.get(&item(1), None, u64::MAX, true, Instant::now()), Lookup::Miss(None)));
}

#[test]
fn an_image_of_ninety_hundredths_fits_and_a_larger_one_does_not_under_every_policy() {
    for policy in [Policy::Random, Policy::Lru, Policy::ClockPro] {
        for mb in [1, 3, 64] {
            let mut store = Store::new(policy, capacity(mb));
            let largest = usize::try_from(mb * MEGABYTE / 100 * 90).unwrap();
            for number in 0..20 {
                store.put(entry(number, 10_000));
            }
            assert!(matches!(store.put(entry(99, largest)), Insert::Stored(_)), "{policy} {mb}");
            assert!(is_hit(&mut store, 99), "{policy} {mb}");
            // The older value under the key of a heavier one goes, and nothing else.
            assert!(
                matches!(store.put(entry(99, largest + 1)), Insert::Rejected { limit_bytes } if limit_bytes == largest as u64)
            );
            assert!(!is_hit(&mut store, 99));
            assert_eq!(store.snapshot().counters.rejection_count, 1);
        }
    }
}

#[test]
fn an_image_that_could_not_even_be_sent_is_counted_and_its_lease_used_up() {
    let mut store = Store::new(Policy::Lru, capacity(1));
    let lease = lease_for(&mut store, 1);
    let now = Instant::now();
    assert!(matches!(store.reject(&item(1), Some(lease), now), Insert::Rejected { .. }));
    assert!(matches!(store.reject(&item(1), Some(lease), now), Insert::Refused));
    assert_eq!(store.snapshot().counters.rejection_count, 1);
}

#[test]
fn a_change_of_policy_keeps_what_fits_and_the_order_of_use() {
    for from in [Policy::Random, Policy::ClockPro, Policy::Lru] {
        for to in [Policy::Random, Policy::ClockPro, Policy::Lru] {
            let mut store = Store::new(from, capacity(2));
            for number in 0..10 {
                store.put(entry(number, 1000));
            }
            is_hit(&mut store, 0);
            assert!(store.configure(to, capacity(1)).is_empty(), "{from} to {to}");
            assert_eq!(store.snapshot().key_count, 10);
            let recent =
                store.keys(&KeysRequest { limit: 2, ..KeysRequest::default() }, Moment::now()).unwrap();
            assert_eq!(
                recent.keys.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(),
                [key(0), key(9)]
            );
            store.configure(Policy::Lru, capacity(1));
            // The least recently used is now number 1.
            let first = (100..2000).find_map(|number| match store.put(entry(number, 900)) {
                Insert::Stored(evicted) => evicted.first().cloned(),
                _ => None,
            });
            assert_eq!(first.unwrap().key, key(1), "{from} to {to}");
        }
    }
}

#[test]
fn of_given_keys_those_are_listed_that_are_resident() {
    let mut store = Store::new(Policy::Lru, capacity(1));
    for number in 0..10 {
        store.put(entry(number, 100));
    }
    let asked =
        KeysRequest { only: vec![key(3), key(11), key(7)], sort: KeySort::Key, ..KeysRequest::default() };
    let listed = store.keys(&asked, Moment::now()).unwrap();
    assert_eq!(listed.keys.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), [key(3), key(7)]);
    assert_eq!(listed.next, None);
}

#[test]
fn the_policy_none_evicts_what_was_resident_and_the_others_start_anew() {
    let mut store = Store::new(Policy::Lru, capacity(1));
    store.put(entry(1, 100));
    assert_eq!(store.configure(Policy::None, capacity(1)).len(), 1);
    assert_eq!(store.snapshot().counters.eviction_count, 1);
    store.configure(Policy::Random, capacity(1));
    assert_eq!(store.snapshot().key_count, 0);
    assert!(matches!(store.put(entry(1, 100)), Insert::Stored(_)));
}

#[test]
fn random_replacement_is_uniform() {
    // 100 equal entries fill the cache; one more evicts one of them. Over 20,000 trials each of the
    // 100 should leave 200 times. The sum of squared deviations over the expectation has 99 degrees
    // of freedom; it exceeds 170 with a probability of 10^-5.
    const ENTRIES: u16 = 100;
    const TRIALS: u32 = 20_000;
    let size = usize::try_from(MEGABYTE / u64::from(ENTRIES) - ENTRY_OVERHEAD_BYTES - 5).unwrap();
    let mut random = Bounded::new(MEGABYTE, random::Random::new(20_260_101));
    let template = vec![0; size];
    let fresh = |number: u16| {
        Arc::new(Entry::new(
            Key::new(&format!("k{number:04}")).unwrap().into(),
            &template,
            Format::Png,
            Tag([0; 32]),
            0,
        ))
    };
    let entries: Vec<Arc<Entry>> = (0..=ENTRIES).map(fresh).collect();
    let mut left = BTreeMap::<Key, u32>::new();
    for entry in &entries[..usize::from(ENTRIES)] {
        let mut evicted = Vec::new();
        random.insert(entry.clone(), &mut evicted);
        assert!(evicted.is_empty());
    }
    let mut outside = entries[usize::from(ENTRIES)].clone();
    for _ in 0..TRIALS {
        let mut evicted = Vec::new();
        random.insert(outside, &mut evicted);
        assert_eq!(evicted.len(), 1);
        *left.entry(evicted[0].key.clone()).or_default() += 1;
        outside = evicted.remove(0);
    }
    let expected = f64::from(TRIALS) / f64::from(ENTRIES + 1);
    let deviation: f64 = entries
        .iter()
        .map(|entry| (f64::from(left.get(&entry.key).copied().unwrap_or(0)) - expected).powi(2) / expected)
        .sum();
    assert!(deviation < 170.0, "the evictions are not uniform: {deviation}");
}

#[test]
fn pages_of_keys_cover_everything_once_in_order() {
    let mut store = Store::new(Policy::ClockPro, capacity(4));
    for number in 0..57 {
        store.put(entry(number, 100 + usize::from(number % 7) * 10));
    }
    for number in 0..57 {
        for _ in 0..number % 5 {
            store.get(&item(number), None, u64::MAX, true, Instant::now());
        }
    }
    for sort in [KeySort::Key, KeySort::Recent, KeySort::Size, KeySort::Hits] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let request =
                KeysRequest { prefix: "k".into(), limit: 10, after, sort, ..KeysRequest::default() };
            let page = store.keys(&request, Moment::now()).unwrap();
            seen.extend(page.keys);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 57, "{sort:?}");
        match sort {
            KeySort::Key => assert!(seen.is_sorted_by(|a, b| a.key < b.key)),
            KeySort::Size => assert!(seen.is_sorted_by(|a, b| a.bytes >= b.bytes)),
            KeySort::Hits => assert!(seen.is_sorted_by(|a, b| a.hits >= b.hits)),
            KeySort::Recent => assert_eq!(seen.first().unwrap().key, key(56)),
        }
    }
    let request = KeysRequest { prefix: "k5".into(), sort: KeySort::Key, ..KeysRequest::default() };
    assert_eq!(store.keys(&request, Moment::now()).unwrap().keys.len(), 8);
    let bad = KeysRequest { after: Some("x".into()), sort: KeySort::Size, ..KeysRequest::default() };
    assert!(store.keys(&bad, Moment::now()).is_err());
}

#[derive(Debug, Clone)]
enum Step {
    Get(u16),
    Put(u16, usize),
    Invalidate(u16),
    Clear,
    Capacity(u64),
    Policy(usize),
}

fn steps(policies: bool) -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![0usize..2000, 0usize..400_000, 900_000usize..1_100_000];
    let step = prop_oneof![
        10 => (0u16..40).prop_map(Step::Get),
        10 => (0u16..40, size).prop_map(|(number, size)| Step::Put(number, size)),
        2 => (0u16..40).prop_map(Step::Invalidate),
        1 => Just(Step::Clear),
        1 => (1u64..4).prop_map(Step::Capacity),
        u32::from(policies) => (0usize..4).prop_map(Step::Policy),
    ];
    proptest::collection::vec(step, 1..120)
}

/// The plainest LRU that there is: a list, the least recently used first.
#[derive(Default)]
struct PlainLru {
    list: Vec<(u16, u64)>,
    capacity: u64,
}

impl PlainLru {
    fn remove(&mut self, number: u16) -> Option<(u16, u64)> {
        let at = self.list.iter().position(|(other, _)| *other == number)?;
        Some(self.list.remove(at))
    }

    fn shrink(&mut self, room: u64) {
        while self.list.iter().map(|(_, weight)| weight).sum::<u64>() + room > self.capacity
            && !self.list.is_empty()
        {
            self.list.remove(0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn lru_is_exactly_lru(steps in steps(false)) {
        let mut store = Store::new(Policy::Lru, capacity(2));
        let mut plain = PlainLru { capacity: 2 * MEGABYTE, ..PlainLru::default() };
        for step in steps {
            match step {
                Step::Get(number) => {
                    let found = plain.remove(number);
                    plain.list.extend(found);
                    prop_assert_eq!(is_hit(&mut store, number), found.is_some());
                }
                Step::Put(number, size) => {
                    plain.remove(number);
                    let entry = entry(number, size);
                    if size as u64 <= plain.capacity / 100 * 90 {
                        plain.shrink(entry.weight());
                        plain.list.push((number, entry.weight()));
                    }
                    store.put(entry);
                }
                Step::Invalidate(number) => {
                    let was = plain.remove(number).is_some();
                    prop_assert_eq!(!store.invalidate(&key(number)).is_empty(), was);
                }
                Step::Clear => {
                    let dropped = store.clear();
                    prop_assert_eq!(dropped.entries, plain.list.len() as u64);
                    plain.list.clear();
                }
                Step::Capacity(mb) => {
                    plain.capacity = mb * MEGABYTE;
                    plain.shrink(0);
                    store.configure(Policy::Lru, capacity(mb));
                }
                Step::Policy(_) => {}
            }
            let list = store.keys(&KeysRequest { limit: 1000, ..KeysRequest::default() }, Moment::now()).unwrap();
            let resident: Vec<Key> = list.keys.into_iter().rev().map(|entry| entry.key).collect();
            prop_assert_eq!(resident, plain.list.iter().map(|(number, _)| key(*number)).collect::<Vec<_>>());
            prop_assert_eq!(store.snapshot().cache_size, plain.list.iter().map(|(_, weight)| weight).sum::<u64>());
        }
    }

    #[test]
    fn no_policy_ever_exceeds_its_capacity_or_miscounts(policy in 0usize..4, steps in steps(true)) {
        let (mut policy, mut mb) = (Policy::ALL[policy], 2);
        let mut store = Store::new(policy, capacity(mb));
        let (mut inserted, mut removed, mut left) = (0u64, 0u64, 0u64);
        for step in steps {
            match step {
                Step::Get(number) => {
                    is_hit(&mut store, number);
                }
                Step::Put(number, size) => {
                    let was = store.resident.as_mut().is_some_and(|resident| resident.get(&item(number)).is_some());
                    match store.put(entry(number, size)) {
                        Insert::Stored(evicted) => {
                            inserted += 1;
                            left += evicted.len() as u64;
                            prop_assert!(is_hit(&mut store, number), "what was stored is resident");
                        }
                        Insert::NotKept => prop_assert_eq!(policy, Policy::None),
                        Insert::Rejected { limit_bytes } => prop_assert!(size as u64 > limit_bytes),
                        Insert::Refused => prop_assert!(false, "a put has no lease to be refused for"),
                    }
                    removed += u64::from(was);
                }
                Step::Invalidate(number) => removed += store.invalidate(&key(number)).len() as u64,
                Step::Clear => removed += store.clear().entries,
                Step::Capacity(new) => {
                    mb = new;
                    left += store.configure(policy, capacity(mb)).len() as u64;
                }
                Step::Policy(number) => {
                    policy = Policy::ALL[number];
                    left += store.configure(policy, capacity(mb)).len() as u64;
                }
            }
            let now = store.snapshot();
            prop_assert!(now.cache_size <= mb * MEGABYTE, "{} > {mb} MB under {policy}", now.cache_size);
            prop_assert_eq!(now.key_count, inserted - removed - left);
            prop_assert_eq!(now.counters.eviction_count, left);
            prop_assert_eq!(now.counters.request_count, now.counters.hit_count + now.counters.miss_count);
            let (mut weight, mut count) = (0, 0u64);
            if let Some(resident) = &store.resident {
                resident.for_each(&mut |entry| {
                    weight += entry.weight();
                    count += 1;
                });
            }
            prop_assert_eq!((now.cache_size, now.key_count), (weight, count));
        }
    }

    #[test]
    fn a_used_lease_never_fills_again(order in proptest::collection::vec((0u16..3, 0u8..4, 0u64..12), 1..60)) {
        // Any mixture of misses, fills, invalidations and time: a fill is taken exactly when its lease
        // is the last one of its key, less than ten seconds old, and nothing voided it.
        let mut store = Store::new(Policy::Lru, capacity(1));
        let mut now = Instant::now();
        let mut out: BTreeMap<u16, (Lease, Instant, bool)> = BTreeMap::new();
        for (number, what, seconds) in order {
            now += Duration::from_secs(seconds);
            match what {
                0 | 1 => {
                    if let Lookup::Miss(Some(lease)) = store.get(&item(number), None, u64::MAX, true, now) {
                        out.insert(number, (lease, now, true));
                    }
                }
                2 => {
                    if let Some((lease, since, good)) = out.get_mut(&number) {
                        let expected = *good && now - *since < crate::lease::LEASE_TIME;
                        prop_assert_eq!(matches!(store.fill(entry(number, 10), *lease, now), Insert::Stored(_)), expected);
                        *good = false;
                    }
                }
                _ => {
                    store.invalidate(&key(number));
                    if let Some((_, _, good)) = out.get_mut(&number) {
                        *good = false;
                    }
                }
            }
        }
    }
}
