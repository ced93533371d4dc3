//! The protocol between the parts of pixcache: keys, subjects, messages and reply codes.
//!
//! Nothing here talks to a server. Each name that crosses the bus is spelled once, in this crate:
//! subjects in [`subject`], the fields of messages in the type that carries them.

pub mod bounds;
pub mod config;
pub mod event;
pub mod inspect;
pub mod item;
pub mod key;
pub mod meta;
pub mod near;
#[cfg(feature = "openapi")]
mod openapi;
pub mod owners;
pub mod reply;
pub mod shelf;
pub mod span;
pub mod stats;
pub mod subject;
pub mod words;

pub use config::{CacheConfig, Capacity, ConfigChange, ConfigReply, Policy};
pub use item::{Item, Variant};
pub use key::{Key, KeyError};
pub use meta::{Lease, Meta, Refill, Tag};
pub use near::Holder;
pub use reply::Code;
pub use span::Span;
pub use stats::{CacheStats, Counters, Window};
