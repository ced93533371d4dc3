//! The key of an image, and its form as one token of a subject.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::words::shown;

/// The longest key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 255;

/// The name under which an image is stored: 1–255 bytes of UTF-8 without control characters and
/// without leading or trailing white space, and neither `.` nor `..`.
///
/// Keys are compared byte for byte: `Cat`, `cat` and `cät` are three keys. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// Why some text is not a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no text at all.
    #[error("the key must be 1 to {MAX_KEY_BYTES} bytes of UTF-8, got nothing")]
    Empty,
    /// More than [`MAX_KEY_BYTES`] bytes.
    #[error("the key must be 1 to {MAX_KEY_BYTES} bytes of UTF-8, got {0} bytes")]
    TooLong(usize),
    /// The bytes are not UTF-8.
    #[error("the key must be 1 to {MAX_KEY_BYTES} bytes of UTF-8, got bytes that are not UTF-8")]
    NotUtf8,
    /// A control character, such as a line break or NUL.
    #[error("the key must be text without control characters, got U+{0:04X} in it")]
    Control(u32),
    /// White space at an end, which no person could see.
    #[error("the key must begin and end with other characters than white space, got white space there")]
    OuterWhiteSpace,
    /// `.` or `..`, which every URL parser folds away.
    #[error("the key must be one that a URL can name, got {0:?}: every other key with dots is allowed")]
    DotSegment(String),
    /// A token with a `%` that two hexadecimal digits don't follow, or with a bare reserved byte.
    #[error(
        "the key in a subject must be written in A-Z a-z 0-9 _ -, every other byte as %XX, as in cat%2Epng, got {shown}",
        shown = shown(.0)
    )]
    BadToken(String),
}

impl Key {
    /// Checks the rules above.
    ///
    /// # Errors
    /// [`KeyError`] names the rule that `text` breaks.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > MAX_KEY_BYTES {
            return Err(KeyError::TooLong(text.len()));
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(KeyError::Control(control as u32));
        }
        if text.trim() != text {
            return Err(KeyError::OuterWhiteSpace);
        }
        if text == "." || text == ".." {
            return Err(KeyError::DotSegment(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// As [`Key::new`], from bytes that may not be UTF-8.
    ///
    /// # Errors
    /// [`KeyError`] names the rule that `bytes` break.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::new(std::str::from_utf8(bytes).map_err(|_| KeyError::NotUtf8)?)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as one token of a subject: every byte outside `A–Z a–z 0–9 _ -` as `%XX`.
    ///
    /// ```
    /// assert_eq!(wire::Key::new("cat.png").unwrap().token(), "cat%2Epng");
    /// ```
    pub fn token(&self) -> String {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let mut token = String::with_capacity(self.0.len() + 8);
        for &byte in self.0.as_bytes() {
            if is_plain(byte) {
                token.push(byte as char);
            } else {
                token.push('%');
                token.push(HEX[usize::from(byte >> 4)] as char);
                token.push(HEX[usize::from(byte & 15)] as char);
            }
        }
        token
    }

    /// The key that `token` stands for; the inverse of [`Key::token`]. Lower-case digits are read too.
    ///
    /// # Errors
    /// [`KeyError::BadToken`] when the token isn't well formed, otherwise the error of [`Key::new`] for the text.
    pub fn from_token(token: &str) -> Result<Self, KeyError> {
        let bad = || KeyError::BadToken(token.to_owned());
        let bytes = token.as_bytes();
        if bytes.iter().all(|byte| is_plain(*byte)) {
            return Self::new(token);
        }
        let mut text = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            if is_plain(byte) {
                text.push(byte);
            } else if byte == b'%' {
                let &[high, low, ref tail @ ..] = rest else { return Err(bad()) };
                let (Some(high), Some(low)) = (hex_digit(high), hex_digit(low)) else { return Err(bad()) };
                text.push(high << 4 | low);
                rest = tail;
            } else {
                return Err(bad());
            }
        }
        Self::from_bytes(&text)
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn hex_digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for Key {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_and_odd_keys_are_taken() {
        for text in [
            "cat",
            "cat.png",
            "a/b/c.jpg",
            "../../etc/passwd",
            "katze mit hut",
            "猫",
            "...",
            "-",
            "%",
            "a%2Eb",
            "ÿ",
        ] {
            assert_eq!(Key::new(text).unwrap().as_str(), text);
        }
        assert_eq!(Key::new(&"x".repeat(255)).unwrap().as_str().len(), 255);
    }

    #[test]
    fn each_rule_has_its_error() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert_eq!(Key::new(&"x".repeat(256)), Err(KeyError::TooLong(256)));
        assert_eq!(Key::new("a\nb"), Err(KeyError::Control(10)));
        assert_eq!(Key::new("a\u{85}b"), Err(KeyError::Control(0x85)));
        assert_eq!(Key::new(" a"), Err(KeyError::OuterWhiteSpace));
        assert_eq!(Key::new("a\u{2003}"), Err(KeyError::OuterWhiteSpace));
        assert_eq!(Key::new(".."), Err(KeyError::DotSegment("..".into())));
        assert_eq!(Key::from_bytes(b"a\xff"), Err(KeyError::NotUtf8));
    }

    #[test]
    fn keys_that_look_alike_differ() {
        let keys = ["Cat", "cat", "cät", "ca\u{308}t"].map(|text| Key::new(text).unwrap());
        for (at, key) in keys.iter().enumerate() {
            assert!(keys[at + 1..].iter().all(|other| other != key && other.token() != key.token()));
        }
    }

    #[test]
    fn malformed_tokens_are_refused() {
        for token in ["a%", "a%2", "a%zz", "a.b", "a b", "a*", "ä", "%FF", ""] {
            assert!(Key::from_token(token).is_err(), "{token}");
        }
        assert_eq!(Key::from_token("cat%2epng"), Key::new("cat.png"));
    }

    proptest! {
        #[test]
        fn a_token_is_one_subject_token_and_comes_back(text in "\\PC{1,80}") {
            if let Ok(key) = Key::new(&text) {
                let token = key.token();
                prop_assert!(!token.is_empty());
                prop_assert!(!token.contains(['.', '*', '>', ' ', '\t', '\r', '\n', '/', '$']));
                prop_assert!(token.is_ascii());
                prop_assert_eq!(Key::from_token(&token), Ok(key));
            }
        }

        #[test]
        fn different_keys_have_different_tokens(a in "[a%2E./ ]{1,6}", b in "[a%2E./ ]{1,6}") {
            if let (Ok(a), Ok(b)) = (Key::new(&a), Key::new(&b)) {
                prop_assert_eq!(a == b, a.token() == b.token());
            }
        }

        #[test]
        fn any_bytes_are_a_key_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(key) = Key::from_bytes(&bytes) {
                prop_assert_eq!(key.as_str().as_bytes(), &bytes[..]);
            }
        }

        #[test]
        fn any_text_is_a_token_or_an_error(text in ".{0,40}") {
            if let Ok(key) = Key::from_token(&text) {
                prop_assert_eq!(key.token(), text.to_ascii_uppercase().chars().zip(text.chars()).scan(0u8, |left, (upper, plain)| {
                    // Only the two digits behind a percent sign may have been lower case.
                    let out = if *left > 0 { *left -= 1; upper } else { plain };
                    if plain == '%' { *left = 2; }
                    Some(out)
                }).collect::<String>());
            }
        }
    }
}
