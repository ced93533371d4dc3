//! A resident entry, and the interface of a replacement policy that keeps many of them.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::MmapMut;
use runtime::clock::Moment;
use runtime::shelf::{Shelf, Shelved};
use sniff::Format;
use wire::shelf::FileName;
use wire::{Item, Key, Tag, Variant};

/// The weight of an entry beyond its key and its bytes: the entry itself, its place in the policy's
/// order, and the allocator's rounding. Measured as the growth of the resident set at 10^6 entries
/// of 100 bytes, the largest of the policies.
pub const ENTRY_OVERHEAD_BYTES: u64 = 240;

/// A resident image, or a variant of one.
#[derive(Debug)]
pub struct Entry {
    /// Its key.
    pub(crate) key: Key,
    value: Value,
    /// The SHA-256 of the bytes.
    pub(crate) tag: Tag,
    /// When the image was stored, in seconds since 1970.
    pub(crate) modified_s: i64,
    /// When it became resident.
    pub(crate) since: Moment,
    pub(super) hits: AtomicU64,
    pub(super) last_used: AtomicU64,
}

impl Entry {
    /// An entry with a copy of `bytes`, resident from now on.
    pub fn new(item: Item, bytes: &[u8], format: Format, tag: Tag, modified_s: i64) -> Self {
        let kind = Kind { format, variant: item.variant };
        Self::with_value(item.key, Value::copied(bytes, kind), tag, modified_s)
    }

    /// As [`Entry::new`], with the copy in a file of `shelf` if it is large and there is room.
    pub(crate) fn shared(
        item: Item,
        bytes: &[u8],
        format: Format,
        tag: Tag,
        modified_s: i64,
        shelf: &Shelf,
    ) -> Self {
        if bytes.len() >= MAPPED_BYTES
            && let Ok(file) = shelf.write(bytes)
        {
            let kind = Kind { format, variant: item.variant };
            let value = Value::Shelved { kind, file: Box::new(file) };
            return Self::with_value(item.key, value, tag, modified_s);
        }
        Self::new(item, bytes, format, tag, modified_s)
    }

    fn with_value(key: Key, value: Value, tag: Tag, modified_s: i64) -> Self {
        let (hits, last_used) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { key, value, tag, modified_s, since: Moment::now(), hits, last_used }
    }

    /// The type of the image.
    pub(crate) fn format(&self) -> Format {
        self.value.kind().format
    }

    /// The variant of its key; `None` for the original.
    pub(crate) fn variant(&self) -> Option<Variant> {
        self.value.kind().variant
    }

    /// The item that it is found by: its key and its variant.
    pub(crate) fn item(&self) -> Item {
        Item { key: self.key.clone(), variant: self.variant() }
    }

    /// How many bytes the image has.
    pub(crate) fn size(&self) -> u64 {
        match &self.value {
            Value::Shelved { file, .. } => file.size(),
            Value::Allocated { bytes, .. } => bytes.len() as u64,
            Value::Mapped { bytes, .. } => bytes.len() as u64,
        }
    }

    /// The image. Unless it is in a file, it is not copied: the entry stays in memory until the last of the returned
    /// values is dropped.
    ///
    /// # Errors
    /// When somebody else has removed the file.
    pub(crate) fn bytes(self: &Arc<Self>) -> io::Result<Bytes> {
        match &self.value {
            Value::Shelved { file, .. } => file.read(),
            Value::Allocated { .. } | Value::Mapped { .. } => Ok(Bytes::from_owner(Held(self.clone()))),
        }
    }

    /// The file that the image is in, if others can read it there.
    pub(crate) fn file(&self) -> Option<FileName> {
        match &self.value {
            Value::Shelved { file, .. } => Some(file.name()),
            Value::Allocated { .. } | Value::Mapped { .. } => None,
        }
    }

    /// The bytes that it counts for against the capacity; never 0.
    pub(crate) fn weight(&self) -> u64 {
        self.key.as_str().len() as u64 + self.size() + ENTRY_OVERHEAD_BYTES
    }

    /// Hits since it became resident.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

/// An entry that lends its bytes.
struct Held(Arc<Entry>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        match &self.0.value {
            Value::Allocated { bytes, .. } => bytes,
            Value::Mapped { bytes, .. } => bytes,
            Value::Shelved { .. } => &[],
        }
    }
}

/// From this many bytes on, an entry's bytes are a mapping of their own.
pub(crate) const MAPPED_BYTES: usize = 64 << 10;

/// Bytes in memory of their own: a slice of a NATS read buffer would keep the whole buffer in memory.
///
/// Large values of mixed sizes fragment every allocator, and one that gives memory back late makes the
/// process outgrow its capacity: at 256 MB and sizes from 1 kB to 4 MB the resident set was 1.7 times
/// the capacity. A mapping is back with the system as soon as the entry is dropped.
///
/// The kind is in here because there is unused room beside the enum's discriminant. Anywhere else it would make
/// the entry 8 bytes larger, which the allocator rounds up to 16.
#[derive(Debug)]
enum Value {
    Allocated {
        kind: Kind,
        bytes: Box<[u8]>,
    },
    Mapped {
        kind: Kind,
        bytes: MmapMut,
    },
    /// In a file that gateways on this machine read by themselves.
    Shelved {
        kind: Kind,
        file: Box<Shelved>,
    },
}

/// The format and the variant of an entry's bytes, in two bytes.
#[derive(Debug, Clone, Copy)]
struct Kind {
    format: Format,
    variant: Option<Variant>,
}

impl Value {
    fn kind(&self) -> Kind {
        match self {
            Self::Allocated { kind, .. } | Self::Mapped { kind, .. } | Self::Shelved { kind, .. } => *kind,
        }
    }

    fn copied(bytes: &[u8], kind: Kind) -> Self {
        if bytes.len() >= MAPPED_BYTES
            && let Ok(mut mapping) = MmapMut::map_anon(bytes.len())
        {
            mapping.copy_from_slice(bytes);
            return Self::Mapped { kind, bytes: mapping };
        }
        // Large values come here too when the system has no more mappings to give (vm.max_map_count).
        Self::Allocated { kind, bytes: bytes.into() }
    }
}

/// An entry in a table: found by its item, whose parts are in memory only once, in the entry.
#[derive(Debug, Clone)]
pub(super) struct ByItem(pub(super) Arc<Entry>);

/// A value with the parts of an item, whether it is an [`Item`] or holds them apart.
pub(super) trait Named {
    fn parts(&self) -> (&Key, Option<Variant>);
}

impl Named for Item {
    fn parts(&self) -> (&Key, Option<Variant>) {
        (&self.key, self.variant)
    }
}

impl Named for ByItem {
    fn parts(&self) -> (&Key, Option<Variant>) {
        (&self.0.key, self.0.variant())
    }
}

impl<'a> Borrow<dyn Named + 'a> for ByItem {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl Hash for dyn Named + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Named + '_ {}

impl Hash for ByItem {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for ByItem {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for ByItem {}

/// A replacement policy with its resident entries, kept within a capacity of weight.
pub(super) trait Replacement: Send {
    /// Finds an entry, as a use of it.
    fn get(&mut self, item: &Item) -> Option<&Arc<Entry>>;

    /// Inserts an entry whose item is not resident and whose weight is at most the capacity. The entries that
    /// must leave for it go to `evicted`.
    fn insert(&mut self, entry: Arc<Entry>, evicted: &mut Vec<Arc<Entry>>);

    /// Removes an entry by request.
    fn remove(&mut self, item: &Item) -> Option<Arc<Entry>>;

    /// Changes the capacity, in bytes. The entries that no longer fit go to `evicted`.
    fn set_capacity(&mut self, bytes: u64, evicted: &mut Vec<Arc<Entry>>);

    /// The weight of all entries, in bytes.
    fn weight(&self) -> u64;

    /// The number of entries.
    fn len(&self) -> usize;

    /// Shows each entry, in any order, without counting as a use of it.
    fn for_each(&self, see: &mut dyn FnMut(&Arc<Entry>));
}
