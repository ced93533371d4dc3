//! The routes: one file a feature, its `router()` beside its handlers.

pub mod pages;
pub(crate) mod upload;
