//! The context of the live page.

use charts::units;
use serde::Serialize;
use wire::Variant;
use wire::event::KeyEventKind;
use wire::inspect::{KeysReply, ResidentKey};

use super::links::image_page;

/// `live.html`, and the part of it that is fetched again and again.
#[derive(Debug, Serialize)]
pub(crate) struct LivePage {
    kinds: Vec<KindView>,
    prefix: String,
    base: String,
    lists: [KeyList; 2],
}

#[derive(Debug, Serialize)]
struct KindView {
    name: &'static str,
    shown: bool,
}

/// Some of the resident keys, in an order.
#[derive(Debug, Serialize)]
struct KeyList {
    name: &'static str,
    title: &'static str,
    keys: Vec<KeyView>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct KeyView {
    key: String,
    /// The largest width in pixels, if it is a variant.
    width: Option<u32>,
    page: String,
    value: String,
    /// The value as a share of the first value of the list.
    share: f64,
    note: String,
}

/// A list of resident keys, or why there is none.
type Found = (Option<KeysReply>, Option<String>);

impl LivePage {
    /// The page with the hottest and the largest of the resident keys. `kinds` and `prefix` are the stream's filter, as
    /// the address names it. Unknown kinds are left out.
    pub(crate) fn new(hottest: Found, largest: Found, kinds: Option<&str>, prefix: &str, base: &str) -> Self {
        let is_shown = |kind: KeyEventKind| {
            kinds.is_none_or(|kinds| kinds.split(',').any(|named| named.parse() == Ok(kind)))
        };
        let view = |kind: KeyEventKind| KindView { name: kind.as_str(), shown: is_shown(kind) };
        Self {
            kinds: KeyEventKind::ALL.into_iter().map(view).collect(),
            prefix: prefix.to_owned(),
            base: base.to_owned(),
            lists: [
                KeyList::new("hottest", "Hottest keys", hottest, |entry| {
                    (entry.hits, units::counted(entry.hits, "hit", "hits"), units::bytes(entry.bytes))
                }),
                KeyList::new("largest", "Largest keys", largest, |entry| {
                    (entry.bytes, units::bytes(entry.bytes), units::counted(entry.hits, "hit", "hits"))
                }),
            ],
        }
    }
}

impl KeyList {
    fn new(
        name: &'static str,
        title: &'static str,
        (found, error): Found,
        say: impl Fn(&ResidentKey) -> (u64, String, String),
    ) -> Self {
        let found = found.map(|reply| reply.keys).unwrap_or_default();
        let most = found.first().map_or(0, |entry| say(entry).0).max(1);
        let view = |entry: ResidentKey| {
            let (number, value, note) = say(&entry);
            #[expect(clippy::cast_precision_loss, reason = "the length of a bar")]
            let share = number as f64 / most as f64;
            KeyView {
                page: image_page(&entry.key),
                key: entry.key.to_string(),
                width: entry.variant.map(Variant::width),
                value,
                share,
                note,
            }
        };
        let keys = found.into_iter().map(view).collect();
        Self { name, title, keys, error }
    }
}
