//! The key that a path names: all of the rest of it, slashes included.

use axum::http::Uri;
use percent_encoding::percent_decode_str;
use wire::words::shown;
use wire::{Key, KeyError};

use crate::error::Error;

/// The key behind `prefix` in the path of `uri`.
///
/// It is taken from the path as it was sent: `a/b` and `a%2Fb` name the same key, `a/` names another key than `a`, and
/// a plus sign is a plus sign. The router's own decoding would refuse bytes that are not UTF-8 with a message of its
/// own.
///
/// # Errors
/// The errors of [`Key::from_bytes`], or [`Error::BadRequest`] for a `%` without two hexadecimal digits.
pub(crate) fn key_behind(prefix: &str, uri: &Uri) -> Result<Key, Error> {
    let rest = uri.path().strip_prefix(prefix).unwrap_or_default();
    if !is_well_encoded(rest) {
        return Err(Error::BadRequest(format!(
            "the key in a path must have two hexadecimal digits behind each %, got {}: a % itself is written %25",
            shown(rest)
        )));
    }
    let bytes: Vec<u8> = percent_decode_str(rest).collect();
    if bytes.is_empty() {
        return Err(KeyError::Empty.into());
    }
    Ok(Key::from_bytes(&bytes)?)
}

fn is_well_encoded(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        match rest[at + 1..] {
            [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest = &rest[at + 3..],
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    fn key(path: &str) -> Result<Key, Error> {
        key_behind("/images/", &path.parse().unwrap())
    }

    #[test]
    fn the_rest_of_the_path_is_the_key() {
        for (path, expected) in [
            ("/images/cat", "cat"),
            ("/images/cat.png?v=1&key=dog", "cat.png"),
            ("/images/a/b", "a/b"),
            ("/images/a%2Fb", "a/b"),
            ("/images/a%2fb/", "a/b/"),
            ("/images//a", "/a"),
            ("/images/%2e%2e%2F..%2Fetc/passwd", "../../etc/passwd"),
            ("/images/one+two%20three", "one+two three"),
            ("/images/%E7%8C%AB", "猫"),
            ("/images/100%25", "100%"),
        ] {
            assert_eq!(key(path).unwrap().as_str(), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_key_is_said_to_be_none() {
        assert!(matches!(key("/images/"), Err(Error::Key(KeyError::Empty))));
        assert!(matches!(key("/images/."), Err(Error::Key(KeyError::DotSegment(_)))));
        assert!(matches!(key("/images/%2e%2E"), Err(Error::Key(KeyError::DotSegment(_)))));
        assert!(matches!(key("/images/%ff"), Err(Error::Key(KeyError::NotUtf8))));
        assert!(matches!(key("/images/a%0Ab"), Err(Error::Key(KeyError::Control(10)))));
        assert!(matches!(key("/images/%20a"), Err(Error::Key(KeyError::OuterWhiteSpace))));
        assert!(matches!(key("/images/a%2"), Err(Error::BadRequest(_))));
        assert!(matches!(key("/images/a%zz"), Err(Error::BadRequest(_))));
        let long = format!("/images/{}", "x".repeat(256));
        assert!(matches!(key(&long), Err(Error::Key(KeyError::TooLong(256)))));
    }

    proptest! {
        #[test]
        fn an_escaped_key_comes_back(text in "\\PC{1,60}") {
            if let Ok(expected) = Key::new(&text) {
                let path = format!("/images/{}", utf8_percent_encode(&text, NON_ALPHANUMERIC));
                prop_assert_eq!(key(&path).unwrap(), expected);
            }
        }
    }
}
