//! Links to pages and images, for keys of any kind.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use wire::{Key, Tag};

/// What may stand unescaped in a path or query. A slash in a key is escaped too, so that no browser
/// takes `..` between two of them for a way up.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// The page of an image.
pub fn image_page(key: &Key) -> String {
    format!("/image?key={}", escaped(key.as_str()))
}

/// The first page, saying that an image was deleted.
pub fn deleted_page(key: &Key) -> String {
    format!("/?deleted={}", escaped(key.as_str()))
}

/// The bytes of an image, in the very version that `tag` names.
pub fn image_source(key: &Key, tag: Tag) -> String {
    format!("/images/{}?v={tag}", escaped(key.as_str()))
}

/// The list of keys, filtered, from behind a key on.
pub fn keys_page(prefix: &str, after: Option<&str>) -> String {
    let mut parts = Vec::new();
    if !prefix.is_empty() {
        parts.push(format!("prefix={}", escaped(prefix)));
    }
    if let Some(after) = after {
        parts.push(format!("after={}", escaped(after)));
    }
    if parts.is_empty() { "/keys_list".to_owned() } else { format!("/keys_list?{}", parts.join("&")) }
}
