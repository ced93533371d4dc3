//! Random replacement: each resident entry leaves with the same probability.

use std::sync::Arc;

use indexmap::IndexMap;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use wire::Key;

use super::Entry;
use super::bounded::Order;

/// Entries at positions 0 to n − 1 without gaps, so that a uniform number picks one in O(1).
pub(super) struct Random {
    entries: IndexMap<Key, Arc<Entry>>,
    dice: SmallRng,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { entries: IndexMap::new(), dice: SmallRng::seed_from_u64(seed) }
    }
}

impl Order for Random {
    fn get(&mut self, key: &Key) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    fn insert(&mut self, entry: Arc<Entry>) {
        self.entries.insert(entry.key.clone(), entry);
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.swap_remove(key)
    }

    fn evict(&mut self) -> Option<Arc<Entry>> {
        if self.entries.is_empty() {
            return None;
        }
        let position = self.dice.random_range(0..self.entries.len());
        self.entries.swap_remove_index(position).map(|(_, entry)| entry)
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn for_each(&self, see: &mut dyn FnMut(&Arc<Entry>)) {
        self.entries.values().for_each(see);
    }
}
