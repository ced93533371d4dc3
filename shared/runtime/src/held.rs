//! Bytes that hold a permit for the memory that they take.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

/// Keeps a permit for as long as these bytes are in memory, wherever they are held.
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
