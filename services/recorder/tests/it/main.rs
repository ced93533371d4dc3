//! The recorder against a real nats-server and a real MariaDB.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod any_input;
mod config_history;
mod helpers;
mod isolation;
mod migrations;
mod outages;
mod process;
mod questions;
mod retention;
mod series;
mod setup;
mod windows;
