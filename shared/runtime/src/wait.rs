//! Waiting for services that are not there yet, since services start in any order.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// The wait ended without success.
#[derive(Debug, thiserror::Error)]
#[error("{what} can't be used: {last} (tried for {} s)", waited.as_secs())]
pub struct WaitError {
    /// The thing that was waited for.
    pub what: String,
    /// The length of the wait.
    pub waited: Duration,
    /// The error of the last attempt.
    pub last: String,
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Tries until it succeeds, with pauses that double from 50 ms to 1 s, for at most `limit`.
///
/// Logs the first failure, and again each time the reason changes.
///
/// # Errors
/// [`WaitError`] with the last reason, after `limit`.
pub async fn until<T, E, F, Fut>(what: &str, limit: Duration, mut attempt: F) -> Result<T, WaitError>
where
    E: std::fmt::Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut last = String::new();
    loop {
        let left = limit.saturating_sub(started.elapsed());
        let reason = match timeout(left, attempt()).await {
            Ok(Ok(value)) => {
                if !last.is_empty() {
                    tracing::info!(
                        waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                        "the process no longer waits for {what}: it is available"
                    );
                }
                return Ok(value);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) if last.is_empty() => "no answer".to_owned(),
            Err(_) => last.clone(),
        };
        if reason != last {
            tracing::info!(reason, "the process waits for {what}");
            last = reason;
        }
        if started.elapsed() + pause >= limit {
            return Err(WaitError { what: what.to_owned(), waited: limit, last });
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_tries_again_until_it_succeeds() {
        let mut left = 5;
        let value = until("a thing", Duration::from_secs(60), || {
            left -= 1;
            let done = left == 0;
            async move { if done { Ok(7) } else { Err("not yet") } }
        });
        assert_eq!(value.await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_with_the_last_reason_even_if_a_try_hangs() {
        let error =
            until("a thing", Duration::from_secs(3), || async { Err::<(), _>("refused") }).await.unwrap_err();
        assert_eq!(error.last, "refused");
        let hung = until("a thing", Duration::from_secs(3), std::future::pending::<Result<(), String>>).await;
        assert_eq!(hung.unwrap_err().waited, Duration::from_secs(3));
    }
}
