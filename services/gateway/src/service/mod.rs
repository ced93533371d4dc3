//! The work behind the gateway's routes: read through the cache, change the origin and tell the cache.

pub(crate) mod change;
mod fill;
mod flight;
pub(crate) mod reach;
pub(crate) mod read;
pub(crate) mod serving;
pub(crate) mod state;
mod telling;
