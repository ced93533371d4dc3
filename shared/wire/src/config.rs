//! The live configuration of the cache: capacity and policy.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use time::OffsetDateTime;

use crate::words::{cut, one_of, shown};

/// Bytes in one of the megabytes in which people give a capacity (2^20).
pub const MEGABYTE: u64 = 1 << 20;

/// The policy that chooses the entry to evict when the cache is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
pub enum Policy {
    /// Nothing is kept: each get is a miss.
    None,
    /// A uniformly random entry leaves.
    Random,
    /// Exactly the least recently used entry leaves.
    Lru,
    /// CLOCK-Pro (Jiang, Chen and Zhang, USENIX ATC 2005), which keeps its frequently used entries during a scan.
    ClockPro,
}

/// The text names no [`Policy`]. The sentence goes on from the name of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be {allowed}, got {shown}", allowed = one_of(Policy::ALL), shown = shown(.0))]
pub struct UnknownPolicy(pub String);

impl Policy {
    /// Every policy, in the order in which pages show them.
    pub const ALL: [Self; 4] = [Self::None, Self::Random, Self::Lru, Self::ClockPro];

    /// The name on the wire, in settings and in rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Random => "random",
            Self::Lru => "lru",
            Self::ClockPro => "clock_pro",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        let name = match text.to_ascii_lowercase().as_str() {
            // As earlier clients say it.
            "random replacement" => return Ok(Self::Random),
            "least recently used" => return Ok(Self::Lru),
            name => Self::ALL.into_iter().find(|policy| policy.as_str() == name),
        };
        name.ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The largest weight that the cache may have, in whole megabytes of 2^20 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capacity(u64);

impl Capacity {
    /// A capacity of 1 to `max_mb` megabytes.
    ///
    /// # Errors
    /// [`InvalidConfig::Capacity`] outside that range.
    pub fn from_mb(mb: u64, max_mb: u64) -> Result<Self, InvalidConfig> {
        if (1..=max_mb).contains(&mb) {
            Ok(Self(mb))
        } else {
            Err(InvalidConfig::Capacity { value: mb.to_string(), max_mb })
        }
    }

    /// Megabytes.
    pub fn mb(self) -> u64 {
        self.0
    }

    /// Bytes.
    pub fn bytes(self) -> u64 {
        self.0.saturating_mul(MEGABYTE)
    }
}

/// The configuration as the KV bucket holds it. Its revision is that of the entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheConfig {
    /// The most that the cache may weigh, in megabytes of 2^20 bytes.
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub capacity_mb: Capacity,
    /// The policy that chooses the entry to evict.
    pub policy: Policy,
    /// The generation of the cache, drawn anew with each clear, so that a worker that was away clears when it returns.
    pub generation: u64,
    /// The author of the change.
    pub changed_by: String,
    /// The time of the change.
    #[serde(with = "crate::bounds::moment")]
    pub changed_at: OffsetDateTime,
}

/// The request of `cache.config.set`. Either the capacity or the policy may be left out, but not both.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ConfigChange {
    /// The new capacity, in megabytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_mb: Option<Capacity>,
    /// The new policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// The name of the asker, for the history: at most [`MAX_BY_CHARS`] characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The longest name of an asker of a change, in characters.
pub const MAX_BY_CHARS: usize = 64;

/// Why a change of the configuration is refused. Nothing is changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// The payload is no JSON object.
    #[error("the change must be a JSON object such as {{\"capacity_mb\":64,\"policy\":\"lru\"}}, got {0}")]
    NotAnObject(String),
    /// A field that does not exist.
    #[error("a field must be capacity_mb, policy or by, got {shown}", shown = shown(.0))]
    UnknownField(String),
    /// Neither field is given.
    #[error("the change must have capacity_mb, policy or both, got neither")]
    Nothing,
    /// Not a number of megabytes in range.
    #[error(
        "capacity_mb must be a whole number of megabytes from 1 to {max_mb} (three quarters of this machine's memory), \
         got {value}"
    )]
    Capacity {
        /// The value that was given.
        value: String,
        /// The most that is allowed.
        max_mb: u64,
    },
    /// Not a policy.
    #[error("policy must be {allowed}, got {0}", allowed = one_of(Policy::ALL))]
    Policy(String),
    /// Not a short line of text.
    #[error("by must be up to {MAX_BY_CHARS} characters of text without control characters, got {0}")]
    By(String),
}

impl ConfigChange {
    /// Reads the payload of `cache.config.set`, or the body of `PUT /api/cache`.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the value that is wrong and what is allowed.
    pub fn parse(payload: &[u8], max_mb: u64) -> Result<Self, InvalidConfig> {
        let value: Value = serde_json::from_slice(payload)
            .map_err(|_| InvalidConfig::NotAnObject(shown(&String::from_utf8_lossy(payload))))?;
        let Value::Object(fields) = value else {
            return Err(InvalidConfig::NotAnObject(json(&value)));
        };
        let mut change = Self::default();
        for (name, value) in fields {
            match name.as_str() {
                "capacity_mb" => {
                    let mb = whole_number(&value)
                        .ok_or_else(|| InvalidConfig::Capacity { value: json(&value), max_mb })?;
                    change.capacity_mb = Some(Capacity::from_mb(mb, max_mb)?);
                }
                "policy" => {
                    let policy = value.as_str().and_then(|text| text.parse().ok());
                    change.policy = Some(policy.ok_or_else(|| InvalidConfig::Policy(json(&value)))?);
                }
                "by" => {
                    let by = value.as_str().filter(|text| {
                        text.chars().count() <= MAX_BY_CHARS && !text.chars().any(char::is_control)
                    });
                    change.by = Some(by.ok_or_else(|| InvalidConfig::By(json(&value)))?.to_owned());
                }
                _ => return Err(InvalidConfig::UnknownField(cut(&name))),
            }
        }
        if change.capacity_mb.is_none() && change.policy.is_none() {
            return Err(InvalidConfig::Nothing);
        }
        Ok(change)
    }
}

/// A whole number, however it is written: to JSON, 64.0 and 64 are the same.
fn whole_number(value: &Value) -> Option<u64> {
    const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..=EXACT).contains(number);
    value.as_u64().or_else(|| value.as_f64().filter(whole).map(|number| number as u64))
}

/// A value as an error shows it: at most 64 characters of its JSON.
fn json(value: &Value) -> String {
    cut(&value.to_string())
}

/// The configuration of the cache that is in force: the answer to each `cache.config.*` request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = CacheConfig))]
pub struct ConfigReply {
    /// The worker that answers.
    pub worker: String,
    /// The worker's incarnation: this life of its process.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub incarnation: String,
    /// The revision of the configuration.
    pub revision: u64,
    /// The configuration in force.
    #[serde(flatten)]
    #[cfg_attr(feature = "openapi", schema(inline))]
    pub config: CacheConfig,
    /// The capacity in bytes.
    pub capacity_bytes: u64,
    /// The largest capacity that the worker's machine allows, in megabytes.
    pub max_capacity_mb: u64,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<ConfigChange, InvalidConfig> {
        ConfigChange::parse(text.as_bytes(), 1000)
    }

    #[test]
    fn either_field_may_be_left_out() {
        let both = parse(r#"{"capacity_mb":64,"policy":"lru"}"#).unwrap();
        assert_eq!((both.capacity_mb.unwrap().mb(), both.policy), (64, Some(Policy::Lru)));
        assert_eq!(parse(r#"{"policy":"Least Recently Used"}"#).unwrap().policy, Some(Policy::Lru));
        assert_eq!(parse(r#"{"policy":"Random Replacement"}"#).unwrap().policy, Some(Policy::Random));
        assert_eq!(parse(r#"{"capacity_mb":1000}"#).unwrap().policy, None);
        for whole in ["64", "64.0", "6.4e1", "640e-1"] {
            let change = parse(&format!(r#"{{"capacity_mb":{whole}}}"#)).unwrap();
            assert_eq!(change.capacity_mb.unwrap().mb(), 64, "{whole}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        for value in [
            "0",
            "-0.0",
            "-1",
            "1e12",
            "1e300",
            "1001",
            "\"abc\"",
            "null",
            "1.5",
            "[]",
            "99999999999999999999",
        ] {
            let error = parse(&format!(r#"{{"capacity_mb":{value}}}"#)).unwrap_err();
            assert!(matches!(error, InvalidConfig::Capacity { max_mb: 1000, .. }), "{error}");
        }
        assert_eq!(parse(r#"{"policy":"mru"}"#), Err(InvalidConfig::Policy("\"mru\"".into())));
        assert_eq!(parse(r#"{"policy":7}"#), Err(InvalidConfig::Policy("7".into())));
        assert_eq!(parse(r#"{"capacity":7}"#), Err(InvalidConfig::UnknownField("capacity".into())));
        assert_eq!(parse("{}"), Err(InvalidConfig::Nothing));
        assert!(matches!(parse("[1]"), Err(InvalidConfig::NotAnObject(_))));
        assert!(matches!(parse("hello"), Err(InvalidConfig::NotAnObject(_))));
        assert!(matches!(parse(""), Err(InvalidConfig::NotAnObject(_))));
        assert!(matches!(parse(r#"{"policy":"lru","by":"a\nb"}"#), Err(InvalidConfig::By(_))));
        for (change, sentence) in [
            (
                "hello",
                r#"the change must be a JSON object such as {"capacity_mb":64,"policy":"lru"}, got "hello""#,
            ),
            (r#"{"policy":"mru"}"#, r#"policy must be none, random, lru or clock_pro, got "mru""#),
            (r#"{"a\"b":1}"#, r#"a field must be capacity_mb, policy or by, got "a\"b""#),
            ("{}", "the change must have capacity_mb, policy or both, got neither"),
        ] {
            assert_eq!(parse(change).unwrap_err().to_string(), sentence);
        }
    }

    #[test]
    fn the_entry_keeps_its_form() {
        let text = r#"{"capacity_mb":64,"policy":"clock_pro","generation":3,"changed_by":"nats","changed_at":"2026-01-02T03:04:05Z"}"#;
        let config: CacheConfig = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_change_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = ConfigChange::parse(&bytes, 1000);
        }
        #[test]
        fn what_is_written_is_read(mb in 1u64..=1000, policy in 0usize..4) {
            let change = ConfigChange { capacity_mb: Some(Capacity::from_mb(mb, 1000).unwrap()), policy: Some(Policy::ALL[policy]), by: Some("api".into()) };
            prop_assert_eq!(ConfigChange::parse(&serde_json::to_vec(&change).unwrap(), 1000).unwrap(), change);
        }
    }
}
