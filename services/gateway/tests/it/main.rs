//! The gateway against a real nats-server, a real MariaDB and the real worker.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod any_input;
mod api;
mod bad_input;
mod cluster;
mod cors;
mod dates;
mod events;
mod faults;
mod freshness;
mod helpers;
mod hosts;
mod http;
mod images;
mod near;
mod operation;
mod outages;
mod pages;
mod rude;
mod shared;
mod store;
mod strangers;
mod system;
mod uploads;
mod variants;
