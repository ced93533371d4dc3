//! Exactly the least recently used entry leaves, across the whole cache.

use std::sync::Arc;

use lru::LruCache;
use wire::Key;

use super::{Entry, Replacement};

/// The library's cache without its own bound, which counts entries; here bytes are bounded.
pub(super) struct Lru {
    entries: LruCache<Key, Arc<Entry>>,
    weight: u64,
    capacity: u64,
}

impl Lru {
    pub(super) fn new(capacity: u64) -> Self {
        Self { entries: LruCache::unbounded(), weight: 0, capacity }
    }

    fn evict_above(&mut self, weight: u64, evicted: &mut Vec<Arc<Entry>>) {
        while self.weight > weight {
            let Some((_, entry)) = self.entries.pop_lru() else { return };
            self.weight -= entry.weight();
            evicted.push(entry);
        }
    }
}

impl Replacement for Lru {
    fn get(&mut self, key: &Key) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    fn insert(&mut self, entry: Arc<Entry>, evicted: &mut Vec<Arc<Entry>>) {
        self.evict_above(self.capacity.saturating_sub(entry.weight()), evicted);
        self.weight += entry.weight();
        self.entries.put(entry.key.clone(), entry);
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Entry>> {
        let entry = self.entries.pop(key)?;
        self.weight -= entry.weight();
        Some(entry)
    }

    fn set_capacity(&mut self, bytes: u64, evicted: &mut Vec<Arc<Entry>>) {
        self.capacity = bytes;
        self.evict_above(bytes, evicted);
    }

    fn weight(&self) -> u64 {
        self.weight
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn for_each(&self, see: &mut dyn FnMut(&Arc<Entry>)) {
        self.entries.iter().for_each(|(_, entry)| see(entry));
    }
}
