//! The typed store: resident entries, their accounting, their leases. Knows neither NATS nor JSON.
//!
//! Everything is under one lock (see [`crate::worker`]), because a lookup is a hash, a few pointers
//! and a few additions: far less work than the message around it.

mod admission;
mod bounded;
mod clock_pro;
mod entry;
mod listing;
mod lru;
mod random;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wire::near::KeyHits;
use wire::{Capacity, Counters, Item, Key, Lease, Policy, Tag};

pub(crate) use self::admission::Admission;
use self::admission::Doorkeeper;
use self::bounded::Bounded;
pub(crate) use self::entry::MAPPED_BYTES;
use self::entry::Replacement;
pub use self::entry::{ENTRY_OVERHEAD_BYTES, Entry};
use crate::holders::Holders;
use crate::lease::Leases;

/// An image may have up to this percentage of the capacity. All policies have the same limit;
/// CLOCK-Pro (quick_cache) could hold no more than 97 %.
const LARGEST_ENTRY_PERCENT: u64 = 90;

fn replacement(policy: Policy, capacity: u64) -> Option<Box<dyn Replacement>> {
    match policy {
        Policy::None => None,
        Policy::Random => Some(Box::new(Bounded::new(capacity, random::Random::new(rand::random())))),
        Policy::Lru => Some(Box::new(Bounded::new(capacity, lru::Lru::new()))),
        Policy::ClockPro => Some(Box::new(clock_pro::ClockPro::new(capacity))),
    }
}

/// The outcome of a get.
#[derive(Debug)]
pub enum Lookup {
    /// The entry.
    Hit(Arc<Entry>),
    /// The entry, of which the other side holds a current copy: no bytes need to be sent.
    Fresh(Arc<Entry>),
    /// No entry. The lease, if there is one, allows a fill.
    Miss(Option<Lease>),
    /// The entry has this many bytes, more than the get has room for. Nothing is counted: the next get, with
    /// more room, counts.
    Larger(u64),
}

/// The outcome of an insertion.
#[derive(Debug)]
pub enum Insert {
    /// The entry is resident; these entries were evicted for it.
    Stored(Vec<Arc<Entry>>),
    /// The policy keeps nothing.
    NotKept,
    /// The image is larger than `limit_bytes`. An older value under its key has been removed.
    Rejected {
        /// The largest image that could be kept now, in bytes.
        limit_bytes: u64,
    },
    /// The fill's lease is not the current one.
    Refused,
}

/// The entries that a clear dropped. Their memory is freed with this value, outside of the lock.
pub(crate) struct Dropped {
    /// The number of entries.
    pub(crate) entries: u64,
    /// Their weight, in bytes.
    pub(crate) bytes: u64,
    _resident: Option<Box<dyn Replacement>>,
}

/// The state of the store at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// The policy in force.
    pub policy: Policy,
    /// The capacity, in bytes.
    pub capacity: u64,
    /// The weight of all entries, in bytes.
    pub cache_size: u64,
    /// The number of resident entries.
    pub key_count: u64,
    /// The counts since the start.
    pub counters: Counters,
}

/// The store.
pub struct Store {
    policy: Policy,
    capacity: u64,
    /// `None` under the policy `none`.
    resident: Option<Box<dyn Replacement>>,
    leases: Leases,
    doorkeeper: Doorkeeper,
    /// The near leases. They are under the same lock as the entries, so that reading a value and noting its holder
    /// are one step.
    pub(crate) holders: Holders,
    counters: Counters,
    /// The number of uses so far, so that entries can be sorted by their last use under every policy.
    clock: u64,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.snapshot().fmt(f)
    }
}

impl Store {
    /// An empty store.
    pub fn new(policy: Policy, capacity: Capacity) -> Self {
        let capacity = capacity.bytes();
        let (counters, clock) = (Counters::default(), 0);
        Self {
            policy,
            capacity,
            resident: replacement(policy, capacity),
            leases: Leases::default(),
            doorkeeper: Doorkeeper::default(),
            holders: Holders::new(Duration::ZERO),
            counters,
            clock,
        }
    }

    /// The same store with near leases of this length.
    pub(crate) fn with_near_leases(self, length: Duration) -> Self {
        Self { holders: Holders::new(length), ..self }
    }

    /// The same store, which lets in what `admission` says.
    pub(crate) fn with_admission(self, admission: Admission) -> Self {
        Self { doorkeeper: Doorkeeper::new(admission), ..self }
    }

    /// Looks `item` up for a reader that holds a copy with the tag `held` and has room for `most` bytes.
    ///
    /// While the worker is not `serving`, the outcome is a miss without a lease: resident entries may be stale.
    pub fn get(&mut self, item: &Item, held: Option<&Tag>, most: u64, serving: bool, now: Instant) -> Lookup {
        match self.look(item, held, most, serving) {
            Lookup::Miss(_) if serving => Lookup::Miss(self.admit(item, now)),
            found => found,
        }
    }

    /// A lease for a missed item, where the policy in force keeps anything and the item is let in.
    fn admit(&mut self, item: &Item, now: Instant) -> Option<Lease> {
        let resident = self.resident.as_ref()?;
        let (entries, weight) = (resident.len(), resident.weight());
        // The size of what is missed is not known yet: room for one of the mean weight is room.
        let has_room = weight + weight / entries.max(1) as u64 <= self.capacity;
        self.doorkeeper.admits(item, entries, has_room).then(|| self.leases.grant(item, now)).flatten()
    }

    /// As [`Store::get`], for a reader that fills nothing: a miss leaves the lease to others.
    pub(crate) fn look(&mut self, item: &Item, held: Option<&Tag>, most: u64, serving: bool) -> Lookup {
        let Some(resident) = self.resident.as_mut().filter(|_| serving) else {
            self.counters.request_count += 1;
            self.counters.miss_count += 1;
            return Lookup::Miss(None);
        };
        let Some(entry) = resident.get(item) else {
            self.counters.request_count += 1;
            self.counters.miss_count += 1;
            return Lookup::Miss(None);
        };
        let (size, is_fresh) = (entry.size(), held == Some(&entry.tag));
        if size > most && !is_fresh {
            return Lookup::Larger(size);
        }
        self.clock += 1;
        entry.last_used.store(self.clock, Ordering::Relaxed);
        entry.hits.fetch_add(1, Ordering::Relaxed);
        self.counters.request_count += 1;
        self.counters.hit_count += 1;
        if is_fresh {
            return Lookup::Fresh(entry.clone());
        }
        self.counters.served_bytes += size;
        Lookup::Hit(entry.clone())
    }

    /// The entry of `item`, if it still has this tag: for a holder of a copy that only asks for more time. It counts
    /// as a use of the entry, but neither as a lookup nor as a hit.
    pub(crate) fn confirm(&mut self, item: &Item, tag: &Tag) -> Option<&Arc<Entry>> {
        self.resident.as_mut()?.get(item).filter(|entry| entry.tag == *tag)
    }

    /// Counts hits that a gateway served from its copy, as uses of the entry if it is still resident.
    pub(crate) fn count_near_hits(&mut self, hits: &KeyHits) {
        let counters = &mut self.counters;
        for count in [&mut counters.request_count, &mut counters.hit_count, &mut counters.near_hit_count] {
            *count = count.saturating_add(hits.count);
        }
        counters.served_bytes = counters.served_bytes.saturating_add(hits.bytes);
        let item = Item { key: hits.key.clone(), variant: hits.variant };
        if let Some(entry) = self.resident.as_mut().and_then(|resident| resident.get(&item)) {
            self.clock += 1;
            entry.last_used.store(self.clock, Ordering::Relaxed);
            entry.hits.fetch_add(hits.count, Ordering::Relaxed);
        }
    }

    /// Inserts an image that was read from the origin after the miss that handed out `lease`.
    pub fn fill(&mut self, entry: Entry, lease: Lease, now: Instant) -> Insert {
        if !self.leases.redeem(&entry.item(), lease, now) {
            self.counters.refused_fill_count += 1;
            return Insert::Refused;
        }
        let outcome = self.insert(entry);
        if matches!(outcome, Insert::Stored(_)) {
            self.counters.fill_count += 1;
        }
        outcome
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Uncounts what came since `counters` were read.
    pub(crate) fn take_counters_back_to(&mut self, counters: Counters) {
        self.counters = counters;
    }

    /// Removes an entry whose bytes are gone.
    pub(crate) fn forget(&mut self, item: &Item) {
        if let Some(resident) = &mut self.resident {
            resident.remove(item);
        }
    }

    /// Takes back a lease that its holder does not use, so that the next miss of `item` may have one.
    pub(crate) fn take_back(&mut self, item: &Item, lease: Lease) {
        self.leases.take_back(item, lease);
    }

    /// Inserts by request, and voids the lease that is out for the item: a fill with it must not undo the put.
    pub fn put(&mut self, entry: Entry) -> Insert {
        self.leases.void(&entry.item());
        let outcome = self.insert(entry);
        if matches!(outcome, Insert::Stored(_)) {
            self.counters.put_count += 1;
        }
        outcome
    }

    /// Counts an image that is too large even to be sent here as rejected. With a `lease`, a fill was to bring it.
    pub(crate) fn reject(&mut self, item: &Item, lease: Option<Lease>, now: Instant) -> Insert {
        match lease {
            Some(lease) if !self.leases.redeem(item, lease, now) => {
                self.counters.refused_fill_count += 1;
                return Insert::Refused;
            }
            Some(_) => {}
            None => self.leases.void(item),
        }
        self.rejected(item)
    }

    fn rejected(&mut self, item: &Item) -> Insert {
        self.counters.rejection_count += 1;
        if let Some(resident) = &mut self.resident {
            resident.remove(item);
        }
        Insert::Rejected { limit_bytes: self.largest_image() }
    }

    fn insert(&mut self, entry: Entry) -> Insert {
        if entry.size() > self.largest_image() {
            return self.rejected(&entry.item());
        }
        let Some(resident) = &mut self.resident else { return Insert::NotKept };
        resident.remove(&entry.item());
        self.clock += 1;
        entry.last_used.store(self.clock, Ordering::Relaxed);
        let mut evicted = Vec::new();
        resident.insert(Arc::new(entry), &mut evicted);
        self.count_evicted(&evicted);
        Insert::Stored(evicted)
    }

    /// The largest image that can be kept, in bytes.
    pub(crate) fn largest_image(&self) -> u64 {
        self.capacity / 100 * LARGEST_ENTRY_PERCENT
    }

    /// Removes the entries of a key, all variants, because its origin changed, and voids the leases that are
    /// out for them. Returns those that were resident.
    pub fn invalidate(&mut self, key: &Key) -> Vec<Arc<Entry>> {
        self.counters.invalidation_count += 1;
        let mut removed = Vec::new();
        Item::for_each_of(key, |item| {
            self.leases.void(item);
            removed.extend(self.resident.as_mut().and_then(|resident| resident.remove(item)));
        });
        removed
    }

    /// A lease for the original of a key whose image has changed. One that `was_resident` was let in before.
    pub(crate) fn refill(&mut self, key: &Key, was_resident: bool, now: Instant) -> Option<Lease> {
        let item = key.clone().into();
        if was_resident { self.leases.grant(&item, now) } else { self.admit(&item, now) }
    }

    /// Drops every entry and voids every lease.
    pub(crate) fn clear(&mut self) -> Dropped {
        self.leases.void_all();
        self.doorkeeper.clear();
        let (entries, bytes) = self.size();
        Dropped {
            entries,
            bytes,
            _resident: std::mem::replace(&mut self.resident, replacement(self.policy, self.capacity)),
        }
    }

    fn size(&self) -> (u64, u64) {
        self.resident.as_ref().map_or((0, 0), |resident| (resident.len() as u64, resident.weight()))
    }

    /// Puts a capacity and a policy into force, and returns the evicted entries.
    ///
    /// Entries stay as far as they fit. A smaller capacity evicts by the policy that was in force; a change of policy
    /// evicts the least recently used entries first.
    pub(crate) fn configure(&mut self, policy: Policy, capacity: Capacity) -> Vec<Arc<Entry>> {
        let mut evicted = Vec::new();
        self.capacity = capacity.bytes();
        if let Some(resident) = &mut self.resident {
            resident.set_capacity(self.capacity, &mut evicted);
        }
        if policy != self.policy {
            self.policy = policy;
            let mut kept = Vec::new();
            if let Some(old) = &self.resident {
                kept.reserve(old.len());
                old.for_each(&mut |entry| kept.push(entry.clone()));
            }
            self.resident = replacement(policy, self.capacity);
            match &mut self.resident {
                Some(resident) => {
                    // The most recently used entry is inserted last, and so is the most recent in the new order.
                    kept.sort_unstable_by_key(|entry| entry.last_used.load(Ordering::Relaxed));
                    for entry in kept {
                        resident.insert(entry, &mut evicted);
                    }
                }
                None => {
                    self.leases.void_all();
                    evicted.append(&mut kept);
                }
            }
        }
        self.count_evicted(&evicted);
        evicted
    }

    fn count_evicted(&mut self, evicted: &[Arc<Entry>]) {
        self.counters.eviction_count += evicted.len() as u64;
        self.counters.evicted_bytes += evicted.iter().map(|entry| entry.weight()).sum::<u64>();
    }

    /// Gauges and counters, taken at one moment.
    pub fn snapshot(&self) -> Snapshot {
        let (key_count, cache_size) = self.size();
        Snapshot {
            policy: self.policy,
            capacity: self.capacity,
            cache_size,
            key_count,
            counters: self.counters,
        }
    }
}

#[cfg(test)]
mod tests;
