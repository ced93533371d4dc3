//! HTTP: connections and their limits, access, and the way of a request to its handler.

pub(crate) mod access;
pub(crate) mod app;
mod attempts;
mod crowd;
mod guard;
mod hot;
mod lend;
mod patient;
pub(crate) mod server;
