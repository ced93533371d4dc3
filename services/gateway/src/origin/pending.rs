//! The rows of `pending_invalidations`: changes that the cache has not acknowledged yet (design rule 6).
//!
//! Without them, a gateway that dies between a row's change and its invalidation would leave the old image
//! in the cache for good.

use std::time::Duration;

use sqlx::mysql::{MySqlConnection, MySqlPool};
use sqlx::{MySql, QueryBuilder};
use wire::Key;

use super::images::answered;
use crate::error::Error;

/// What the cache must be told to drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The image under this key.
    Key(Key),
    /// All images. In the table, it is the empty key.
    Everything,
}

/// A change that the cache must be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// What it must drop.
    pub(crate) scope: Scope,
    /// Drawn anew for each change. A note is removed by its token only, so that the acknowledgement of an
    /// earlier change never removes the note of a later one.
    token: u64,
}

impl Note {
    /// A note with a token of its own.
    pub(crate) fn new(scope: Scope) -> Self {
        Self { scope, token: rand::random() }
    }
}

impl Scope {
    fn column(&self) -> &[u8] {
        match self {
            Self::Key(key) => key.as_str().as_bytes(),
            Self::Everything => b"",
        }
    }
}

/// Writes a note within the transaction that makes the change, and says whether one was there already.
/// Until the transaction ends, others that note the same key wait here.
pub(super) async fn note(transaction: &mut MySqlConnection, note: &Note) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO pending_invalidations (image_key, token, noted_at) VALUES (?, ?, UTC_TIMESTAMP(6)) \
         ON DUPLICATE KEY UPDATE token = VALUES(token), noted_at = VALUES(noted_at)",
    )
    .bind(note.scope.column())
    .bind(note.token)
    .execute(transaction)
    .await?;
    // One row for an insert, two for an update.
    Ok(done.rows_affected() > 1)
}

/// The table `pending_invalidations`, outside the transactions that write to it.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pool: MySqlPool,
}

impl Pending {
    /// On this pool.
    pub(crate) fn new(pool: MySqlPool) -> Self {
        Self { pool }
    }

    /// Up to `limit` notes that are older than `age`, the oldest first.
    pub(crate) async fn older_than(&self, age: Duration, limit: u32) -> Result<Vec<Note>, Error> {
        let question = sqlx::query_as(
            "SELECT image_key, token FROM pending_invalidations \
             WHERE noted_at <= UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND ORDER BY noted_at LIMIT ?",
        )
        .bind(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
        .bind(limit)
        .fetch_all(&self.pool);
        let rows: Vec<(Vec<u8>, u64)> = answered(question).await?;
        let notes = rows.into_iter().map(|(key, token)| {
            let scope = if key.is_empty() { Scope::Everything } else { Scope::Key(Key::from_bytes(&key)?) };
            Ok(Note { scope, token })
        });
        notes.collect()
    }

    /// How many there are: 0 in peace.
    pub(crate) async fn count(&self) -> Result<u64, Error> {
        let question = sqlx::query_scalar("SELECT COUNT(*) FROM pending_invalidations").fetch_one(&self.pool);
        let count: i64 = answered(question).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Removes notes whose changes the cache has acknowledged, but for those that a later change has replaced.
    pub(crate) async fn remove(&self, notes: &[Note]) -> Result<(), Error> {
        if notes.is_empty() {
            return Ok(());
        }
        let mut deletion =
            QueryBuilder::<MySql>::new("DELETE FROM pending_invalidations WHERE (image_key, token) IN (");
        let mut list = deletion.separated(", ");
        for note in notes {
            list.push("(");
            list.push_bind_unseparated(note.scope.column());
            list.push_unseparated(", ");
            list.push_bind_unseparated(note.token);
            list.push_unseparated(")");
        }
        answered(deletion.push(")").build().execute(&self.pool)).await?;
        Ok(())
    }
}
