//! Room for the bytes that the cache sends: the replies asked for at once, and the bytes that are not sent on yet.
//!
//! A reply is as large as its image, and that size is known only when the reply is here. nats-server closes a
//! connection on which more bytes wait than `max_pending`. A reply stays in memory until its reader has taken
//! it. So each get first reserves room and tells the worker how much. It then keeps as much of the room as the
//! reply takes, until the bytes are gone. The last known size of an item says how much to reserve, so that many
//! small images are asked for at once. The reply for an item of unknown size may be as large as any. If another
//! gateway has stored a larger image meanwhile, the worker sends its size instead.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use runtime::bus::{Question, Reply, RequestFailure};
use runtime::held::hold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use wire::{Item, Meta};

use super::granted::Granted;
use super::shared::Shared;

/// Room for replies of small images: apart, so that these wait for no large one.
const SMALL_ROOM: usize = 16 << 20;
/// Room for all others. Together they are half of `max_pending` in nats.conf.
const LARGE_ROOM: usize = 48 << 20;
/// The size up to which an image counts as small.
const SMALL_BYTES: usize = 256 << 10;
/// The unit in which room is counted, in bytes.
const UNIT: usize = 1024;
/// How long a reply may still be on its way when no read waits for it any more. A worker that is silent for
/// so long has lost its claim meanwhile, and sends no image.
const LATE: Duration = Duration::from_secs(5);
/// How many items' sizes are remembered, which takes two megabytes.
const SLOTS: usize = 1 << 18;

/// The room of this process.
#[derive(Debug)]
pub(crate) struct Room {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    hasher: RandomState,
    /// The upper half of a slot tells its item from others, the lower half is the size plus one.
    sizes: Box<[AtomicU64]>,
}

/// Room for one reply, given back when this is dropped. If the question is still open then, the room is given
/// back only when the reply has come: it comes all the same, though no read waits for it any more. A lease that it
/// brings goes back to the worker.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    item: &'a Item,
    permit: Option<OwnedSemaphorePermit>,
    question: Option<Question>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            small: Arc::new(Semaphore::new(SMALL_ROOM / UNIT)),
            large: Arc::new(Semaphore::new(LARGE_ROOM / UNIT)),
            hasher: RandomState::new(),
            sizes: std::iter::repeat_with(AtomicU64::default).take(SLOTS).collect(),
        }
    }
}

impl Room {
    /// Room for the reply about `item`, which has at most `most` bytes. Waits for it for at most `limit`.
    pub(crate) async fn reserve<'a>(
        &self,
        item: &'a Item,
        most: usize,
        limit: Duration,
    ) -> Option<Reserved<'a>> {
        let expected = self.size_of(item).map_or(most, |size| size.min(most));
        let lane = if expected <= SMALL_BYTES { &self.small } else { &self.large };
        // A reply larger than all the room is asked for alone.
        let units = units(expected).min(u32::try_from(LARGE_ROOM / UNIT).unwrap_or(u32::MAX));
        let permit = match lane.clone().try_acquire_many_owned(units) {
            Ok(permit) => permit,
            Err(_) => timeout(limit, lane.clone().acquire_many_owned(units)).await.ok()?.ok()?,
        };
        Some(Reserved { item, permit: Some(permit), question: None })
    }

    /// Notes how large `item` is.
    pub(crate) fn note(&self, item: &Item, size: u64) {
        let (slot, mark) = self.slot(item);
        let size = u32::try_from(size).unwrap_or(u32::MAX - 1).min(u32::MAX - 1);
        let value = mark | u64::from(size + 1);
        // All processors can read a cache line at once as long as none writes to it.
        if slot.load(Ordering::Relaxed) != value {
            slot.store(value, Ordering::Relaxed);
        }
    }

    /// Whether the last reply for `item` had less than `bytes`, as far as is known.
    pub(crate) fn is_smaller(&self, item: &Item, bytes: usize) -> bool {
        self.size_of(item).is_some_and(|size| size < bytes)
    }

    fn size_of(&self, item: &Item) -> Option<usize> {
        let (slot, mark) = self.slot(item);
        let value = slot.load(Ordering::Relaxed);
        if value & MARK != mark {
            return None;
        }
        usize::try_from((value & !MARK).checked_sub(1)?).ok()
    }

    fn slot(&self, item: &Item) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(item);
        // The lowest bits choose the slot, the upper half is the mark.
        let at = usize::try_from(hash & !MARK).unwrap_or_default() % self.sizes.len();
        (&self.sizes[at], hash & MARK)
    }
}

/// The bits of a slot that tell its item from others.
const MARK: u64 = !(u32::MAX as u64);

impl Reserved<'_> {
    /// How many bytes there is room for. `None` if the reply has all the room to itself, and may have any size.
    fn bytes(&self) -> Option<usize> {
        let bytes = self.permit.as_ref()?.num_permits() * UNIT;
        Some(bytes).filter(|bytes| *bytes < LARGE_ROOM)
    }

    /// Asks for the bytes of an image, and keeps as much room as they take until the last of them is gone. A reply that
    /// still names a file has none, because that file can't be read.
    ///
    /// # Errors
    /// As [`Question::ask`]; an image larger than the room is refused with its size.
    pub(crate) async fn ask(
        mut self,
        question: Question,
        meta: Option<&Meta>,
        shared: Option<&Shared>,
        limit: Duration,
    ) -> Result<Reply, RequestFailure> {
        let most = self.bytes();
        let room = most.map(|bytes| bytes.to_string().into()).unwrap_or_default();
        let max_payload = question.bus().max_payload();
        let mut reply = self.question.insert(question).ask(meta, room, limit).await?;
        if let Some(shared) = shared {
            shared.note(&reply.meta);
            let most = most.map_or(max_payload, |bytes| bytes.min(max_payload));
            if let Some(bytes) = shared.read(&reply.meta, most as u64) {
                (reply.payload, reply.meta.file) = (bytes, None);
            }
        }
        if let Some(permit) = self.permit.take() {
            reply.payload = keep(permit, reply.payload);
        }
        Ok(reply)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let Some(question) = self.question.take().filter(Question::is_open) else { return };
        let (permit, item, bus) = (self.permit.take(), self.item.clone(), question.bus().clone());
        // Without a runtime the process is ending.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // In time or not, the room is free then.
                let late = timeout(LATE, question.close()).await;
                drop(permit);
                if let Some(lease) = late.ok().flatten().and_then(|meta| meta.lease) {
                    drop(Granted::new(bus, item, lease));
                }
            });
        }
    }
}

/// Keeps as much of the room as `bytes` take until the last of them is gone.
fn keep(mut permit: OwnedSemaphorePermit, bytes: Bytes) -> Bytes {
    let surplus = permit.num_permits().saturating_sub(units(bytes.len()) as usize);
    drop(permit.split(surplus));
    hold(bytes, permit)
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use wire::Key;

    const MOST: usize = 8 << 20;
    const NOW: Duration = Duration::ZERO;

    fn item(text: &str) -> Item {
        Key::new(text).unwrap().into()
    }

    #[tokio::test]
    async fn what_is_not_known_may_be_large_and_small_images_do_not_wait_for_it() {
        let room = Room::default();
        let (small_item, new_item) = (item("small"), item("new"));
        room.note(&small_item, 10_000);
        let mut large = Vec::new();
        while let Some(reserved) = room.reserve(&new_item, MOST, NOW).await {
            large.push(reserved);
        }
        assert_eq!(large.len(), 6);
        let mut small = Vec::new();
        while let Some(reserved) = room.reserve(&small_item, MOST, NOW).await {
            small.push(reserved);
        }
        assert!(small.len() > 1000, "{}", small.len());

        // A read that came to nothing takes no room.
        drop(large.pop());
        // A reply that has come takes only the room for its own bytes, until they are gone.
        let mut reserved = room.reserve(&new_item, MOST, NOW).await.unwrap();
        assert_eq!(reserved.bytes(), Some(MOST));
        let bytes = keep(reserved.permit.take().unwrap(), Bytes::from(vec![0; 1000]));
        let free = room.large.available_permits();
        assert_eq!(free, MOST / UNIT - 1);
        let part = bytes.slice(..10);
        drop(bytes);
        assert_eq!(room.large.available_permits(), free);
        drop(part);
        assert_eq!(room.large.available_permits(), free + 1);
    }

    #[test]
    fn a_size_is_known_of_its_item_alone() {
        let room = Room::default();
        assert_eq!(room.size_of(&item("a")), None);
        for number in 0..1000 {
            room.note(&item(&format!("key {number}")), number);
        }
        let known = (0..1000).filter(|number| {
            let size = room.size_of(&item(&format!("key {number}")));
            assert!(size.is_none_or(|size| size == *number));
            size.is_some()
        });
        assert!(known.count() > 980);
        room.note(&item("a"), u64::MAX);
        assert!(room.size_of(&item("a")).is_some_and(|size| size > MOST));
        room.note(&item("a"), 7);
        assert_eq!(room.size_of(&item("a")), Some(7));
    }
}
