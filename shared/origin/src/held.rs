//! Bytes that keep their place in memory.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

/// Keeps a permit for as long as these bytes are in memory, whoever holds them.
pub fn hold(bytes: Bytes, permit: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(Held { bytes, _permit: permit })
}

struct Held {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
