//! The fill lease of a miss, in the hands of the gateway that is to fill.

use std::time::Duration;

use bytes::Bytes;
use runtime::Bus;
use tokio::runtime::Handle;
use wire::{Item, Lease, Meta, subject};

/// How long the worker may take to answer that it has the lease back.
const RETURN_LIMIT: Duration = Duration::from_secs(1);

/// A lease that goes back to the worker unless it is used. While it is out, no other read of its item can fill:
/// a client that closes its connection, or an answer that comes too late, must not keep the item out of the cache
/// until the lease ends.
#[derive(Debug)]
pub(crate) struct Granted {
    bus: Bus,
    item: Item,
    lease: Lease,
    is_used: bool,
}

impl Granted {
    /// The lease that a miss of `item` brought over `bus`.
    pub(crate) fn new(bus: Bus, item: Item, lease: Lease) -> Self {
        Self { bus, item, lease, is_used: false }
    }

    /// The lease itself.
    pub(crate) fn lease(&self) -> Lease {
        self.lease
    }

    /// Lets go of it without giving it back: the worker has answered a put with it, or no fill can follow.
    pub(crate) fn use_up(mut self) {
        self.is_used = true;
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        let (false, Ok(runtime)) = (self.is_used, Handle::try_current()) else { return };
        let (bus, subject) = (self.bus.clone(), subject::put(&self.item));
        let meta = Meta { lease: Some(self.lease), returned: true, ..Meta::default() };
        runtime.spawn(async move {
            if let Err(failure) = bus.request(subject, Some(&meta), Bytes::new(), RETURN_LIMIT).await {
                tracing::debug!(%failure, "a lease could not be given back: it ends by itself");
            }
        });
    }
}
