//! Near leases: the right of a gateway to serve a copy of its own for a while without asking (leases in
//! time: Gray and Cheriton, SOSP 1989).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::item::Variant;
use crate::key::Key;

/// The longest near lease, in milliseconds. A process that cannot find out the holders of copies waits that long, so it
/// is a constant and no setting.
pub const LONGEST_LEASE_MS: u64 = 1000;

/// One life of a gateway, as a holder of near leases: a number drawn anew in each life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder(pub u64);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Holder {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_plain { u64::from_str_radix(text, 16).map(Self).map_err(|_| ()) } else { Err(()) }
    }
}

impl Serialize for Holder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Holder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("a holder is 16 hexadecimal digits"))
    }
}

/// The worker's request that a holder drop a copy. The answer is empty. It comes once the copy is dropped and no copy
/// that was granted before can be kept any more. If the request is about every copy, their hits are reported before the
/// answer as well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropRequest {
    /// The copies of this key, of all its variants; without it, every copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

/// Hits that a holder served by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HitsReport {
    /// The holder that reports.
    pub holder: Holder,
    /// 1, 2, 3, … for each holder: a report that comes twice counts once.
    pub number: u64,
    /// The incarnation of the worker that is to count them. No other incarnation counts them, since it can't know
    /// whether this one has.
    pub to: String,
    /// The hits, each item once.
    pub hits: Vec<KeyHits>,
}

/// The most items in one report.
pub const MOST_KEYS_REPORTED: usize = 1000;

/// Hits of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyHits {
    /// The key.
    pub key: Key,
    /// The variant; none is the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<Variant>,
    /// The number of hits.
    pub count: u64,
    /// The total of the bytes that they served.
    pub bytes: u64,
}

/// The answer to a [`HitsReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitsReply {
    /// Whether they were counted now, and not before.
    pub counted: bool,
    /// The incarnation of the worker that answers.
    pub by: String,
    /// The age of that incarnation. No earlier one has counted anything since it began.
    #[serde(default)]
    pub uptime_ms: u64,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_holder_is_read_as_it_is_written_and_nothing_else_is_read() {
        for holder in [Holder(0), Holder(7), Holder(u64::MAX)] {
            assert_eq!(holder.to_string().parse(), Ok(holder));
            let json = serde_json::to_string(&holder).unwrap();
            assert_eq!(serde_json::from_str::<Holder>(&json).unwrap(), holder);
        }
        for text in ["", "7", "+000000000000007", "00000000000000007", "000000000000000g"] {
            assert!(text.parse::<Holder>().is_err(), "{text}");
        }
    }
}
