//! Requests that inspect a worker or change its entries, and their answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::KeyEventKind;
use crate::item::Variant;
use crate::key::Key;

/// The answer to `cache.put`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutReply {
    /// Whether the image is now resident. False only with policy `none`; a refusal is an error reply.
    pub stored: bool,
    /// The image's size in bytes.
    pub bytes: u64,
    /// The image's content type.
    pub content_type: String,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub tag: String,
    /// The length of the near lease that came with it, in milliseconds from when the put was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_ms: Option<u64>,
}

/// The answer to `cache.invalidate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidateReply {
    /// Whether an entry of the key was resident, be it the original or a variant.
    pub resident: bool,
    /// The life of the worker that answers. The answer counts if that life owns the claim (design rule 9).
    #[serde(default)]
    pub incarnation: String,
}

/// The request of `cache.clear`. An empty payload is allowed too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearRequest {
    /// The name of the asker, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The outcome of a clear: the answer to `cache.clear`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = CacheCleared))]
pub struct ClearReply {
    /// The number of entries dropped.
    pub entries: u64,
    /// Their weight, in bytes.
    pub bytes: u64,
    /// The new generation.
    pub generation: u64,
    /// The revision of the configuration that carries it.
    pub revision: u64,
    /// The incarnation of the worker that answers: this life of its process. The answer counts if that life owns the
    /// claim (design rule 9).
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub incarnation: String,
}

/// The order of resident entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySort {
    /// The most recently used first.
    #[default]
    Recent,
    /// The largest first.
    Size,
    /// The most hits since they became resident first.
    Hits,
    /// By key, byte for byte, and the original before its variants.
    Key,
}

/// The request of `cache.keys`. An empty payload takes the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysRequest {
    /// Only keys that begin with this text.
    pub prefix: String,
    /// Only these keys, unless the list is empty. It serves to find the resident ones in a list of images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<Key>,
    /// The most entries to answer with, 1 to 1,000.
    pub limit: u32,
    /// The place behind which the list goes on: the `next` of the answer before; for `sort` `key`, any key.
    pub after: Option<String>,
    /// The order.
    pub sort: KeySort,
}

impl Default for KeysRequest {
    fn default() -> Self {
        Self { prefix: String::new(), only: Vec::new(), limit: 100, after: None, sort: KeySort::Recent }
    }
}

/// One resident entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidentKey {
    /// The key.
    pub key: Key,
    /// The variant; none is the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<Variant>,
    /// The image's size in bytes.
    pub bytes: u64,
    /// Its content type.
    #[serde(rename = "type")]
    pub content_type: String,
    /// Hits since it became resident.
    pub hits: u64,
    /// How long it has been resident, in milliseconds.
    pub age_ms: u64,
}

/// The answer to `cache.keys`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysReply {
    /// The entries, in the order asked for.
    pub keys: Vec<ResidentKey>,
    /// The `after` with which the list goes on; `null` at its end.
    pub next: Option<String>,
}

/// The answer of a service to `$SRV.PING` (ADR-32).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePing {
    /// The service's name: [`crate::subject::MEMCACHE_SERVICE`] or another one.
    pub name: String,
    /// The id of this instance among those of the same name.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Its metadata: `worker`, `incarnation`, `address`, `state`, `since`, where they apply.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl ServicePing {
    /// The `state` of a worker that serves.
    pub const SERVING: &str = "serving";
    /// The `state` of a worker that waits for the claim.
    pub const STANDING_BY: &str = "standing by";

    /// The metadata under this name; empty if there is none.
    pub fn said(&self, name: &str) -> &str {
        self.metadata.get(name).map_or("", String::as_str)
    }
}

/// The request of `cache.watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchRequest {
    /// How long key events are published, in seconds, 1 to 3,600. A later request can only make it longer.
    pub seconds: u32,
    /// The kinds of events to publish.
    pub kinds: Vec<KeyEventKind>,
}

impl Default for WatchRequest {
    fn default() -> Self {
        Self { seconds: 60, kinds: KeyEventKind::ALL.to_vec() }
    }
}

/// The answer to `cache.watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReply {
    /// The worker that publishes.
    pub worker: String,
    /// The worker's present life. The next one knows nothing of the watch.
    #[serde(default)]
    pub incarnation: String,
    /// How long it publishes from now, in seconds.
    pub seconds: u32,
    /// The kinds that it publishes.
    pub kinds: Vec<KeyEventKind>,
    /// The most events in a second. Further events are counted as dropped.
    pub max_per_second: u32,
}
