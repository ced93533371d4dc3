//! The contexts of the pages about one image, and of an image in any list.

use std::collections::HashMap;

use charts::units;
use minijinja::value::Serde;
use minijinja::{Value, context};
use origin::ImageRow;
use serde::Serialize;
use sniff::Format;
use time::OffsetDateTime;
use wire::inspect::ResidentKey;
use wire::{Item, Key, Variant};

use super::links::{image_page, image_source, key_in_path};
use super::shell::{Done, Moment};
use crate::image::{CacheStatus, ReadOutcome};

/// A still image that is wider is shown as a rendition of this width.
const WIDEST: u32 = Variant::WIDEST.width();

/// `upload.html`
#[derive(Debug, Default, Serialize)]
pub(crate) struct UploadPage {
    /// The key as it was typed.
    pub(crate) key: String,
    /// Why nothing was stored; or, if `stored`, the step that has still to come.
    pub(crate) error: Option<String>,
    /// The title of the error.
    pub(crate) title: &'static str,
    /// The field with the error: `key` or `file`.
    pub(crate) wrong: Option<&'static str>,
    /// Whether it is stored nevertheless.
    pub(crate) stored: bool,
    /// The largest image, in bytes.
    pub(crate) max_bytes: u64,
    /// The most pixels, in millions.
    pub(crate) max_megapixels: u64,
    /// The URL at which the viewer's browser reached this gateway, such as `http://127.0.0.1:5000`.
    pub(crate) base: String,
    pub(crate) formats: Formats,
}

/// The formats that are stored, for the form and its script.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Formats {
    /// In words.
    names: String,
    /// As the form's field accepts them.
    accepted: String,
    /// The name and the first bytes of each, of which `null` may be any.
    signatures: Vec<(&'static str, Vec<Option<u8>>)>,
}

impl Formats {
    /// All that are stored.
    pub(crate) fn stored() -> Self {
        Self {
            names: Format::names("or"),
            accepted: Format::ALL.map(Format::content_type).join(","),
            signatures: sniff::signatures().map(|(format, bytes)| (format.name(), bytes)).collect(),
        }
    }
}

/// `image_form.html`
#[derive(Debug, Default, Serialize)]
pub(crate) struct ImageFormPage {
    /// The key as it was typed.
    pub(crate) key: String,
    /// Why there is nothing to show.
    pub(crate) error: Option<String>,
    /// Whether the error is that of a change that was made, and that the cache has not acknowledged yet.
    pub(crate) is_made: bool,
    /// Whether an image may be stored under the key.
    pub(crate) can_upload: bool,
}

/// `image_delete.html`
#[derive(Debug, Serialize)]
pub(crate) struct DeletePage {
    /// The image.
    #[serde(flatten)]
    pub(crate) image: ImageView,
    /// The sentence about its file.
    pub(crate) fate: String,
}

/// The sentence about the files of deleted images, which stay in the trash for so many days.
pub(crate) fn fate(of: Deleted, trash_days: u64) -> String {
    let (file, stays, is, it) = match of {
        Deleted::One => ("Its file", "stays", "is", "it"),
        Deleted::Several => ("Their files", "stay", "are", "they"),
    };
    match trash_days {
        0 => format!("{file} {is} removed at once, and {it} can’t be brought back."),
        days => format!(
            "{file} {stays} in the folder trash/ of the image store for {}.",
            units::counted(days, "day", "days")
        ),
    }
}

/// How many images are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// One image.
    One,
    /// Several images, or all.
    Several,
}

/// `image.html`
#[derive(Debug, Serialize)]
pub(crate) struct ImagePage {
    key: String,
    page: String,
    src: String,
    done: Option<Done>,
    read: ReadView,
    size: u64,
    content_type: &'static str,
    width: Option<u32>,
    height: Option<u32>,
    /// The width of the rendition that is shown in its place, if one is. A rendition of a GIF or WebP would not move.
    shown_width: Option<u32>,
    stored: Option<Moment>,
    first_stored: Option<Moment>,
    resident: Option<Value>,
    hash: String,
    file_name: String,
    url: String,
    curl: String,
    nats: String,
}

/// The outcome of one read through the cache.
#[derive(Debug, Serialize)]
struct ReadView {
    kind: &'static str,
    label: &'static str,
    milliseconds: String,
    meaning: &'static str,
}

impl ReadView {
    fn new(read: &ReadOutcome) -> Self {
        let (kind, label, meaning) = match read.cache_status {
            CacheStatus::Hit => ("hit", "Hit", "The bytes came from the cache’s memory."),
            CacheStatus::Near => {
                ("near", "Near hit", "The bytes came from this gateway’s own copy, without a message.")
            }
            CacheStatus::Stored => (
                "miss",
                "Miss",
                "The bytes came from the origin and are in the cache now: the next read is a hit.",
            ),
            CacheStatus::Filling => (
                "miss",
                "Miss",
                "The bytes came from the origin and are on their way into the cache: the next read is a hit.",
            ),
            CacheStatus::Collapsed => (
                "miss",
                "Miss",
                "This read shared the origin’s bytes with another that had asked a moment before.",
            ),
            CacheStatus::Miss => (
                "miss",
                "Miss",
                "The bytes came from the origin. They were not put into the cache, because another \
                 reader puts them there, enough others are on their way, or its policy or admission keeps them out.",
            ),
            CacheStatus::Refused => (
                "miss",
                "Miss",
                "The bytes came from the origin. They were not put into the cache, because the image was \
                 replaced meanwhile.",
            ),
            CacheStatus::TooLarge => (
                "bypass",
                "Bypass",
                "The image is too large for the bus or for the cache, so it always comes from the origin.",
            ),
            CacheStatus::Unavailable => {
                ("bypass", "Bypass", "No cache answers, so the bytes came from the origin.")
            }
            CacheStatus::Busy => (
                "bypass",
                "Bypass",
                "So many bytes were on their way from the cache that it was not asked. The bytes came from the origin.",
            ),
            CacheStatus::TimedOut => (
                "bypass",
                "Bypass",
                "The cache took longer than a read waits for it, so the bytes came from the origin.",
            ),
        };
        let milliseconds = read.elapsed.as_secs_f64() * 1000.0;
        let milliseconds =
            if milliseconds < 10.0 { format!("{milliseconds:.2}") } else { format!("{milliseconds:.0}") };
        Self { kind, label, milliseconds, meaning }
    }
}

impl ImagePage {
    /// The page of an image that was just read. `row` is the row of the database, if the database answers. `base` is
    /// the URL at which the viewer's browser reached this gateway, such as `http://127.0.0.1:5000`.
    pub(crate) fn new(
        key: &Key,
        read: &ReadOutcome,
        row: Option<&ImageRow>,
        residency: &Residency,
        done: Option<Done>,
        base: &str,
        now: OffsetDateTime,
    ) -> Self {
        let image = &read.image;
        // The row may already be of the image that replaced the one that was read.
        let row = row.filter(|row| row.tag == image.tag);
        let stored = row.map(|row| row.dates.updated_at).or_else(|| {
            let modified = image.modified?;
            OffsetDateTime::from_unix_timestamp(modified.seconds).ok()
        });
        let url = format!("{base}/images/{}", key_in_path(key));
        let file_name = file_name(key, image.format);
        let resident = residency.of(key).map(|entry| match entry {
            Some(entry) => {
                let since = now - time::Duration::milliseconds(i64::try_from(entry.age_ms).unwrap_or(0));
                context! { since => Serde(Moment::new(since, now)), hits => entry.hits }
            }
            None => Value::from(false),
        });
        Self {
            page: image_page(key),
            src: image_source(key, image.tag),
            done,
            read: ReadView::new(read),
            size: image.size,
            content_type: image.format.content_type(),
            width: row.map(|row| row.width),
            height: row.map(|row| row.height),
            shown_width: row
                .is_some_and(|row| row.width > WIDEST && matches!(image.format, Format::Png | Format::Jpeg))
                .then_some(WIDEST),
            stored: stored.map(|at| Moment::new(at, now)),
            first_stored: row
                .filter(|row| row.created_at != row.dates.updated_at)
                .map(|row| Moment::new(row.created_at, now)),
            resident,
            hash: image.tag.to_string(),
            curl: format!("curl -o {file_name} '{url}'"),
            nats: format!(
                "bin/nats req {} '' --translate 'tee {file_name}' > /dev/null",
                wire::subject::get(&key.clone().into())
            ),
            url,
            file_name,
            key: key.to_string(),
        }
    }
}

/// A name for the file on the viewer's disk, in letters that every shell and file system takes as
/// they are: the key's last part, with the ending of its type.
pub(super) fn file_name(key: &Key, format: Format) -> String {
    let ending = format.extension();
    let last = key.as_str().rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let stem: String = stem.chars().map(plain).take(80).collect();
    let stem = stem.trim_matches(['-', '_']);
    format!("{}.{ending}", if stem.is_empty() { "image" } else { stem })
}

/// An image in a list.
#[derive(Debug, Serialize)]
pub(crate) struct ImageView {
    key: String,
    page: String,
    src: String,
    kind: String,
    width: u32,
    height: u32,
    size: u64,
    stored: Moment,
    /// Whether it is in the cache; none when that is not known.
    resident: Option<bool>,
    hits: u64,
    /// Whether variants of it are in the cache; lists show variants.
    has_cached_variants: bool,
}

impl ImageView {
    /// The image of a row, with the cache's answer about it.
    pub(crate) fn new(row: &ImageRow, residency: &Residency, now: OffsetDateTime) -> Self {
        let resident = residency.of(&row.key);
        Self {
            key: row.key.to_string(),
            page: image_page(&row.key),
            src: image_source(&row.key, row.tag),
            kind: row.format.to_string(),
            width: row.width,
            height: row.height,
            size: row.size,
            stored: Moment::new(row.dates.updated_at, now),
            resident: resident.as_ref().map(Option::is_some),
            hits: resident.flatten().map_or(0, |entry| entry.hits),
            has_cached_variants: residency.has_variants_of(&row.key),
        }
    }
}

/// The cache's entries of the images of a page, if the cache has answered.
#[derive(Debug, Default)]
pub(crate) struct Residency(Option<HashMap<Item, ResidentKey>>);

impl Residency {
    /// The residency by the cache's answer about the keys of the page.
    pub(crate) fn new(entries: Vec<ResidentKey>) -> Self {
        let item = |entry: &ResidentKey| Item { key: entry.key.clone(), variant: entry.variant };
        Self(Some(entries.into_iter().map(|entry| (item(&entry), entry)).collect()))
    }

    /// The entry of the original of a key: `Some(None)` if there is none, `None` if it is not known.
    pub(super) fn of(&self, key: &Key) -> Option<Option<&ResidentKey>> {
        self.0.as_ref().map(|entries| entries.get(&Item::from(key.clone())))
    }

    /// Whether there is an entry of a variant of a key.
    pub(super) fn has_variants_of(&self, key: &Key) -> bool {
        self.0.as_ref().is_some_and(|entries| {
            let has = |variant| entries.contains_key(&Item { key: key.clone(), variant: Some(variant) });
            Variant::ALL.into_iter().any(has)
        })
    }
}
