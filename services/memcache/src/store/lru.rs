//! Exact LRU: the entry that is evicted is the least recently used one of the whole cache.

use std::sync::Arc;

use lru::LruCache;
use wire::Item;

use super::bounded::Order;
use super::entry::{ByItem, Entry, Named};

/// The library's cache without its own limit, which counts entries: the limit here is one of bytes.
pub(super) struct Lru(LruCache<ByItem, ()>);

impl Lru {
    pub(super) fn new() -> Self {
        Self(LruCache::unbounded())
    }
}

impl Order for Lru {
    fn get(&mut self, item: &Item) -> Option<&Arc<Entry>> {
        self.0.get_key_value(item as &dyn Named).map(|(ByItem(entry), ())| entry)
    }

    fn insert(&mut self, entry: Arc<Entry>) {
        self.0.put(ByItem(entry), ());
    }

    fn remove(&mut self, item: &Item) -> Option<Arc<Entry>> {
        self.0.pop_entry(item as &dyn Named).map(|(ByItem(entry), ())| entry)
    }

    fn evict(&mut self) -> Option<Arc<Entry>> {
        self.0.pop_lru().map(|(ByItem(entry), ())| entry)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn for_each(&self, see: &mut dyn FnMut(&Arc<Entry>)) {
        self.0.iter().for_each(|(ByItem(entry), ())| see(entry));
    }
}
