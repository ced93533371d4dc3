//! Durations as people type them: `10m`, `24h`, `5s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::words::{cut, shown};

/// A duration written as a whole number and a unit: `ms`, `s`, `m`, `h` or `d`. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

/// The text is not a [`Span`]. The sentence goes on from the name of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number and a unit (ms, s, m, h or d), as in 10m, from 1ms to 366d, got {shown}", shown = shown(.0))]
pub struct SpanError(String);

const LONGEST_MS: u64 = 366 * 24 * 3_600_000;

impl Span {
    /// A span of so many milliseconds.
    ///
    /// # Errors
    /// [`SpanError`] for 0 and for more than 366 days.
    pub fn from_millis(ms: u64) -> Result<Self, SpanError> {
        if (1..=LONGEST_MS).contains(&ms) {
            Ok(Self(Duration::from_millis(ms)))
        } else {
            Err(SpanError(format!("{ms}ms")))
        }
    }

    /// The span as the standard library has it.
    pub fn duration(self) -> Duration {
        self.0
    }

    /// Milliseconds, at least 1.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        // An error keeps no more than it shows.
        let error = || SpanError(cut(text));
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        number.checked_mul(unit_ms).and_then(|ms| Self::from_millis(ms).ok()).ok_or_else(error)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.millis();
        for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
            if ms.is_multiple_of(unit_ms) {
                return write!(f, "{}{unit}", ms / unit_ms);
            }
        }
        write!(f, "{ms}ms")
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_s_durations_are_read_and_written() {
        for (text, ms) in
            [("10m", 600_000), ("24h", 86_400_000), ("7d", 604_800_000), ("5s", 5000), ("250ms", 250)]
        {
            assert_eq!(text.parse::<Span>().unwrap().millis(), ms);
        }
        assert_eq!("24h".parse::<Span>().unwrap().to_string(), "1d");
        for text in ["", "10", "m", "0s", "-1s", "1.5h", "10 m", "367d", "99999999999999999999d", "1w"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert!("x".repeat(1 << 20).parse::<Span>().unwrap_err().to_string().len() < 300);
    }

    proptest! {
        #[test]
        fn a_span_comes_back(ms in 1..=LONGEST_MS) {
            let span = Span::from_millis(ms).unwrap();
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        #[test]
        fn any_text_is_a_span_or_an_error(text in ".{0,20}") {
            let _ = text.parse::<Span>();
        }
    }
}
