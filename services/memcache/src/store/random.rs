//! Random replacement: each resident entry is evicted with the same probability.

use std::sync::Arc;

use indexmap::IndexSet;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use wire::Item;

use super::bounded::Order;
use super::entry::{ByItem, Entry, Named};

/// Entries at positions 0 to n − 1 without gaps, so that a uniform number picks one in O(1).
pub(super) struct Random {
    entries: IndexSet<ByItem>,
    dice: SmallRng,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { entries: IndexSet::new(), dice: SmallRng::seed_from_u64(seed) }
    }
}

impl Order for Random {
    fn get(&mut self, item: &Item) -> Option<&Arc<Entry>> {
        self.entries.get(item as &dyn Named).map(|ByItem(entry)| entry)
    }

    fn insert(&mut self, entry: Arc<Entry>) {
        self.entries.insert(ByItem(entry));
    }

    fn remove(&mut self, item: &Item) -> Option<Arc<Entry>> {
        self.entries.swap_take(item as &dyn Named).map(|ByItem(entry)| entry)
    }

    fn evict(&mut self) -> Option<Arc<Entry>> {
        if self.entries.is_empty() {
            return None;
        }
        let position = self.dice.random_range(0..self.entries.len());
        self.entries.swap_remove_index(position).map(|ByItem(entry)| entry)
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn for_each(&self, see: &mut dyn FnMut(&Arc<Entry>)) {
        self.entries.iter().for_each(|ByItem(entry)| see(entry));
    }
}
