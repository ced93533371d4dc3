//! Work that has time: it takes the processors only as far as nobody else wants them.

/// How far back a thread steps, of 19: beside one that did not, it gets a seventieth of a processor.
const NICENESS: i32 = 19;

/// Makes the thread that calls this, and nobody else, wait behind others. On Linux alone it is the thread's own
/// affair; elsewhere nothing happens.
pub fn step_back() {
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::nice(NICENESS)
    {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    fn niceness() -> i32 {
        rustix::process::nice(0).unwrap()
    }

    #[test]
    fn only_the_thread_that_asks_for_it_steps_back() {
        let before = niceness();
        let within = std::thread::spawn(|| {
            super::step_back();
            niceness()
        });
        assert_eq!(within.join().unwrap(), (before + super::NICENESS).min(19));
        assert_eq!(niceness(), before);
    }
}
