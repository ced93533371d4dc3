//! The web gateway of pixcache: HTTP in front, the cache beside, the origin behind.

pub mod cache;
pub mod chart;
mod conditional;
pub mod config;
pub mod error;
mod flight;
pub mod origin;
pub mod read;
pub mod routes;
pub mod state;
pub mod units;
pub mod views;

pub use config::Config;
pub use error::Error;
pub use state::AppState;
