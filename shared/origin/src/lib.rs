//! The origin of pixcache: the image files and their rows, which alone are authoritative.
//!
//! It knows neither HTTP nor the cache. A file is written before its row and read after it. The id of the installation
//! ([`identity`]) keeps store and database together, and the [`sweep`] removes files that no row names.

pub mod adopt;
pub mod blobs;
mod census;
pub mod dates;
pub mod error;
mod gathered;
mod id;
pub mod identity;
pub mod images;
pub mod listing;
mod names;
pub mod open;
pub mod pending;
mod rounds;
mod rows;
pub mod sizes;
pub mod sweep;
mod swept;
pub mod ties;
pub mod upload;
pub mod variants;
mod writers;

pub use error::Error;
pub use id::OriginId;
pub use rows::ImageRow;
pub use swept::Swept;
