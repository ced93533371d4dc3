//! Random replacement: each resident entry leaves with the same probability.

use std::sync::Arc;

use indexmap::IndexMap;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use wire::Key;

use super::{Entry, Replacement};

/// Entries at positions 0 to n − 1 without gaps, so that a uniform number picks one in O(1).
pub(super) struct Random {
    entries: IndexMap<Key, Arc<Entry>>,
    weight: u64,
    capacity: u64,
    dice: SmallRng,
}

impl Random {
    pub(super) fn new(capacity: u64, seed: u64) -> Self {
        Self { entries: IndexMap::new(), weight: 0, capacity, dice: SmallRng::seed_from_u64(seed) }
    }

    fn evict_above(&mut self, weight: u64, evicted: &mut Vec<Arc<Entry>>) {
        while self.weight > weight && !self.entries.is_empty() {
            let position = self.dice.random_range(0..self.entries.len());
            let Some((_, entry)) = self.entries.swap_remove_index(position) else { return };
            self.weight -= entry.weight();
            evicted.push(entry);
        }
    }
}

impl Replacement for Random {
    fn get(&mut self, key: &Key) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    fn insert(&mut self, entry: Arc<Entry>, evicted: &mut Vec<Arc<Entry>>) {
        self.evict_above(self.capacity.saturating_sub(entry.weight()), evicted);
        self.weight += entry.weight();
        self.entries.insert(entry.key.clone(), entry);
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Entry>> {
        let entry = self.entries.swap_remove(key)?;
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
        self.entries.values().for_each(see);
    }
}
