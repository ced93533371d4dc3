//! The cache as the gateway sees it: the worker behind the bus, the near copies, the events that workers publish.

pub(crate) mod client;
pub(crate) mod feed;
pub(crate) mod granted;
pub(crate) mod near;
pub(crate) mod room;
pub(crate) mod shared;
