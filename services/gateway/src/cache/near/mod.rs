//! The near cache: copies of hot images, served without a message over the bus.
//!
//! A copy is served as long as its near lease lasts, which the worker grants with a hit or an accepted fill
//! (leases in time: Gray and Cheriton, SOSP 1989). This side counts the lease from *before* it sent its
//! request, the worker from after it had it, so here it always ends first. Before the worker acknowledges
//! that an image changed, it has every holder drop its copy or waits for the lease's end. A copy that is served
//! here is therefore never older than the last acknowledged change.
//!
//! A drop can overtake the grant that it revokes. So each question for a lease is noted here before it is sent.
//! A drop marks all open questions: a copy that comes with their grants is not kept.

pub(crate) mod upkeep;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter};
use runtime::clock::{AtomicMoment, Moment};
use runtime::held::hold;
use tokio::sync::{Semaphore, mpsc};
use wire::near::{DropRequest, KeyHits, LONGEST_LEASE_MS};
use wire::{Holder, Item, Key, Tag, Variant};

use crate::head::ImageHead;
use crate::image::ImageMeta;

/// Bytes that a copy takes besides its key and its image: for itself and for its place in the cache's order.
const COPY_OVERHEAD_BYTES: u64 = 512;
/// The size of an image for which the order of copies is laid out.
const TYPICAL_IMAGE_BYTES: u64 = 16 << 10;
/// An image is kept if it takes at most this part of the near cache.
const LARGEST_PART: u64 = 4;
/// Copies up to this size are lent without being counted: about as much lies in a socket's buffer anyway.
const UNCOUNTED_BYTES: usize = 64 << 10;
/// Larger copies that are being sent, in kilobytes: dropped ones stay in memory until the last reader has them.
const LENT_KILOBYTES: usize = 128 << 10;
/// A copy that is asked for in the last part of its lease is renewed, so that no read waits for that.
const RENEWED_IN_LAST: u32 = 3;
/// Renewals that wait to be sent.
const RENEWALS: usize = 1024;

/// The near cache of one gateway process.
#[derive(Debug)]
pub(crate) struct Near {
    holder: Holder,
    largest: u64,
    copies: Cache<Item, Arc<Copy>, ByWeight>,
    /// The open questions for leases, by key because a drop is about all variants. True once a drop has marked one.
    asking: Mutex<HashMap<Key, Vec<Arc<AtomicBool>>>>,
    lent: Arc<Semaphore>,
    /// Copies with hits that were not reported yet.
    hit: Mutex<Vec<Arc<Copy>>>,
    renewals: mpsc::Sender<Arc<Copy>>,
}

/// A copy of an image, under a lease.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) item: Item,
    pub(crate) image: ImageMeta,
    pub(crate) head: ImageHead,
    pub(crate) bytes: Bytes,
    end: AtomicMoment,
    is_renewed: AtomicBool,
    unreported_hits: AtomicU64,
}

#[derive(Debug, Clone)]
struct ByWeight;

impl Weighter<Item, Arc<Copy>> for ByWeight {
    fn weight(&self, item: &Item, copy: &Arc<Copy>) -> u64 {
        item.key.as_str().len() as u64 + copy.bytes.len() as u64 + COPY_OVERHEAD_BYTES
    }
}

/// An item whose key was not parsed. No copy is found for a text that is no key.
#[derive(Debug, Clone, Copy, Hash)]
struct Unparsed<'a> {
    key: &'a str,
    variant: Option<Variant>,
}

impl Equivalent<Item> for Unparsed<'_> {
    fn equivalent(&self, item: &Item) -> bool {
        self.key == item.key.as_str() && self.variant == item.variant
    }
}

/// An open question to the worker for a lease.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    near: &'a Near,
    item: &'a Item,
    sent: Moment,
    /// Set when a copy under the grant must not be kept.
    is_spoiled: Arc<AtomicBool>,
    copy: Option<Arc<Copy>>,
}

impl Near {
    /// An empty near cache of `capacity` bytes, and the copies whose leases are to be renewed.
    ///
    /// # Errors
    /// Never, because capacity and number of items are set; the library's builder asks for both.
    pub(crate) fn new(capacity: u64) -> anyhow::Result<(Arc<Self>, mpsc::Receiver<Arc<Copy>>)> {
        let items = usize::try_from(capacity / TYPICAL_IMAGE_BYTES)?.max(1024);
        // With several shards each would have a capacity of its own, and a large image would fit in none.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(capacity)
            .shards(1)
            .build()
            .map_err(|error| anyhow::anyhow!("the near cache: {error}"))?;
        let copies = Cache::with_options(
            options,
            ByWeight,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        let (renewals, to_renew) = mpsc::channel(RENEWALS);
        let near = Self {
            holder: Holder(rand::random()),
            largest: capacity / LARGEST_PART,
            copies,
            asking: Mutex::default(),
            lent: Arc::new(Semaphore::new(LENT_KILOBYTES)),
            hit: Mutex::default(),
            renewals,
        };
        Ok((Arc::new(near), to_renew))
    }

    /// This gateway process, as a holder of leases.
    pub(crate) fn holder(&self) -> Holder {
        self.holder
    }

    /// The weight of all copies, in bytes, and how many there are.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.copies.weight(), self.copies.len() as u64)
    }

    /// A copy whose lease lasts, and its bytes to be sent; counted as a hit.
    pub(crate) fn hit(&self, key: &str, variant: Option<Variant>) -> Option<(Arc<Copy>, Bytes)> {
        let copy = self.copies.get(&Unparsed { key, variant })?;
        let left = copy.end.get().since(Moment::now());
        if left.is_zero() {
            return None;
        }
        let bytes = self.lend(&copy)?;
        if left < LONGEST_LEASE / RENEWED_IN_LAST && !copy.is_renewed.swap(true, Ordering::Relaxed) {
            // If the queue is full, the image is asked for again when its lease is over.
            if self.renewals.try_send(copy.clone()).is_err() {
                copy.is_renewed.store(false, Ordering::Relaxed);
            }
        }
        if copy.unreported_hits.fetch_add(1, Ordering::Relaxed) == 0 {
            self.hit.lock().push(copy.clone());
        }
        Some((copy, bytes))
    }

    /// The bytes of a copy, to be sent; they stay in memory until then even if the copy is dropped.
    pub(crate) fn lend(&self, copy: &Copy) -> Option<Bytes> {
        if copy.bytes.len() <= UNCOUNTED_BYTES {
            return Some(copy.bytes.clone());
        }
        let kilobytes = u32::try_from(copy.bytes.len().div_ceil(1024)).ok()?;
        let permit = self.lent.clone().try_acquire_many_owned(kilobytes).ok()?;
        Some(hold(copy.bytes.clone(), permit))
    }

    /// To be called before a request that asks for a lease is sent.
    pub(crate) fn ask<'a>(&'a self, item: &'a Item) -> Asking<'a> {
        let is_spoiled = Arc::new(AtomicBool::new(false));
        let mut asking = self.asking.lock();
        asking.entry(item.key.clone()).or_default().push(is_spoiled.clone());
        // Under the lock: a drop has either removed the copy already, or will mark this question.
        let copy = self.copies.get(item);
        Asking { near: self, item, sent: Moment::now(), is_spoiled, copy }
    }

    /// Drops the copies that the worker names. Afterwards no copy under an earlier grant is there, and none comes.
    pub(crate) fn drop_copies(&self, request: &DropRequest) {
        let asking = self.asking.lock();
        match &request.key {
            Some(key) => {
                for asking in asking.get(key).into_iter().flatten() {
                    asking.store(true, Ordering::Relaxed);
                }
                Item::for_each_of(key, |item| {
                    self.copies.remove(item);
                });
            }
            None => {
                for asking in asking.values().flatten() {
                    asking.store(true, Ordering::Relaxed);
                }
                self.copies.clear();
            }
        }
    }

    /// The hits since the last call.
    pub(crate) fn take_hits(&self) -> Vec<KeyHits> {
        let copies = std::mem::take(&mut *self.hit.lock());
        let hits = copies.iter().map(|copy| {
            let count = copy.unreported_hits.swap(0, Ordering::Relaxed);
            let Item { key, variant } = copy.item.clone();
            KeyHits { key, variant, count, bytes: count * copy.bytes.len() as u64 }
        });
        hits.collect()
    }
}

/// As [`LONGEST_LEASE_MS`].
const LONGEST_LEASE: Duration = Duration::from_millis(LONGEST_LEASE_MS);

impl Asking<'_> {
    /// The tag of the copy that is there already, whose lease may be over.
    pub(crate) fn tag(&self) -> Option<Tag> {
        self.copy.as_ref().map(|copy| copy.image.tag)
    }

    /// Keeps a copy of an image that came with a lease: of bytes that are part of a larger buffer, which would be kept with
    /// them.
    pub(crate) fn keep_copied(self, image: &ImageMeta, bytes: &Bytes, granted: Duration) {
        if self.weight(bytes) <= self.near.largest {
            self.keep(image, Bytes::copy_from_slice(bytes), granted);
        }
    }

    fn weight(&self, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + self.item.key.as_str().len() as u64 + COPY_OVERHEAD_BYTES
    }

    /// Keeps an image that came with a lease. Its bytes are all of their buffer.
    pub(crate) fn keep(self, image: &ImageMeta, bytes: Bytes, granted: Duration) {
        if self.weight(&bytes) > self.near.largest {
            return;
        }
        // An image whose headers can't be made can't be served, so it need not be kept.
        let Ok(head) = ImageHead::new(image) else { return };
        let copy = Arc::new(Copy {
            item: self.item.clone(),
            image: image.clone(),
            head,
            bytes,
            end: AtomicMoment::new(self.sent + granted.min(LONGEST_LEASE)),
            is_renewed: AtomicBool::new(false),
            unreported_hits: AtomicU64::new(0),
        });
        let asking = self.near.asking.lock();
        if !self.is_spoiled.load(Ordering::Relaxed) {
            self.near.copies.insert(self.item.clone(), copy);
        }
        drop(asking);
    }

    /// Extends the lease of the copy that is there, because its tag was confirmed.
    pub(crate) fn renew(self, granted: Duration) {
        let Some(copy) = &self.copy else { return };
        let asking = self.near.asking.lock();
        if !self.is_spoiled.load(Ordering::Relaxed) {
            copy.end.raise(self.sent + granted.min(LONGEST_LEASE));
        }
        drop(asking);
        copy.is_renewed.store(false, Ordering::Relaxed);
    }

    /// The copy that is there already.
    pub(crate) fn copy(&self) -> Option<&Arc<Copy>> {
        self.copy.as_ref()
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut asking = self.near.asking.lock();
        if let Some(askers) = asking.get_mut(&self.item.key) {
            askers.retain(|other| !Arc::ptr_eq(other, &self.is_spoiled));
            if askers.is_empty() {
                asking.remove(&self.item.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const LEASE: Duration = Duration::from_millis(900);

    fn near() -> Arc<Near> {
        Near::new(1 << 20).unwrap().0
    }

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn item(text: &str) -> Item {
        key(text).into()
    }

    fn image(version: u8) -> ImageMeta {
        let tag = Tag([version; 32]);
        ImageMeta { format: sniff::Format::Png, tag, modified: None, size: 3 }
    }

    fn keep(near: &Near, name: &str, version: u8) {
        near.ask(&item(name)).keep(&image(version), Bytes::from_static(b"abc"), LEASE);
    }

    fn version(near: &Near, name: &str) -> Option<u8> {
        near.hit(name, None).map(|(copy, _)| copy.image.tag.0[0])
    }

    #[test]
    fn a_copy_is_served_until_it_is_dropped() {
        let near = near();
        assert_eq!(version(&near, "cat"), None);
        keep(&near, "cat", 1);
        keep(&near, "dog", 2);
        assert_eq!((version(&near, "cat"), version(&near, "dog")), (Some(1), Some(2)));
        near.drop_copies(&DropRequest { key: Some(key("cat")) });
        assert_eq!((version(&near, "cat"), version(&near, "dog")), (None, Some(2)));
        near.drop_copies(&DropRequest::default());
        assert_eq!(version(&near, "dog"), None);
    }

    #[test]
    fn a_copy_is_served_no_longer_than_its_lease_from_before_the_request() {
        let near = near();
        near.ask(&item("cat")).keep(&image(1), Bytes::from_static(b"abc"), Duration::ZERO);
        assert_eq!(version(&near, "cat"), None);
        let cat = item("cat");
        let asking = near.ask(&cat);
        assert_eq!(asking.tag(), Some(image(1).tag));
        asking.renew(LEASE);
        assert_eq!(version(&near, "cat"), Some(1));
        let copy = near.copies.get(&cat).unwrap();
        assert!(copy.end.get().since(Moment::now()) <= LEASE);
    }

    #[test]
    fn what_was_asked_for_before_a_drop_is_not_kept() {
        let near = near();
        let (cat, dog) = (item("cat"), item("dog"));
        for request in [DropRequest { key: Some(cat.key.clone()) }, DropRequest::default()] {
            let (first, other) = (near.ask(&cat), near.ask(&dog));
            near.drop_copies(&request);
            let later = near.ask(&cat);
            first.keep(&image(1), Bytes::from_static(b"abc"), LEASE);
            assert_eq!(version(&near, "cat"), None);
            later.keep(&image(2), Bytes::from_static(b"abc"), LEASE);
            assert_eq!(version(&near, "cat"), Some(2));
            other.keep(&image(3), Bytes::from_static(b"abc"), LEASE);
            assert_eq!(version(&near, "dog"), request.key.as_ref().map(|_| 3));
        }
        assert!(near.asking.lock().is_empty());
    }

    #[test]
    fn variants_are_copies_of_their_own_and_go_with_their_key() {
        let near = near();
        let thumbnail = Item { variant: Some(Variant::W320), ..item("cat") };
        keep(&near, "cat", 1);
        near.ask(&thumbnail).keep(&image(2), Bytes::from_static(b"abc"), LEASE);
        let version_of = |variant| near.hit("cat", variant).map(|(copy, _)| copy.image.tag.0[0]);
        assert_eq!(version_of(None), Some(1));
        assert_eq!(version_of(Some(Variant::W320)), Some(2));
        assert_eq!(version_of(Some(Variant::W640)), None);
        let hits = near.take_hits();
        let mut variants: Vec<_> = hits.iter().map(|hits| hits.variant).collect();
        variants.sort();
        assert_eq!(variants, [None, Some(Variant::W320)]);

        let asking = near.ask(&thumbnail);
        near.drop_copies(&DropRequest { key: Some(key("cat")) });
        asking.keep(&image(3), Bytes::from_static(b"abc"), LEASE);
        for variant in [None, Some(Variant::W320)] {
            assert_eq!(version_of(variant), None);
        }
    }

    #[test]
    fn a_renewal_that_a_drop_overtook_gives_no_time() {
        let near = near();
        near.ask(&item("cat")).keep(&image(1), Bytes::from_static(b"abc"), Duration::ZERO);
        let cat = item("cat");
        let asking = near.ask(&cat);
        let copy = asking.copy().unwrap().clone();
        let end = copy.end.get();
        near.drop_copies(&DropRequest { key: Some(cat.key.clone()) });
        asking.renew(LEASE);
        assert_eq!(copy.end.get(), end);
    }

    #[test]
    fn hits_are_reported_once_also_those_of_copies_that_are_gone() {
        let near = near();
        keep(&near, "cat", 1);
        keep(&near, "dog", 1);
        for name in ["cat", "cat", "dog"] {
            assert!(version(&near, name).is_some());
        }
        near.drop_copies(&DropRequest::default());
        let mut hits = near.take_hits();
        hits.sort_by_key(|hits| hits.count);
        let seen: Vec<_> = hits.iter().map(|hits| (hits.key.as_str(), hits.count, hits.bytes)).collect();
        assert_eq!(seen, [("dog", 1, 3), ("cat", 2, 6)]);
        assert!(near.take_hits().is_empty());
    }

    #[test]
    fn an_image_that_would_take_most_of_it_is_not_kept() {
        let near = near();
        let large = Bytes::from(vec![0; 300 << 10]);
        near.ask(&item("cat")).keep(&image(1), large.clone(), LEASE);
        assert_eq!(version(&near, "cat"), None);
    }

    #[test]
    fn large_copies_on_their_way_are_bounded() {
        let (near, _) = Near::new(1 << 30).unwrap();
        let large = Bytes::from(vec![0; 32 << 20]);
        near.ask(&item("cat")).keep(&image(1), large.clone(), LEASE);
        let lent: Vec<_> = (0..4).map(|_| near.hit("cat", None).unwrap().1).collect();
        assert!(near.hit("cat", None).is_none());
        drop(lent);
        assert!(near.hit("cat", None).is_some());
    }
}
