//! The cache as the gateway sees it: the worker behind the bus, the copies that are near, what workers say by themselves.

pub(crate) mod client;
pub(crate) mod feed;
pub(crate) mod near;
pub(crate) mod room;
