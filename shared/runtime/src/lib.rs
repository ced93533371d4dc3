//! The common parts of all services of pixcache: shared settings, logs, signals, the connection to the bus, waiting for
//! other services, and background tasks that must not end unseen.

pub mod args;
pub mod bucket;
pub mod bus;
mod buses;
pub mod clock;
pub mod descriptors;
pub mod held;
pub mod logging;
pub mod owners;
pub mod priority;
pub mod process;
pub mod service;
pub mod shelf;
pub mod shutdown;
pub mod streams;
pub mod tasks;
pub mod together;
pub mod wait;

pub use bus::Bus;
pub use buses::Buses;
