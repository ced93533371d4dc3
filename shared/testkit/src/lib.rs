//! Development only: a real nats-server and a real MariaDB for a test run, free ports, samples.
//!
//! Nothing is mocked. Each server runs in a temporary folder on a port of its own, and both are gone
//! when the test process is, however that ended. A tool that is missing fails the test with a
//! sentence that says how to get it; no test is ever skipped.

#![expect(clippy::expect_used, reason = "a test fails by panicking, with a sentence that says why")]

mod answer_hold;
pub mod any;
mod basics;
pub mod costly;
pub mod database;
mod guardian;
pub mod link;
pub mod nats;
mod port;
pub mod samples;
mod service;
mod tools;

use std::time::{Duration, Instant};

pub use answer_hold::AnswerHold;
use basics::LOOK_EVERY;
pub use basics::repository_root;
pub use database::{Database, MariaDb};
pub use guardian::{Guardian, Order};
pub use link::{Link, Way};
pub use nats::{ACCOUNTS, NatsServer, Route, account_of, witness_of};
pub use port::free_port;
pub use service::service_binary;

/// Waits until the condition of `check` is met, and returns the value that it found. Tests wait for other processes in
/// this way.
///
/// `what` completes the sentence "… did not come true".
///
/// # Panics
/// When `timeout` has passed without it.
pub async fn eventually<C: Condition>(
    what: &str,
    timeout: Duration,
    mut check: impl AsyncFnMut() -> C,
) -> C::Found {
    let start = Instant::now();
    loop {
        if let Some(found) = check().await.found() {
            return found;
        }
        assert!(start.elapsed() < timeout, "{what}: did not come true within {timeout:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The possible results of the closure given to [`eventually`].
pub trait Condition {
    /// The value that [`eventually`] then returns.
    type Found;
    /// The value that was found, if the condition is met.
    fn found(self) -> Option<Self::Found>;
}

impl Condition for bool {
    type Found = ();
    fn found(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Condition for Option<T> {
    type Found = T;
    fn found(self) -> Self {
        self
    }
}
