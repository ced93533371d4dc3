//! Whether MySQL is within reach, as far as this process has noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;

/// The last observation. Clones share it. It only shortens the wait for MySQL where an incomplete answer soon is better
/// than a complete one late. It is never a reason not to ask.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach(Arc<AtomicBool>);

impl Reach {
    /// Whether the last question was not answered.
    pub(crate) fn is_away(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes whether a question was answered.
    pub(crate) fn note<T>(&self, answer: &Result<T, Error>) {
        self.0.store(matches!(answer, Err(Error::Unavailable { .. })), Ordering::Relaxed);
    }
}
