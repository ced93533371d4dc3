//! The origin: image files and their rows, the only way to the truth.

pub(crate) mod blobs;
pub mod dates;
mod gathered;
pub mod images;
pub mod listing;
pub(crate) mod pending;
pub(crate) mod reach;
pub(crate) mod sweep;
pub(crate) mod upload;
pub(crate) mod variants;
