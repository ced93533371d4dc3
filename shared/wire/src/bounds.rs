//! The times and lengths that a message may hold. They are limited, so that a reader may add to one, or show it in any
//! zone.

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::words::shown;

/// The years in which a time may lie, in UTC.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9000;
/// The longest length, in seconds or milliseconds: more than thirty years, even in milliseconds.
const LONGEST: u64 = 1_000_000_000_000;

/// A time as RFC 3339 writes it, for `#[serde(with)]`.
pub mod moment {
    use super::*;

    /// Writes the time.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(time: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
        time::serde::rfc3339::serialize(time, serializer)
    }

    /// Reads a time, into UTC.
    ///
    /// # Errors
    /// When the time is not in the years 1970 to 9000.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let time = OffsetDateTime::parse(&text, &Rfc3339).ok();
        time.and_then(|time| time.checked_to_offset(UtcOffset::UTC))
            .filter(|time| YEARS.contains(&time.year()))
            .ok_or_else(|| {
                D::Error::custom(format!(
                    "must be a time as RFC 3339 writes it, of the years 1970 to 9000, got {}",
                    shown(&text)
                ))
            })
    }
}

/// A length in seconds or milliseconds, for `#[serde(with)]`.
pub mod length {
    use super::*;

    /// Writes the length.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(length: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        length.serialize(serializer)
    }

    /// Reads a length.
    ///
    /// # Errors
    /// When it is more than 10¹².
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let length = u64::deserialize(deserializer)?;
        if length > LONGEST {
            return Err(D::Error::custom(format!("must be a length of at most {LONGEST}, got {length}")));
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Both {
        #[serde(with = "moment")]
        time: OffsetDateTime,
        #[serde(with = "length")]
        length: u64,
    }

    fn read(time: &str, length: u64) -> Result<Both, serde_json::Error> {
        serde_json::from_str(&format!(r#"{{"time":"{time}","length":{length}}}"#))
    }

    #[test]
    fn what_can_be_added_to_and_shown_anywhere_is_read_and_the_rest_is_refused() {
        let both = read("2026-01-02T03:04:05.6+01:00", LONGEST).unwrap();
        assert_eq!(
            serde_json::to_string(&both).unwrap(),
            format!(r#"{{"time":"2026-01-02T02:04:05.6Z","length":{LONGEST}}}"#)
        );
        for time in [
            "9999-12-31T23:59:59-23:59",
            "9001-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00+23:59",
            "now",
            "",
        ] {
            assert!(read(time, 0).unwrap_err().to_string().contains("1970 to 9000"), "{time}");
        }
        assert!(read("2026-01-02T03:04:05Z", LONGEST + 1).unwrap_err().to_string().contains("at most"));
    }
}
