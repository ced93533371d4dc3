//! Whether MySQL is within reach, as far as this process has noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;

/// What was noticed last. Clones share it. It decides only how long somebody waits for MySQL who would rather have
/// an incomplete answer soon, and is never a reason not to ask.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach(Arc<AtomicBool>);

impl Reach {
    /// Whether the last question was not answered.
    pub(crate) fn is_away(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// What came of a question.
    pub(crate) fn note<T>(&self, answer: &Result<T, Error>) {
        self.0.store(matches!(answer, Err(Error::Unavailable { .. })), Ordering::Relaxed);
    }
}
