//! The rows of the tables, and the image files beside them.

use std::collections::BTreeSet;
use std::path::Path;

use sqlx::MySqlPool;
use time::OffsetDateTime;

use super::history::{History, Moment};

/// A window, as its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WindowRow {
    pub(crate) worker: String,
    pub(crate) incarnation: String,
    pub(crate) sequence: u64,
    /// By the wall clock of its worker.
    pub(crate) start: Moment,
    pub(crate) end: Moment,
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// The hits that gateways had served from copies of their own.
    pub(crate) near_hits: u64,
}

/// A change of the configuration, as its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PropertyRow {
    /// The bucket of its revision, by the time at which the bucket was created.
    pub(crate) bucket: OffsetDateTime,
    pub(crate) revision: u64,
    pub(crate) capacity_mb: u64,
    pub(crate) policy: String,
}

/// All windows, in the order of their lives and numbers.
pub(crate) async fn windows(tables: &MySqlPool, history: &History) -> sqlx::Result<Vec<WindowRow>> {
    type Columns = (String, String, u64, OffsetDateTime, u64, u64, u64, u64, u64);
    let rows: Vec<Columns> = sqlx::query_as(
        "SELECT worker, incarnation, sequence, interval_start, interval_ms, request_count, hit_count, miss_count, \
         near_hit_count FROM cache_stats ORDER BY worker, incarnation, sequence",
    )
    .fetch_all(tables)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let (worker, incarnation, sequence, start, length_ms, requests, hits, misses, near_hits) = row;
        let start = history.moment_of(start.into());
        let end = start + length_ms * 1_000_000;
        WindowRow { worker, incarnation, sequence, start, end, requests, hits, misses, near_hits }
    });
    Ok(rows.collect())
}

/// The history of the configuration, in its order.
pub(crate) async fn properties(tables: &MySqlPool) -> sqlx::Result<Vec<PropertyRow>> {
    let rows: Vec<(OffsetDateTime, u64, u64, String)> = sqlx::query_as(
        "SELECT bucket_created_at, revision, max_capacity, replacement_policy FROM cache_properties \
         ORDER BY bucket_created_at, revision",
    )
    .fetch_all(tables)
    .await?;
    let rows = rows.into_iter().map(|(bucket, revision, capacity, policy)| PropertyRow {
        bucket,
        revision,
        capacity_mb: capacity >> 20,
        policy,
    });
    Ok(rows.collect())
}

/// How many changes the cache has yet to acknowledge, and what the open transactions of an account are about.
pub(crate) async fn pending(tables: &MySqlPool, account: &str) -> sqlx::Result<(i64, Vec<String>)> {
    let notes = sqlx::query_scalar("SELECT COUNT(*) FROM pending_invalidations").fetch_one(tables).await?;
    let open = sqlx::query_scalar(
        "SELECT CONCAT_WS(' ', trx_mysql_thread_id, trx_state, trx_started, command, trx_query) \
         FROM information_schema.innodb_trx JOIN information_schema.processlist ON id = trx_mysql_thread_id \
         WHERE user = ?",
    )
    .bind(account)
    .fetch_all(tables)
    .await?;
    Ok((notes, open))
}

/// Whether a window of the last moments has its row.
pub(crate) async fn is_up_to_date(tables: &MySqlPool) -> sqlx::Result<bool> {
    let newest: Option<bool> = sqlx::query_scalar(
        "SELECT MAX(interval_start) >= UTC_TIMESTAMP(6) - INTERVAL 1 SECOND FROM cache_stats",
    )
    .fetch_one(tables)
    .await?;
    Ok(newest == Some(true))
}

/// The files that rows name.
pub(crate) async fn named_files(tables: &MySqlPool) -> sqlx::Result<BTreeSet<String>> {
    let names: Vec<String> = sqlx::query_scalar("SELECT location FROM images").fetch_all(tables).await?;
    Ok(names.into_iter().collect())
}

/// The image files that lie in a folder: on its shelves, which two digits name, and not in its trash.
pub(crate) fn files(folder: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for shelf in std::fs::read_dir(folder)? {
        let shelf = shelf?;
        if shelf.file_name().len() != 2 {
            continue;
        }
        for entry in std::fs::read_dir(shelf.path())? {
            if let Ok(name) = entry?.path().strip_prefix(folder) {
                found.insert(name.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}
