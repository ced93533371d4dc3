//! The items of the cache: the image of a key, or a smaller variant of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::words::{one_of, shown};

/// A rendition of an image with a limited width in pixels. No variant is the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Variant {
    /// 160 pixels.
    W160,
    /// 320 pixels.
    W320,
    /// 640 pixels.
    W640,
    /// 1,280 pixels.
    W1280,
}

impl Variant {
    /// Every variant, the narrowest first.
    pub const ALL: [Self; 4] = [Self::W160, Self::W320, Self::W640, Self::W1280];

    /// The widest of all.
    pub const WIDEST: Self = Self::ALL[Self::ALL.len() - 1];

    /// The token, and the width.
    const fn row(self) -> (&'static str, u32) {
        match self {
            Self::W160 => ("w160", 160),
            Self::W320 => ("w320", 320),
            Self::W640 => ("w640", 640),
            Self::W1280 => ("w1280", 1280),
        }
    }

    /// The token on the wire, as in `cache.get.<key>.w320`.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The largest width, in pixels.
    pub const fn width(self) -> u32 {
        self.row().1
    }

    /// The variant of a width as people write it.
    ///
    /// # Errors
    /// The end of a sentence that begins with what is meant: which widths there are, and what was given.
    pub fn of_width(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|variant| variant.width().to_string() == text);
        known.ok_or_else(|| format!("must be {}, got {}", one_of(Self::ALL.map(Self::width)), shown(text)))
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|variant| variant.as_str() == text);
        known.ok_or_else(|| format!("a variant must be {}, got {}", one_of(Self::ALL), shown(text)))
    }
}

/// The image of a key, or a variant of it. Each item is looked up, filled and evicted by itself. An invalidation of a
/// key concerns all of its items.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// The key.
    pub key: Key,
    /// The variant; none is the original.
    pub variant: Option<Variant>,
}

impl Item {
    /// Calls `see` with each item that `key` may have: the original and the variants.
    pub fn for_each_of(key: &Key, mut see: impl FnMut(&Self)) {
        let mut item = Self::from(key.clone());
        see(&item);
        for variant in Variant::ALL {
            item.variant = Some(variant);
            see(&item);
        }
    }

    /// Its place in a subject: the token of its key and, for a variant, a second one.
    pub fn tokens(&self) -> String {
        let mut tokens = self.key.token();
        if let Some(variant) = self.variant {
            tokens.push('.');
            tokens.push_str(variant.as_str());
        }
        tokens
    }
}

impl From<Key> for Item {
    fn from(key: Key) -> Self {
        Self { key, variant: None }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_variant_is_read_as_it_is_written() {
        for variant in Variant::ALL {
            assert_eq!(variant.as_str().parse(), Ok(variant));
            assert_eq!(variant.to_string(), format!("w{}", variant.width()));
            assert!(variant.width() <= Variant::WIDEST.width());
            assert_eq!(serde_json::to_string(&variant).unwrap(), format!("\"{variant}\""));
        }
        for text in ["", "w", "160", "W160", "w161"] {
            assert!(text.parse::<Variant>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_has_an_item_for_each_variant_the_original_first() {
        let mut seen = Vec::new();
        Item::for_each_of(&Key::new("a.b").unwrap(), |item| seen.push(item.tokens()));
        assert_eq!(seen, ["a%2Eb", "a%2Eb.w160", "a%2Eb.w320", "a%2Eb.w640", "a%2Eb.w1280"]);
    }
}
