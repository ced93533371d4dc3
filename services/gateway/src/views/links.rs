//! Links to pages and images, for keys of any kind.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use wire::{Key, Tag};

use origin::listing::{Order, Place, Position};

/// The characters that are escaped in a path or query.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// A key at the end of a path. Its slashes stay as they are, because some servers refuse escaped ones. But a browser takes
/// `..` between two slashes for the parent folder, and some servers take two slashes for one: the slashes of such keys are escaped.
pub(super) fn key_in_path(key: &Key) -> String {
    let key = key.as_str();
    if key.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return escaped(key);
    }
    key.split('/').map(escaped).collect::<Vec<_>>().join("/")
}

/// The address of the page of an image.
pub(crate) fn image_page(key: &Key) -> String {
    format!("/image?key={}", escaped(key.as_str()))
}

/// The address of the bytes of an image, in the version that `tag` names.
pub(crate) fn image_source(key: &Key, tag: Tag) -> String {
    format!("/images/{}?v={tag}", key_in_path(key))
}

/// A page of the list of images, as its address names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    /// [`Listing::PICTURES`] or [`Listing::ROWS`].
    pub(crate) path: &'static str,
    /// The prefix of the listed keys; empty for all keys.
    pub(crate) prefix: String,
    /// The order.
    pub(crate) order: Order,
    /// The position in that order.
    pub(crate) position: Position,
}

impl Listing {
    /// The page that shows the list as pictures.
    pub(crate) const PICTURES: &'static str = "/";
    /// The page that shows it as rows.
    pub(crate) const ROWS: &'static str = "/keys_list";

    /// The order of a page whose address names none.
    pub(crate) fn usual_order(path: &str) -> Order {
        if path == Self::ROWS { Order::Key } else { Order::Newest }
    }

    /// Whether it is the first page of the list.
    pub(crate) fn is_first(&self) -> bool {
        self.position == Position::First
    }

    /// Its address.
    pub(crate) fn address(&self) -> String {
        let mut fields = Vec::new();
        if !self.prefix.is_empty() {
            fields.push(format!("prefix={}", escaped(&self.prefix)));
        }
        if self.order != Self::usual_order(self.path) {
            fields.push(format!("sort={}", self.order.as_str()));
        }
        match &self.position {
            Position::First => {}
            Position::After(place) => fields.push(format!("after={}", escaped(&place.to_string()))),
            Position::Before(place) => fields.push(format!("before={}", escaped(&place.to_string()))),
        }
        if fields.is_empty() { self.path.to_owned() } else { format!("{}?{}", self.path, fields.join("&")) }
    }

    /// The same images on the other page.
    pub(super) fn on(&self, path: &'static str) -> Self {
        Self { path, ..self.clone() }
    }

    /// The beginning of the list in another order.
    pub(super) fn sorted(&self, order: Order) -> Self {
        Self { order, position: Position::First, ..self.clone() }
    }

    /// The beginning of the list sorted by key, an order that works for any number of images.
    pub(crate) fn by_key(&self) -> Self {
        self.sorted(Order::Key)
    }

    /// The beginning of the list of all images.
    pub(super) fn unfiltered(&self) -> Self {
        Self { prefix: String::new(), position: Position::First, ..self.clone() }
    }

    /// The address of the page behind a place.
    pub(super) fn after(&self, place: &Place) -> String {
        Self { position: Position::After(place.clone()), ..self.clone() }.address()
    }

    /// The address of the page before a place.
    pub(super) fn before(&self, place: &Place) -> String {
        Self { position: Position::Before(place.clone()), ..self.clone() }.address()
    }
}
