//! Work of low priority: it takes the processors only as far as no other thread wants them.

/// The nice value of such a thread, of at most 19. Beside an ordinary thread, it gets a seventieth of a processor.
const NICENESS: i32 = 19;

/// Lowers the priority of the calling thread, and of no other thread. It does so on Linux only, where each thread has a
/// nice value of its own. On other systems it does nothing.
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
