//! Removes rows that are too old, a few at a time, so that other statements don't wait for long.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::repository::Repository;

/// How often old rows are looked for.
const EVERY: Duration = Duration::from_secs(3600);
/// When to try again after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// The most rows that one statement removes.
const BATCH: u32 = 2000;
/// The pause between two such statements, in which other statements can run.
const PAUSE: Duration = Duration::from_millis(50);

/// Removes rows that are older than `days`, at once and then every hour, until `shutdown`.
pub(crate) async fn remove_old_rows(repository: Repository, days: u32, shutdown: CancellationToken) {
    let rounds = async {
        loop {
            let oldest_kept = OffsetDateTime::now_utc() - time::Duration::days(i64::from(days));
            sleep(round(&repository, oldest_kept).await).await;
        }
    };
    shutdown.run_until_cancelled(rounds).await;
}

/// Removes all rows before `end`, and returns the time until the next look.
async fn round(repository: &Repository, end: OffsetDateTime) -> Duration {
    let mut removed_rows = 0;
    loop {
        match repository.remove_before(end, BATCH).await {
            Ok(0) => break,
            Ok(rows) => removed_rows += rows,
            Err(error) => {
                tracing::warn!(%error, removed_rows, "rows older than the retention could not be removed: it is tried again in a minute");
                return RETRY_AFTER;
            }
        }
        sleep(PAUSE).await;
    }
    if removed_rows > 0 {
        tracing::info!(removed_rows, "rows older than the retention were removed");
    }
    EVERY
}
