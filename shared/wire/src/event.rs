//! The events that a worker publishes by itself, besides its windows ([`crate::stats::Window`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::config::Policy;
use crate::item::Variant;
use crate::key::Key;
use crate::words::{one_of, shown};

/// The kind of a key event, and the token for it in `cache.event.key.<kind>.<key>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum KeyEventKind {
    /// A get found the entry.
    Hit,
    /// A get found no entry.
    Miss,
    /// An entry was inserted, by a fill or a put.
    Put,
    /// The policy removed the entry.
    Evicted,
    /// The origin changed, and the entry, if there was one, was removed.
    Invalidated,
    /// An image was refused because it is too heavy.
    Rejected,
}

impl KeyEventKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Hit, Self::Miss, Self::Put, Self::Evicted, Self::Invalidated, Self::Rejected];

    /// The token on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Put => "put",
            Self::Evicted => "evicted",
            Self::Invalidated => "invalidated",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for KeyEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyEventKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("must be {}, got {}", one_of(Self::ALL), shown(text)))
    }
}

/// An event: something that happened to a key. Published on core NATS while a watch lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyEvent {
    /// The kind of the event.
    pub kind: KeyEventKind,
    /// The key.
    pub key: Key,
    /// The variant of the image, such as `w320`; left out for the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Variant, required = false))]
    pub variant: Option<Variant>,
    /// The image's size in bytes; 0 where no bytes are known (a miss).
    pub bytes: u64,
    /// How often it happened; 1 if not given. Only a gateway that reports of its near cache gives more.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub count: u64,
    /// Whether a gateway has served it from its near cache, and reports it; false if not given.
    #[serde(default, skip_serializing_if = "is_false")]
    pub near: bool,
    /// The worker that publishes it.
    pub worker: String,
    /// The time of the event.
    #[serde(with = "crate::bounds::moment")]
    pub time: OffsetDateTime,
    /// The number of events of this watch left out so far, because there were more than the limit per second.
    pub dropped_count: u64,
}

fn once() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_once(count: &u64) -> bool {
    *count == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// `cache.event.configured.<worker>`: a worker has put a revision into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Configured {
    /// The worker.
    pub worker: String,
    /// The worker's incarnation: this life of its process.
    pub incarnation: String,
    /// The revision now in force.
    pub revision: u64,
    /// The capacity, in bytes.
    pub capacity_bytes: u64,
    /// The policy.
    pub policy: Policy,
    /// The name of the person or program that asked for the change.
    pub changed_by: String,
    /// When it took effect.
    #[serde(with = "crate::bounds::moment")]
    pub time: OffsetDateTime,
}

/// `cache.event.cleared.<worker>`: a worker has dropped everything because it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cleared {
    /// The worker.
    pub worker: String,
    /// The worker's incarnation: this life of its process.
    pub incarnation: String,
    /// The revision of the configuration that carries the new generation.
    pub revision: u64,
    /// The new generation.
    pub generation: u64,
    /// Entries dropped.
    pub entries: u64,
    /// Their weight, in bytes.
    pub bytes: u64,
    /// The name of the person or program that asked for it.
    pub changed_by: String,
    /// The time of the event.
    #[serde(with = "crate::bounds::moment")]
    pub time: OffsetDateTime,
}
