//! CLOCK-Pro by quick_cache: an entry must be used twice before it counts as hot, so that one pass over
//! many images does not evict those that are used again and again.

use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::unsync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use wire::Item;

use super::entry::{ByItem, Entry, Named, Replacement};

/// The size of an image for which the memory of evicted keys (CLOCK-Pro's test period) is laid out.
const TYPICAL_IMAGE_BYTES: u64 = 16 << 10;
const FEWEST_ITEMS: usize = 1024;

/// One shard: with several, each has its own capacity, and a large image would fit in none.
pub(super) struct ClockPro {
    cache: Cache<ByItem, Arc<Entry>, ByWeight, DefaultHashBuilder, Collect>,
    evicted: Evicted,
}

/// The entries that were evicted since the last look. They are behind a lock only because the library hands
/// entries to a shared reference; nothing ever waits for the lock.
type Evicted = Arc<Mutex<Vec<Arc<Entry>>>>;

#[derive(Clone)]
struct ByWeight;

impl Weighter<ByItem, Arc<Entry>> for ByWeight {
    fn weight(&self, _key: &ByItem, entry: &Arc<Entry>) -> u64 {
        entry.weight()
    }
}

/// Collects evicted entries. The library also calls it for replacements and refusals, and neither happens here: a
/// key is removed before it is inserted, and an entry that is too heavy is rejected before.
#[derive(Clone)]
struct Collect(Evicted);

impl Lifecycle<ByItem, Arc<Entry>> for Collect {
    type RequestState = ();

    fn on_evict(&self, _state: &mut Self::RequestState, _key: ByItem, entry: Arc<Entry>) {
        self.0.lock().push(entry);
    }
}

impl ClockPro {
    pub(super) fn new(capacity: u64) -> Self {
        let items = usize::try_from(capacity / TYPICAL_IMAGE_BYTES).unwrap_or(usize::MAX).max(FEWEST_ITEMS);
        let evicted = Evicted::default();
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(items).weight_capacity(capacity).shards(1);
        #[expect(clippy::expect_used, reason = "both values that the builder asks for are given")]
        let options = options.build().expect("capacity and items are set");
        let cache =
            Cache::with_options(options, ByWeight, DefaultHashBuilder::default(), Collect(evicted.clone()));
        Self { cache, evicted }
    }

    fn collect(&self, evicted: &mut Vec<Arc<Entry>>) {
        evicted.append(&mut self.evicted.lock());
    }
}

impl Replacement for ClockPro {
    fn get(&mut self, item: &Item) -> Option<&Arc<Entry>> {
        self.cache.get(item as &dyn Named)
    }

    fn insert(&mut self, entry: Arc<Entry>, evicted: &mut Vec<Arc<Entry>>) {
        self.cache.insert(ByItem(entry.clone()), entry);
        self.collect(evicted);
    }

    fn remove(&mut self, item: &Item) -> Option<Arc<Entry>> {
        self.cache.remove(item as &dyn Named).map(|(_, entry)| entry)
    }

    fn set_capacity(&mut self, bytes: u64, evicted: &mut Vec<Arc<Entry>>) {
        self.cache.set_capacity(bytes);
        self.collect(evicted);
    }

    fn weight(&self) -> u64 {
        self.cache.weight()
    }

    fn len(&self) -> usize {
        self.cache.len()
    }

    fn for_each(&self, see: &mut dyn FnMut(&Arc<Entry>)) {
        self.cache.iter().for_each(|(_, entry)| see(entry));
    }
}
