//! Work that is done again and again until the stop.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Does the work at once, and again after the pause that it asks for, until the stop.
pub(crate) async fn repeat<F: Future<Output = Duration>>(shutdown: &CancellationToken, work: impl Fn() -> F) {
    while let Some(pause) = shutdown.run_until_cancelled(work()).await {
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}
