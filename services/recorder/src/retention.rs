//! Rows that are too old are removed, a few at a time, so that nothing else waits for long.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::repository::Repository;

/// How often old rows are looked for.
const EVERY: Duration = Duration::from_secs(3600);
/// When to try again after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// Rows removed by one statement.
const BATCH: u32 = 2000;
/// The pause between two of them, in which others get their turn.
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

/// Removes everything before `end`; returns when to look again.
async fn round(repository: &Repository, end: OffsetDateTime) -> Duration {
    let mut removed_rows = 0;
    loop {
        match repository.remove_before(end, BATCH).await {
            Ok(0) => break,
            Ok(rows) => removed_rows += rows,
            Err(error) => {
                tracing::warn!(%error, removed_rows, "old rows could not be removed, trying again in a minute");
                return RETRY_AFTER;
            }
        }
        sleep(PAUSE).await;
    }
    if removed_rows > 0 {
        tracing::info!(removed_rows, "removed rows older than the retention");
    }
    EVERY
}
