//! The origin: image files and their rows, the only way to the truth.

pub mod images;
