//! The NATS service `memcache`: turns messages into calls of the store, and their results into replies.
//!
//! [`table`] has a row for each endpoint, and each row's handler a file of its own.

mod clear;
mod config;
mod get;
mod handled;
mod invalidate;
mod keys;
mod near_hits;
mod put;
mod serve;
mod stats;
mod table;
mod watch;

pub(crate) use serve::{Endpoints, Stop, stand_by};
pub(crate) use table::Group;
