//! The accounting of weights for policies that know only an order of eviction.

use std::sync::Arc;

use wire::Item;

use super::entry::{Entry, Replacement};

/// Resident entries in the order in which a policy evicts them.
pub(super) trait Order: Send {
    /// Finds an entry, as a use of it.
    fn get(&mut self, item: &Item) -> Option<&Arc<Entry>>;

    /// Inserts an entry whose item is not resident.
    fn insert(&mut self, entry: Arc<Entry>);

    /// Removes an entry by request.
    fn remove(&mut self, item: &Item) -> Option<Arc<Entry>>;

    /// Removes the entry that the policy evicts next.
    fn evict(&mut self) -> Option<Arc<Entry>>;

    /// How many entries there are.
    fn len(&self) -> usize;

    /// Shows each entry, in any order, without counting as a use of it.
    fn for_each(&self, see: &mut dyn FnMut(&Arc<Entry>));
}

/// An order of entries, kept within a capacity in bytes.
pub(super) struct Bounded<O> {
    order: O,
    weight: u64,
    capacity: u64,
}

impl<O: Order> Bounded<O> {
    /// An empty order, which may weigh `capacity` bytes.
    pub(super) fn new(capacity: u64, order: O) -> Self {
        Self { order, weight: 0, capacity }
    }

    fn evict_above(&mut self, weight: u64, evicted: &mut Vec<Arc<Entry>>) {
        while self.weight > weight {
            let Some(entry) = self.order.evict() else { return };
            self.weight -= entry.weight();
            evicted.push(entry);
        }
    }
}

impl<O: Order> Replacement for Bounded<O> {
    fn get(&mut self, item: &Item) -> Option<&Arc<Entry>> {
        self.order.get(item)
    }

    fn insert(&mut self, entry: Arc<Entry>, evicted: &mut Vec<Arc<Entry>>) {
        self.evict_above(self.capacity.saturating_sub(entry.weight()), evicted);
        self.weight += entry.weight();
        self.order.insert(entry);
    }

    fn remove(&mut self, item: &Item) -> Option<Arc<Entry>> {
        let entry = self.order.remove(item)?;
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
        self.order.len()
    }

    fn for_each(&self, see: &mut dyn FnMut(&Arc<Entry>)) {
        self.order.for_each(see);
    }
}
