//! The rows of `pending_invalidations`: changes that the cache has not acknowledged yet (design rule 6).
//!
//! Without them, a gateway that dies between a row's change and its invalidation would leave the old image
//! in the cache for good.

use std::time::Duration;

use sql::Database;
use sqlx::{Connection as _, MySql, MySqlConnection, QueryBuilder};
use time::OffsetDateTime;
use wire::Key;

use crate::error::Error;
use crate::rows::{LOCK_IS_TAKEN, answered, corrupt, is_one_of};

/// The images that the cache must drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The image under this key.
    Key(Key),
    /// All images. In the table, it is the empty key.
    Everything,
}

/// A change that the cache must learn of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The images that the cache must drop.
    pub scope: Scope,
    /// Drawn anew for each change. A note is removed by its token only, so that the acknowledgement of an
    /// earlier change never removes the note of a later one.
    token: u64,
}

impl Note {
    /// A note with a token of its own.
    pub fn new(scope: Scope) -> Self {
        Self { scope, token: rand::random() }
    }
}

/// A note whose change no gateway seems to be telling the cache of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftBehind {
    /// The note.
    pub note: Note,
    noted_at: OffsetDateTime,
}

impl Scope {
    fn column(&self) -> &[u8] {
        match self {
            Self::Key(key) => key.as_str().as_bytes(),
            Self::Everything => b"",
        }
    }
}

/// Writes a note within the transaction that makes the change, and returns whether one was there already. Until that
/// transaction ends, other transactions that note the same key wait here.
pub(crate) async fn note(transaction: &mut MySqlConnection, note: &Note) -> Result<bool, sqlx::Error> {
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
pub struct Pending {
    database: Database,
}

impl Pending {
    /// In this database.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Up to `limit` notes behind `after` that are older than `age`, the oldest first.
    pub async fn older_than(
        &self,
        age: Duration,
        after: Option<&LeftBehind>,
        limit: u32,
    ) -> Result<Vec<LeftBehind>, Error> {
        let (noted_at, key) = match after {
            Some(after) => (after.noted_at, after.note.scope.column()),
            None => (OffsetDateTime::UNIX_EPOCH, &b""[..]),
        };
        let question = sqlx::query_as(
            "SELECT image_key, token, noted_at FROM pending_invalidations \
             WHERE noted_at <= UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND \
             AND (noted_at > ? OR noted_at = ? AND image_key > ?) ORDER BY noted_at, image_key LIMIT ?",
        )
        .bind(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
        .bind(noted_at)
        .bind(noted_at)
        .bind(key)
        .bind(limit)
        .fetch_all(&self.database);
        let rows: Vec<(Vec<u8>, u64, OffsetDateTime)> = answered(question).await?;
        let notes = rows.into_iter().map(|(key, token, noted_at)| {
            let scope = if key.is_empty() {
                Scope::Everything
            } else {
                Scope::Key(Key::from_bytes(&key).map_err(|_| corrupt("key"))?)
            };
            Ok(LeftBehind { note: Note { scope, token }, noted_at })
        });
        notes.collect()
    }

    /// The number of pending notes: 0 in normal operation.
    pub async fn count(&self) -> Result<u64, Error> {
        let question =
            sqlx::query_scalar("SELECT COUNT(*) FROM pending_invalidations").fetch_one(&self.database);
        let count: i64 = answered(question).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Removes notes whose changes the cache has acknowledged, except notes that a later change has replaced.
    ///
    /// # Errors
    /// When MySQL does not answer, or some of them are locked for long; the others are removed all the same.
    pub async fn remove(&self, notes: &[Note]) -> Result<(), Error> {
        if notes.is_empty() {
            return Ok(());
        }
        let deletion = async {
            let mut deletion = QueryBuilder::new("DELETE FROM pending_invalidations WHERE ");
            push_in(&mut deletion, notes);
            // A deletion that could not get the lock of one row has removed none.
            let deleted = deletion.build().execute(&self.database).await;
            match deleted {
                Err(error) if is_one_of(&error, &LOCK_IS_TAKEN) => {
                    self.remove_unlocked(notes).await?;
                    Err(error)
                }
                deleted => deleted.map(drop),
            }
        };
        answered(deletion).await
    }

    /// Removes those of `notes` that no other transaction has locked.
    async fn remove_unlocked(&self, notes: &[Note]) -> Result<(), sqlx::Error> {
        let mut held = self.database.acquire().await?;
        let connection = &mut *held;
        let done = async {
            let mut transaction = connection.begin().await?;
            let mut question = QueryBuilder::new("SELECT token FROM pending_invalidations WHERE ");
            push_in(&mut question, notes);
            question.push(" FOR UPDATE SKIP LOCKED");
            let tokens: Vec<u64> = question.build_query_scalar().fetch_all(&mut *transaction).await?;
            let free: Vec<_> = notes.iter().filter(|note| tokens.contains(&note.token)).cloned().collect();
            if !free.is_empty() {
                let mut deletion = QueryBuilder::new("DELETE FROM pending_invalidations WHERE ");
                push_in(&mut deletion, &free);
                deletion.build().execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        let done = done.await;
        held.give_back(&done);
        done
    }
}

/// Adds the condition that a row is one of these notes, and not one that a later change has replaced. It is not a list
/// of pairs: for such a list MariaDB reads the whole table, and waits for the lock of each row.
fn push_in(statement: &mut QueryBuilder<MySql>, notes: &[Note]) {
    let mut conditions = statement.separated(" OR ");
    for note in notes {
        conditions.push("image_key = ").push_bind_unseparated(note.scope.column().to_vec());
        conditions.push_unseparated(" AND token = ").push_bind_unseparated(note.token);
    }
}
