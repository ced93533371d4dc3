//! Exactly the least recently used entry leaves, across the whole cache.

use std::sync::Arc;

use lru::LruCache;
use wire::Key;

use super::Entry;
use super::bounded::Order;

/// The library's cache without its own bound, which counts entries; here bytes are bounded.
pub(super) struct Lru(LruCache<Key, Arc<Entry>>);

impl Lru {
    pub(super) fn new() -> Self {
        Self(LruCache::unbounded())
    }
}

impl Order for Lru {
    fn get(&mut self, key: &Key) -> Option<&Arc<Entry>> {
        self.0.get(key)
    }

    fn insert(&mut self, entry: Arc<Entry>) {
        self.0.put(entry.key.clone(), entry);
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Entry>> {
        self.0.pop(key)
    }

    fn evict(&mut self) -> Option<Arc<Entry>> {
        self.0.pop_lru().map(|(_, entry)| entry)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn for_each(&self, see: &mut dyn FnMut(&Arc<Entry>)) {
        self.0.iter().for_each(|(_, entry)| see(entry));
    }
}
