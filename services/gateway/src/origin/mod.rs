//! The origin: image files and their rows, the only way to the truth.

pub mod adopt;
pub(crate) mod blobs;
mod census;
pub mod dates;
mod gathered;
pub(crate) mod identity;
pub mod images;
pub mod listing;
pub(crate) mod pending;
pub(crate) mod reach;
pub(crate) mod sweep;
pub(crate) mod ties;
pub(crate) mod upload;
pub(crate) mod variants;
mod writers;
