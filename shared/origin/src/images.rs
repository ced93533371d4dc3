//! The rows of `images`, which say the file of each key.
//!
//! Each transaction that changes a row also notes that the cache must be told (`pending.rs`, design rule 6). The note
//! is its first statement, because the note's row serialises the writers of a key.

use std::time::Duration;

use sql::{Answered, Database};
use sqlx::{Connection as _, MySql, MySqlConnection, QueryBuilder, Row as _};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};
use wire::{Key, Tag};

use crate::dates::{Dates, Modified};
use crate::error::{Error, Unmet};
use crate::gathered::Gathered;
use crate::pending::{self, Note, Scope};
use crate::rows::{
    Columns, ImageRow, LOCK_IS_TAKEN, STATEMENT_LIMIT, answered, behind, corrupt, is_one_of, no_answer,
};
use crate::writers::Writers;

/// How often a transaction that lost to another one is tried again.
const MAX_RETRIES: u32 = 5;
/// The time after which it is not tried again. It is shorter than the session's wait for a lock, so such a wait is not
/// repeated.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How many dates of deleted images are removed at once.
const DATES_AT_ONCE: u32 = 1000;
/// How many rows one transaction of [`Images::delete_batch`] removes.
const BATCH_ROWS: u32 = 500;

/// A file that is complete and that a row may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewImage {
    /// The name of the file.
    pub location: String,
    /// The format, and the size in pixels at which it is shown.
    pub image: sniff::Image,
    /// The size in bytes.
    pub size: u64,
    /// SHA-256 of the bytes.
    pub tag: Tag,
}

/// A condition for a change, on the tag and the date of the image that is stored now, or on there being none.
pub trait Precondition: Sync {
    /// # Errors
    /// [`Unmet`], when it does not hold.
    fn check(&self, current: Option<(&Tag, Modified)>) -> Result<(), Unmet>;
}

/// The result of a transaction. The cache must be told, whatever the outcome.
#[derive(Debug)]
pub struct Change<T> {
    /// The note that is removed once the cache has acknowledged.
    pub note: Note,
    /// The outcome. An error means that a condition of the asker did not hold. Nothing was changed then, but the cache
    /// must still be told of an earlier change of this key.
    pub outcome: Result<T, Error>,
}

/// A row that was written.
#[derive(Debug)]
pub struct Written {
    /// The row as it is now.
    pub row: ImageRow,
    /// The row as it was before.
    pub previous: Option<ImageRow>,
}

/// Rows that were deleted.
#[derive(Debug)]
pub struct Batch {
    /// The note that the cache must drop everything.
    pub note: Note,
    /// The files that no row names any more.
    pub locations: Vec<String>,
    /// The last key deleted, behind which the next batch begins; none when there was nothing left.
    pub last: Option<Vec<u8>>,
}

/// A transaction that did not succeed.
#[derive(Debug)]
pub struct Failed {
    /// The reason.
    pub error: Error,
    /// Whether it may have been committed all the same, because no answer to its commit came.
    pub may_have_committed: bool,
    /// Whether its connection can be used again.
    is_answer: bool,
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self { is_answer: error.is_answer(), error: error.into(), may_have_committed: false }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, may_have_committed: false, is_answer: true }
    }
}

/// One try of a transaction.
enum Try {
    /// Another transaction held the lock, and nothing was changed.
    Lost(sqlx::Error),
    Failed(Failed),
}

impl From<sqlx::Error> for Try {
    fn from(error: sqlx::Error) -> Self {
        if is_one_of(&error, &LOCK_IS_TAKEN) { Self::Lost(error) } else { Self::Failed(error.into()) }
    }
}

impl From<Error> for Try {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Answered for Try {
    fn is_answer(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Failed(failed) => failed.is_answer,
        }
    }
}

/// Runs a transaction, and tries it again when it loses to another one.
macro_rules! retried {
    ($images:ident, $connection:ident, $attempt:ident $arguments:tt) => {{
        let (mut retries, began) = (0, Instant::now());
        loop {
            let attempt = async {
                let mut held = $images.database.acquire().await?;
                let $connection = &mut *held;
                let tried = Self::$attempt $arguments.await;
                held.give_back(&tried);
                tried
            };
            let Ok(tried) = timeout(STATEMENT_LIMIT, attempt).await else {
                break Err(Failed { may_have_committed: true, ..Failed::from(no_answer()) });
            };
            match tried {
                Ok(done) => break Ok(done),
                Err(Try::Lost(error)) if retries == MAX_RETRIES || began.elapsed() > LOCK_PATIENCE => {
                    break Err(Failed::from(error));
                }
                Err(Try::Lost(_)) => {
                    retries += 1;
                    // The pause is random, so that the same two transactions don't meet again.
                    let pause = rand::random_range(1..=10 * u64::from(retries));
                    sleep(Duration::from_millis(pause)).await;
                }
                Err(Try::Failed(failed)) => break Err(failed),
            }
        }
    }};
}

/// The table `images`. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Images {
    database: Database,
    gathered: Gathered,
    writers: Writers,
}

impl Images {
    /// The table in this database.
    pub fn new(database: Database) -> Self {
        let writers = Writers::new(database.max_connections());
        Self { gathered: Gathered::new(database.clone()), writers, database }
    }

    /// The row of `key`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when MySQL does not answer.
    pub async fn get(&self, key: &Key) -> Result<Option<ImageRow>, Error> {
        let columns = timeout(STATEMENT_LIMIT, self.gathered.get(key)).await.map_err(|_| no_answer())??;
        columns.map(ImageRow::try_from).transpose()
    }

    /// Up to `limit` rows whose keys begin with `prefix` and come behind `after`, sorted by key, byte
    /// for byte.
    ///
    /// # Errors
    /// As [`Images::get`].
    pub async fn page(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<ImageRow>, Error> {
        let question = sqlx::query_as(
            "SELECT image_key, location, content_type, size, width, height, sha256, created_at, updated_at, \
             earlier_at FROM images WHERE image_key > ? AND image_key >= ? AND (? OR image_key < ?) \
             ORDER BY image_key LIMIT ?",
        )
        .bind(after.unwrap_or_default().as_bytes())
        .bind(prefix.as_bytes())
        .bind(prefix.is_empty())
        .bind(behind(prefix.as_bytes()))
        .bind(limit)
        .fetch_all(&self.database);
        let columns: Vec<Columns> = answered(question).await?;
        columns.into_iter().map(ImageRow::try_from).collect()
    }

    /// Up to `limit` keys behind `after`, sorted byte for byte.
    ///
    /// They come in one row, because a row of its own for each key costs more than the key. No key has a control
    /// character, so a line break separates them.
    ///
    /// # Errors
    /// As [`Images::get`].
    pub async fn keys(&self, after: Option<&Key>, limit: u32) -> Result<Vec<Key>, Error> {
        let after = after.map(Key::as_str).unwrap_or_default().as_bytes();
        let question = sqlx::query_as(
            "SELECT COUNT(*), CAST(SUM(LENGTH(image_key)) AS SIGNED), GROUP_CONCAT(image_key SEPARATOR '\n') FROM \
             (SELECT image_key FROM images WHERE image_key > ? ORDER BY image_key LIMIT ?) AS page",
        )
        .bind(after)
        .bind(limit)
        .fetch_one(&self.database);
        let (count, length, joined): (i64, Option<i64>, Option<Vec<u8>>) = answered(question).await?;
        let joined = joined.unwrap_or_default();
        let whole = length.unwrap_or_default() + (count - 1).max(0);
        let parsed = |key: &[u8]| Key::from_bytes(key).map_err(|_| corrupt("key"));
        let mut keys = if i64::try_from(joined.len()) == Ok(whole) {
            let texts = joined.split(|byte| *byte == b'\n').filter(|text| !text.is_empty());
            texts.map(parsed).collect::<Result<Vec<_>, _>>()?
        } else {
            // A server whose `max_allowed_packet` is shorter has cut it off.
            let rows = sqlx::query_scalar(
                "SELECT image_key FROM images WHERE image_key > ? ORDER BY image_key LIMIT ?",
            );
            let rows = rows.bind(after).bind(limit).fetch_all(&self.database);
            let rows: Vec<Vec<u8>> = answered(rows).await?;
            rows.iter().map(|key| parsed(key)).collect::<Result<Vec<_>, _>>()?
        };
        // SQL promises an order only for rows.
        if !keys.is_sorted() {
            keys.sort_unstable();
        }
        Ok(keys)
    }

    /// The number of images, counted no further than `most`. A count of all of a million rows would take as long as
    /// reading them.
    ///
    /// # Errors
    /// As [`Images::get`].
    pub async fn count(&self, most: u64) -> Result<u64, Error> {
        self.count_beginning("", most).await
    }

    /// As [`Images::count`], of the images whose keys begin with `prefix`.
    ///
    /// # Errors
    /// As [`Images::get`].
    pub async fn count_beginning(&self, prefix: &str, most: u64) -> Result<u64, Error> {
        let question = sqlx::query_scalar(
            "SELECT COUNT(*) FROM \
             (SELECT 1 FROM images WHERE image_key >= ? AND (? OR image_key < ?) LIMIT ?) AS first_ones",
        )
        .bind(prefix.as_bytes())
        .bind(prefix.is_empty())
        .bind(behind(prefix.as_bytes()))
        .bind(most)
        .fetch_one(&self.database);
        let count: i64 = answered(question).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }
}

impl Images {
    /// Makes `image` the image of `key`, if `conditions` hold.
    pub async fn put(
        &self,
        key: &Key,
        image: &NewImage,
        conditions: &dyn Precondition,
    ) -> Result<Change<Written>, Failed> {
        let _writer = self.writers.enter(key).await?;
        retried!(self, connection, try_put(connection, key, image, conditions))
    }

    async fn try_put(
        connection: &mut MySqlConnection,
        key: &Key,
        image: &NewImage,
        conditions: &dyn Precondition,
    ) -> Result<Change<Written>, Try> {
        let mut transaction = connection.begin().await?;
        let note = Note::new(Scope::Key(key.clone()));
        let was_pending = pending::note(&mut transaction, &note).await?;
        let Looked { now, current, left_behind } = look(&mut transaction, key).await?;
        if let Err(unmet) = check(conditions, current.as_ref()) {
            return finish_unmet(transaction, note, was_pending, unmet).await;
        }
        let latest = current.as_ref().map(|current| current.dates.latest()).or(left_behind);
        let row = ImageRow {
            key: key.clone(),
            location: image.location.clone(),
            format: image.image.format,
            size: image.size,
            width: image.image.width,
            height: image.image.height,
            tag: image.tag,
            created_at: current.as_ref().map_or(now, |current| current.created_at),
            dates: Dates::of_next(now, latest),
        };
        sqlx::query(
            "INSERT INTO images \
             (image_key, location, content_type, size, width, height, sha256, created_at, updated_at, earlier_at, \
             sized_location) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON DUPLICATE KEY UPDATE location = VALUES(location), content_type = VALUES(content_type), \
             size = VALUES(size), width = VALUES(width), height = VALUES(height), sha256 = VALUES(sha256), \
             updated_at = VALUES(updated_at), earlier_at = VALUES(earlier_at), \
             sized_location = VALUES(sized_location)",
        )
        .bind(key.as_str().as_bytes())
        .bind(&row.location)
        .bind(row.format.content_type())
        .bind(row.size)
        .bind(row.width)
        .bind(row.height)
        .bind(&row.tag.0[..])
        .bind(row.created_at)
        .bind(row.dates.updated_at)
        .bind(row.dates.earlier_at)
        .bind(&row.location)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await.map_err(unknown)?;
        Ok(Change { note, outcome: Ok(Written { row, previous: current }) })
    }

    /// Gives `key` back the image that it had before `location` became its file, because that file is missing. It does
    /// nothing if the key has another file by now. The returned note is for the cache, which must be told.
    pub async fn take_back(
        &self,
        key: &Key,
        location: &str,
        previous: Option<&ImageRow>,
    ) -> Result<Option<Note>, Failed> {
        let _writer = self.writers.enter(key).await?;
        retried!(self, connection, try_take_back(connection, key, location, previous))
    }

    async fn try_take_back(
        connection: &mut MySqlConnection,
        key: &Key,
        location: &str,
        previous: Option<&ImageRow>,
    ) -> Result<Option<Note>, Try> {
        let mut transaction = connection.begin().await?;
        let note = Note::new(Scope::Key(key.clone()));
        pending::note(&mut transaction, &note).await?;
        let Looked { now, current, .. } = look(&mut transaction, key).await?;
        let Some(current) = current.filter(|current| current.location == location) else {
            transaction.rollback().await?;
            return Ok(None);
        };
        match previous {
            None => {
                let key = key.as_str().as_bytes();
                leave_behind(&mut transaction, now, &[(key, current.dates)]).await?;
                let deletion = sqlx::query("DELETE FROM images WHERE image_key = ?").bind(key);
                deletion.execute(&mut *transaction).await?;
            }
            // This is a change like any other, so it gets a date of its own.
            Some(row) => {
                let dates = Dates::of_next(now, Some(current.dates.latest()));
                sqlx::query(
                    "UPDATE images SET location = ?, content_type = ?, size = ?, width = ?, height = ?, sha256 = ?, \
                     updated_at = ?, earlier_at = ? WHERE image_key = ?",
                )
                .bind(&row.location)
                .bind(row.format.content_type())
                .bind(row.size)
                .bind(row.width)
                .bind(row.height)
                .bind(&row.tag.0[..])
                .bind(dates.updated_at)
                .bind(dates.earlier_at)
                .bind(key.as_str().as_bytes())
                .execute(&mut *transaction)
                .await?;
            }
        }
        transaction.commit().await.map_err(unknown)?;
        Ok(Some(note))
    }

    /// Deletes the row of `key`, if `conditions` hold, and returns the file that it named.
    ///
    /// A deletion is noted even if there is no row. The cache may hold an image under this key all the same. Either it
    /// has not been told of an earlier deletion, or an operator has put the image there.
    pub async fn delete(
        &self,
        key: &Key,
        conditions: &dyn Precondition,
    ) -> Result<Change<Option<String>>, Failed> {
        let _writer = self.writers.enter(key).await?;
        retried!(self, connection, try_delete(connection, key, conditions))
    }

    async fn try_delete(
        connection: &mut MySqlConnection,
        key: &Key,
        conditions: &dyn Precondition,
    ) -> Result<Change<Option<String>>, Try> {
        let mut transaction = connection.begin().await?;
        let note = Note::new(Scope::Key(key.clone()));
        let was_pending = pending::note(&mut transaction, &note).await?;
        let Looked { now, current, .. } = look(&mut transaction, key).await?;
        if let Err(unmet) = check(conditions, current.as_ref()) {
            return finish_unmet(transaction, note, was_pending, unmet).await;
        }
        sqlx::query("DELETE FROM images WHERE image_key = ?")
            .bind(key.as_str().as_bytes())
            .execute(&mut *transaction)
            .await?;
        if let Some(current) = &current {
            leave_behind(&mut transaction, now, &[(key.as_str().as_bytes(), current.dates)]).await?;
        }
        transaction.commit().await.map_err(unknown)?;
        Ok(Change { note, outcome: Ok(current.map(|current| current.location)) })
    }

    /// Deletes the first rows behind `after`. Each batch notes anew that everything must be cleared, because an
    /// acknowledgement between two batches says nothing about the second.
    pub async fn delete_batch(&self, after: &[u8]) -> Result<Batch, Failed> {
        retried!(self, connection, try_delete_batch(connection, after))
    }

    async fn try_delete_batch(connection: &mut MySqlConnection, after: &[u8]) -> Result<Batch, Try> {
        let mut transaction = connection.begin().await?;
        let note = Note::new(Scope::Everything);
        pending::note(&mut transaction, &note).await?;
        type Columns = (Vec<u8>, String, OffsetDateTime, Option<OffsetDateTime>, OffsetDateTime);
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT image_key, location, updated_at, earlier_at, UTC_TIMESTAMP(6) \
             FROM images WHERE image_key > ? ORDER BY image_key LIMIT ? FOR UPDATE",
        )
        .bind(after)
        .bind(BATCH_ROWS)
        .fetch_all(&mut *transaction)
        .await?;
        if let Some((.., now)) = rows.first() {
            let dates = rows.iter().map(|(key, _, updated_at, earlier_at, _)| {
                (&key[..], Dates { updated_at: *updated_at, earlier_at: *earlier_at })
            });
            leave_behind(&mut transaction, *now, &dates.collect::<Vec<_>>()).await?;
        }
        let (keys, locations): (Vec<_>, Vec<_>) =
            rows.into_iter().map(|(key, location, ..)| (key, location)).unzip();
        if !keys.is_empty() {
            let mut delete = QueryBuilder::<MySql>::new("DELETE FROM images WHERE image_key IN (");
            let mut list = delete.separated(", ");
            for key in &keys {
                list.push_bind(&key[..]);
            }
            delete.push(")").build().execute(&mut *transaction).await?;
        }
        transaction.commit().await.map_err(unknown)?;
        Ok(Batch { note, locations, last: keys.into_iter().next_back() })
    }

    /// The subset of `locations` that rows name.
    pub async fn named(&self, locations: &[String]) -> Result<Vec<String>, Error> {
        if locations.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = QueryBuilder::<MySql>::new("SELECT location FROM images WHERE location IN (");
        let mut list = query.separated(", ");
        for location in locations {
            list.push_bind(location);
        }
        answered(query.push(")").build_query_scalar().fetch_all(&self.database)).await
    }

    /// Removes some of the dates of deleted images that no longer matter, and returns whether there may be more.
    pub async fn forget_dates(&self) -> Result<bool, Error> {
        let deletion = sqlx::query(
            "DELETE FROM deleted_dates WHERE latest_at < UTC_TIMESTAMP(6) - INTERVAL 1 DAY \
             ORDER BY latest_at LIMIT ?",
        );
        let deleted = answered(deletion.bind(DATES_AT_ONCE).execute(&self.database)).await?;
        Ok(deleted.rows_affected() >= DATES_AT_ONCE.into())
    }

    /// The files on a shelf that rows name.
    pub async fn named_on(&self, shelf: u8) -> Result<Vec<String>, Error> {
        // The bound `0` is the byte behind the slash.
        let question = sqlx::query_scalar("SELECT location FROM images WHERE location >= ? AND location < ?")
            .bind(format!("{shelf:02x}/"))
            .bind(format!("{shelf:02x}0"))
            .fetch_all(&self.database);
        answered(question).await
    }

    /// The version and the uptime of the database server.
    pub async fn server(&self) -> Result<DatabaseServer, Error> {
        let version = answered(sqlx::query_scalar("SELECT VERSION()").fetch_one(&self.database)).await?;
        let uptime = sqlx::query_as("SHOW GLOBAL STATUS LIKE 'Uptime'");
        let (_, uptime): (String, String) = answered(uptime.fetch_one(&self.database)).await?;
        Ok(DatabaseServer { version, uptime_s: uptime.parse().ok() })
    }

    /// Checks that the gateway's tables are there.
    pub async fn probe(&self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT earlier_at, sized_location FROM images FORCE INDEX (images_size) LIMIT 1")
            .execute(&self.database)
            .await?;
        // The table that was added last.
        sqlx::query("SELECT image_key FROM deleted_dates LIMIT 1").execute(&self.database).await?;
        sqlx::query("SELECT image_key FROM pending_invalidations LIMIT 1").execute(&self.database).await?;
        sqlx::query("SELECT id FROM origin_identity LIMIT 1").execute(&self.database).await?;
        Ok(())
    }

    /// Checks that the server takes writes. A replica takes none, nor does a server in the middle of a failover.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it takes none, or does not answer.
    pub async fn probe_writing(&self) -> Result<(), Error> {
        let read_only: Option<(String, String)> =
            sqlx::query_as("SHOW GLOBAL VARIABLES LIKE 'read_only'").fetch_optional(&self.database).await?;
        match read_only {
            Some((_, value)) if !["OFF", "0"].contains(&value.as_str()) => {
                let reason = "it is read-only: images can be read, and nothing can be stored or deleted";
                Err(Error::Unavailable { part: "MySQL", reason: reason.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// The version and the uptime of the database server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseServer {
    /// Its version, which also tells MySQL from MariaDB.
    pub version: String,
    /// How long it has been up, in seconds.
    pub uptime_s: Option<u64>,
}

/// The state of a key as a transaction finds it.
struct Looked {
    /// The database's time.
    now: OffsetDateTime,
    current: Option<ImageRow>,
    /// Without a current image, the latest date of the deleted images, if it still matters.
    left_behind: Option<OffsetDateTime>,
}

/// Reads the state of `key` in one query, since each query takes a round trip. It begins at the note that this
/// transaction has written, which is always there.
async fn look(transaction: &mut MySqlConnection, key: &Key) -> Result<Looked, Try> {
    // The time is always there. The columns of the image are either all there or none, except for `earlier_at`.
    let row = sqlx::query(
        "SELECT UTC_TIMESTAMP(6) AS now, images.image_key, location, content_type, size, width, height, sha256, \
         created_at, updated_at, earlier_at, latest_at \
         FROM pending_invalidations AS note LEFT JOIN images ON images.image_key = note.image_key \
         LEFT JOIN deleted_dates ON deleted_dates.image_key = note.image_key AND images.image_key IS NULL \
         WHERE note.image_key = ? FOR UPDATE",
    )
    .bind(key.as_str().as_bytes())
    .fetch_one(transaction)
    .await?;
    let now = row.try_get("now")?;
    if row.try_get::<Option<Vec<u8>>, _>("image_key")?.is_none() {
        return Ok(Looked { now, current: None, left_behind: row.try_get("latest_at")? });
    }
    let columns: Columns = (
        row.try_get("image_key")?,
        row.try_get("location")?,
        row.try_get("content_type")?,
        row.try_get("size")?,
        row.try_get("width")?,
        row.try_get("height")?,
        row.try_get("sha256")?,
        row.try_get("created_at")?,
        row.try_get("updated_at")?,
        row.try_get("earlier_at")?,
    );
    Ok(Looked { now, current: Some(ImageRow::try_from(columns)?), left_behind: None })
}

/// Notes the dates of the images that this transaction deletes, as far as they matter to the next images.
async fn leave_behind(
    transaction: &mut MySqlConnection,
    now: OffsetDateTime,
    deleted: &[(&[u8], Dates)],
) -> Result<(), sqlx::Error> {
    let left = deleted.iter().filter_map(|(key, dates)| Some((key, dates.left_behind(now)?)));
    let left: Vec<_> = left.collect();
    if left.is_empty() {
        return Ok(());
    }
    let mut insert = QueryBuilder::<MySql>::new("INSERT INTO deleted_dates (image_key, latest_at) ");
    insert.push_values(left, |mut row, (key, latest)| {
        row.push_bind(*key).push_bind(latest);
    });
    insert.push(" ON DUPLICATE KEY UPDATE latest_at = GREATEST(latest_at, VALUES(latest_at))");
    insert.build().execute(transaction).await?;
    Ok(())
}

fn check(conditions: &dyn Precondition, current: Option<&ImageRow>) -> Result<(), Unmet> {
    conditions.check(current.map(|current| (&current.tag, current.dates.modified())))
}

/// Ends a transaction whose conditions don't hold. It leaves everything as it was, with one exception. If the cache has
/// not been told of an earlier change of the key, it is told again before the request is answered.
async fn finish_unmet<T>(
    transaction: sqlx::Transaction<'_, MySql>,
    note: Note,
    was_pending: bool,
    unmet: Unmet,
) -> Result<Change<T>, Try> {
    if !was_pending {
        transaction.rollback().await?;
        return Err(Error::from(unmet).into());
    }
    transaction.commit().await.map_err(unknown)?;
    Ok(Change { note, outcome: Err(unmet.into()) })
}

/// A commit that seems to fail may have succeeded, if only its acknowledgement was lost.
fn unknown(error: sqlx::Error) -> Try {
    match Try::from(error) {
        Try::Failed(failed) => Try::Failed(Failed { may_have_committed: true, ..failed }),
        lost => lost,
    }
}
