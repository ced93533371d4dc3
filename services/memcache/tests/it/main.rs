//! The worker against a real nats-server with the configuration that ships.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod any_input;
mod bad_input;
mod claim;
mod configuration;
mod events;
mod freshness;
mod helpers;
mod images;
mod near;
mod shared;
mod windows;
