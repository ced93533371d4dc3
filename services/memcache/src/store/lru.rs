//! Exactly the least recently used entry leaves, across the whole cache.

use std::sync::Arc;

use lru::LruCache;
use wire::Key;

use super::bounded::Order;
use super::{ByKey, Entry};

/// The library's cache without its own bound, which counts entries; here bytes are bounded.
pub(super) struct Lru(LruCache<ByKey, ()>);

impl Lru {
    pub(super) fn new() -> Self {
        Self(LruCache::unbounded())
    }
}

impl Order for Lru {
    fn get(&mut self, key: &Key) -> Option<&Arc<Entry>> {
        self.0.get_key_value(key).map(|(ByKey(entry), ())| entry)
    }

    fn insert(&mut self, entry: Arc<Entry>) {
        self.0.put(ByKey(entry), ());
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Entry>> {
        self.0.pop_entry(key).map(|(ByKey(entry), ())| entry)
    }

    fn evict(&mut self) -> Option<Arc<Entry>> {
        self.0.pop_lru().map(|(ByKey(entry), ())| entry)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn for_each(&self, see: &mut dyn FnMut(&Arc<Entry>)) {
        self.0.iter().for_each(|(ByKey(entry), ())| see(entry));
    }
}
