//! All SQL of the recorder, in the dialect that MySQL 8 and 9 and MariaDB 10.11 and later share.
//!
//! Every statement has a time limit: a database that hangs with its connections open must
//! neither stop the consumer for good nor leave a question without an answer.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use sql::{Database, Held, Isolation, Session};
use sqlx::error::ErrorKind;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlRow};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, QueryBuilder, Row as _};
use time::OffsetDateTime;
use tokio::time::timeout;
use wire::stats::{ConfigRevision, Counters, Effect, MAX_POINTS, Reads, SeriesRow, Window};

use crate::migrations;

/// Connections at most: one for each feed, one for retention, the rest for questions.
const MAX_CONNECTIONS: u32 = 8;
/// How long to wait for a connection. The pool's default, half a minute, is longer than any caller waits.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(3);
/// How long a question may take.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// How long a batch of rows, or of deletions, may take.
const WRITE_LIMIT: Duration = Duration::from_secs(15);
/// A sum of windows must hold each committed window, also those that another recorder inserts at the same time.
///
/// Only from this isolation level on does `REPLACE … SELECT` lock the windows that it reads, and the gaps between them.
/// The other recorder then waits, or one of the two is rolled back and tried again. With READ COMMITTED each would add
/// up the windows that it sees, and the later commit would replace the other's sum.
const SESSION: Session = Session { isolation: Isolation::RepeatableRead, lock_wait: Duration::from_secs(5) };
/// How long a start waits for another one that is migrating, in seconds.
const MIGRATION_LOCK_S: u32 = 60;

/// The time that one row of `cache_stats_rollup` stands for, in milliseconds.
pub const ROLLUP_MS: u64 = 300_000;

/// The tables, by the service whose account gets rights on them.
const GATEWAY_TABLES: [&str; 4] = ["images", "pending_invalidations", "deleted_dates", "origin_identity"];
const RECORDER_TABLES: [&str; 3] = ["cache_properties", "cache_stats", "cache_stats_rollup"];

/// The rows of the recorder. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Repository {
    database: Database,
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The database refuses the values, and would refuse them again.
    #[error("MySQL refuses the values: {0}")]
    Refused(#[source] sqlx::Error),
    /// The database can't be reached, or fails for a reason that may pass.
    #[error("MySQL is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The database has not answered within this time.
    #[error("MySQL has not answered within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// Why the tables could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Another start has been migrating for longer than a start waits.
    #[error("another process has held the migration lock for more than {MIGRATION_LOCK_S} s")]
    Locked,
    /// The name of an account has characters that are not allowed.
    #[error(
        "\"{0}\" can't be granted rights: letters, digits, _, - and . are allowed in the name of an account"
    )]
    AccountName(String),
    /// A migration failed, or the database has migrations that this version does not know.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The database can't be reached, or does not accept the account.
    #[error("{0}")]
    Unconnected(String),
    /// Locking or granting failed.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl MigrationError {
    /// Whether it may pass by itself: the database is not there, or does not accept the account yet.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Locked | Self::Unconnected(_) | Self::Sql(_) => true,
            Self::Migrate(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..)) => true,
            Self::AccountName(_) | Self::Migrate(_) => false,
        }
    }
}

/// One row of `cache_properties`, and the bucket whose revision it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRow {
    /// When the bucket was created: a bucket made anew counts its revisions from 1 again.
    pub bucket_created_at: OffsetDateTime,
    /// The other columns.
    pub change: ConfigRevision,
}

/// The answer of [`Repository::series`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesRows {
    /// The interval that a row stands for, in milliseconds.
    pub step_ms: u64,
    /// At most [`MAX_POINTS`], the oldest first.
    pub rows: Vec<SeriesRow>,
}

/// Brings the database of `account` up to date, and gives the other two accounts rights on the
/// tables of their service and on nothing else. May be called by several processes at once.
///
/// # Errors
/// [`MigrationError`]; [`MigrationError::may_pass`] says whether to try again.
pub async fn migrate(
    account: &MySqlConnectOptions,
    gateway_user: &str,
    recorder_user: &str,
) -> Result<(), MigrationError> {
    for user in [gateway_user, recorder_user] {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if user.is_empty() || !user.chars().all(allowed) {
            return Err(MigrationError::AccountName(user.to_owned()));
        }
    }
    let connecting = MySqlConnection::connect_with(account).await;
    let mut connection = connecting
        .map_err(|error| MigrationError::Unconnected(sql::unconnected(&error, "MIGRATION_DATABASE_URL")))?;
    // sqlx's own lock waits with a timeout of -1, which is NULL and no lock on MariaDB. This one
    // belongs to the connection: it is released even if this process dies.
    let locked: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK('pixcache_migrations', ?)")
        .bind(MIGRATION_LOCK_S)
        .fetch_one(&mut connection)
        .await?;
    if locked != Some(1) {
        return Err(MigrationError::Locked);
    }
    forget_unfinished(&mut connection).await?;
    let mut migrator = Migrator::with_migrations(migrations::all());
    // `run` is not used here, because the compiler can't prove that its future is Send.
    migrator.set_locking(false).run_direct(None, &mut connection, false).await?;
    for (user, tables) in [(gateway_user, &GATEWAY_TABLES[..]), (recorder_user, &RECORDER_TABLES[..])] {
        for table in tables {
            let sql = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON `{table}` TO '{user}'@'%'");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        }
    }
    connection.close().await?;
    Ok(())
}

/// A start that died within a migration leaves it marked as unfinished, and the migrator refuses to
/// go on. Each file is one statement that may be repeated, so it is simply applied again.
async fn forget_unfinished(connection: &mut MySqlConnection) -> sqlx::Result<()> {
    let exists: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '_sqlx_migrations'",
    )
    .fetch_optional(&mut *connection)
    .await?;
    if exists.is_some() {
        sqlx::query("DELETE FROM _sqlx_migrations WHERE success = FALSE").execute(connection).await?;
    }
    Ok(())
}

impl Repository {
    /// Rows in the database that `account` names. Connections are made when they are needed, and
    /// made anew when they have broken.
    pub fn new(account: MySqlConnectOptions) -> Self {
        let options = MySqlPoolOptions::new().max_connections(MAX_CONNECTIONS).acquire_timeout(ACQUIRE_LIMIT);
        Self { database: Database::new(options, account, SESSION) }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Inserts the windows that are not there yet, all of them or none.
    ///
    /// # Errors
    /// [`RepositoryError::Refused`] when a value of one of them is not allowed.
    pub async fn insert_windows(&self, windows: &[Window]) -> Result<(), RepositoryError> {
        if windows.is_empty() {
            return Ok(());
        }
        // In the order of the primary key, so that two recorders lock rows in the same order.
        let mut windows: Vec<&Window> = windows.iter().collect();
        windows.sort_unstable_by(|a, b| {
            let key = |window: &'_ &Window| (window.interval_start, window.sequence);
            key(a).cmp(&key(b)).then_with(|| (&a.worker, &a.incarnation).cmp(&(&b.worker, &b.incarnation)))
        });
        let mut insert = QueryBuilder::new(&**INSERT_WINDOWS);
        insert.push_values(&windows, |mut row, window| {
            row.push_bind(window.interval_start)
                .push_bind(&window.worker)
                .push_bind(&window.incarnation)
                .push_bind(window.sequence)
                .push_bind(window.interval_ms)
                .push_bind(window.cache_size)
                .push_bind(window.capacity)
                .push_bind(window.key_count);
            for value in window.counters.values() {
                row.push_bind(value);
            }
        });
        // For a window that is there already, this changes nothing. Unlike INSERT IGNORE it reports every other error.
        insert.push(" ON DUPLICATE KEY UPDATE sequence = cache_stats.sequence");
        let buckets: BTreeSet<OffsetDateTime> =
            windows.iter().map(|window| floor(window.interval_start, ROLLUP_MS)).collect();

        let mut connection = self.connection().await?;
        let work = async {
            let mut transaction = connection.begin().await?;
            // One window is the usual case. Statements for other numbers of rows are not kept, because each
            // would have to be closed. Closing has no answer, and sqlx does not set TCP_NODELAY, so the next
            // message would wait 40 ms for the acknowledgement of the closing.
            let insert = insert.build().persistent(windows.len() == 1);
            insert.execute(&mut *transaction).await?;
            for bucket in buckets {
                sqlx::query(&**REPLACE_ROLLUP)
                    .bind(bucket)
                    .bind(bucket)
                    .bind(bucket + Duration::from_millis(ROLLUP_MS))
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await
        };
        let done = timeout(WRITE_LIMIT, work).await;
        settle(done, connection, WRITE_LIMIT)
    }

    /// Inserts the revisions that are not there yet, all of them or none.
    ///
    /// # Errors
    /// [`RepositoryError::Refused`] when a value of one of them is not allowed.
    pub async fn insert_revisions(&self, revisions: &[RevisionRow]) -> Result<(), RepositoryError> {
        if revisions.is_empty() {
            return Ok(());
        }
        let mut insert = QueryBuilder::new(
            "INSERT INTO cache_properties (bucket_created_at, revision, max_capacity, replacement_policy, \
             generation, changed_by, created_at) ",
        );
        insert.push_values(revisions, |mut row, RevisionRow { bucket_created_at, change }| {
            row.push_bind(bucket_created_at)
                .push_bind(change.revision)
                .push_bind(change.max_capacity)
                .push_bind(change.replacement_policy.as_str())
                .push_bind(change.generation)
                .push_bind(&change.changed_by)
                .push_bind(change.created_at);
        });
        insert.push(" ON DUPLICATE KEY UPDATE revision = cache_properties.revision");
        let mut connection = self.connection().await?;
        let query = insert.build().persistent(false);
        let done = timeout(WRITE_LIMIT, query.execute(&mut *connection)).await;
        settle(done, connection, WRITE_LIMIT).map(drop)
    }

    /// The windows that began at `from` or later and before `to`: each by itself if they are few and
    /// `step_ms` does not ask for more, else added up over a step that gives at most [`MAX_POINTS`]
    /// rows. Steps are aligned to multiples of themselves since 1970.
    ///
    /// Every window of the range is in exactly one row.
    ///
    /// # Errors
    /// [`RepositoryError`], when the database is away.
    pub async fn series(
        &self,
        from: OffsetDateTime,
        to: OffsetDateTime,
        step_ms: Option<u64>,
    ) -> Result<SeriesRows, RepositoryError> {
        let range_ms = u64::try_from((to - from).whole_milliseconds()).unwrap_or(0).max(1);
        let windows = self.newest_windows(from, to).await?;
        let window_ms = usual_interval(&windows);
        let few = windows.len() as u64 <= MAX_POINTS;
        if few && step_ms.is_none_or(|step_ms| step_ms <= window_ms) {
            // Without any window there is no usual interval: the step is then that of a full series.
            let step_ms = if windows.is_empty() { range_ms.div_ceil(MAX_POINTS) } else { window_ms };
            return Ok(SeriesRows { step_ms, rows: windows });
        }
        let step_ms = fitting_step(range_ms, window_ms, step_ms.unwrap_or(0));
        let rows = self.downsampled(from, to, step_ms).await?;
        Ok(SeriesRows { step_ms, rows })
    }

    /// The newest windows of a range, the oldest of them first: at most one more than a series has rows.
    async fn newest_windows(
        &self,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> Result<Vec<SeriesRow>, RepositoryError> {
        let mut connection = self.connection().await?;
        let query = sqlx::query(&**SELECT_WINDOWS).bind(from).bind(to).bind(MAX_POINTS + 1);
        let found = timeout(READ_LIMIT, query.fetch_all(&mut *connection)).await;
        let rows = settle(found, connection, READ_LIMIT)?;
        rows.iter().rev().map(read_window).collect::<sqlx::Result<_>>().map_err(classify)
    }

    async fn downsampled(
        &self,
        from: OffsetDateTime,
        to: OffsetDateTime,
        step_ms: u64,
    ) -> Result<Vec<SeriesRow>, RepositoryError> {
        let (rolled_from, rolled_to) = (ceil(from, ROLLUP_MS), floor(to, ROLLUP_MS));
        let by_rollup = step_ms.is_multiple_of(ROLLUP_MS) && rolled_from < rolled_to;
        let step_us = i64::try_from(step_ms.saturating_mul(1000)).unwrap_or(i64::MAX);
        let query = if by_rollup {
            sqlx::query(&**SELECT_STEPS_BY_ROLLUP)
                .bind(step_us)
                .bind(from)
                .bind(rolled_from)
                .bind(rolled_from)
                .bind(rolled_to)
                .bind(rolled_to)
                .bind(to)
        } else {
            sqlx::query(&**SELECT_STEPS).bind(step_us).bind(from).bind(to)
        };
        let mut connection = self.connection().await?;
        let found = timeout(READ_LIMIT, query.fetch_all(&mut *connection)).await;
        let rows = settle(found, connection, READ_LIMIT)?;
        rows.iter().map(|row| read_step(row, step_us, from)).collect::<sqlx::Result<_>>().map_err(classify)
    }

    /// The newest `limit` changes of the configuration that were made at `from` or later, the newest first.
    ///
    /// With `compare` each has its effect: the counts in that time before and after it, which ends at the neighbouring
    /// changes if they are nearer.
    ///
    /// # Errors
    /// [`RepositoryError`], when the database is away.
    pub async fn config_history(
        &self,
        from: Option<OffsetDateTime>,
        limit: u32,
        compare: Option<Duration>,
    ) -> Result<Vec<ConfigRevision>, RepositoryError> {
        let mut connection = self.connection().await?;
        let query = sqlx::query(
            "SELECT revision, max_capacity, replacement_policy, generation, changed_by, created_at \
             FROM cache_properties ORDER BY bucket_created_at DESC, revision DESC LIMIT ?",
        )
        // One more, because the effect of the oldest change begins at the change before it.
        .bind(limit.saturating_add(1));
        let found = timeout(READ_LIMIT, query.fetch_all(&mut *connection)).await;
        let rows = settle(found, connection, READ_LIMIT)?;
        let mut changes: Vec<ConfigRevision> =
            rows.iter().map(read_change).collect::<sqlx::Result<_>>().map_err(classify)?;
        let before_last = changes.get(limit as usize).map(|change| change.created_at);
        changes.truncate(limit as usize);
        let shown = |change: &ConfigRevision| from.is_none_or(|from| change.created_at >= from);
        if let Some(compare) = compare {
            let times: Vec<_> = changes.iter().map(|change| change.created_at).chain(before_last).collect();
            let count = changes.iter().take_while(|change| shown(change)).count();
            let stretches: Vec<_> = (0..count).flat_map(|at| stretches(&times, at, compare)).collect();
            let reads = self.reads_in(&stretches).await?;
            for (change, reads) in changes.iter_mut().zip(reads.chunks_exact(2)) {
                change.effect = Some(Effect { before: reads[0], after: reads[1] });
            }
        }
        changes.retain(shown);
        Ok(changes)
    }

    /// The counts in each of these stretches of time, from windows that lie in it as a whole.
    async fn reads_in(
        &self,
        stretches: &[(OffsetDateTime, OffsetDateTime)],
    ) -> Result<Vec<Reads>, RepositoryError> {
        if stretches.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = QueryBuilder::new("");
        for (at, (from, to)) in stretches.iter().enumerate() {
            let word = if at == 0 { "SELECT CAST(" } else { " UNION ALL SELECT CAST(" };
            query.push(word).push_bind(at as u64).push(" AS UNSIGNED) AS stretch, ");
            query.push(sum("request_count")).push(", ").push(sum("hit_count"));
            query.push(" FROM cache_stats WHERE interval_start >= ").push_bind(from);
            query.push(" AND interval_start < ").push_bind(to);
            query
                .push(
                    " AND TIMESTAMPADD(MICROSECOND, LEAST(interval_ms, 86400000) * 1000, interval_start) <= ",
                )
                .push_bind(to);
        }
        query.push(" ORDER BY stretch");
        let mut connection = self.connection().await?;
        let found = timeout(READ_LIMIT, query.build().fetch_all(&mut *connection)).await;
        let rows = settle(found, connection, READ_LIMIT)?;
        let reads = |row: &MySqlRow| {
            // A sum over no row is NULL.
            let count = |at| row.try_get::<Option<u64>, _>(at).map(Option::unwrap_or_default);
            Ok(Reads { request_count: count(1)?, hit_count: count(2)? })
        };
        rows.iter().map(reads).collect::<sqlx::Result<_>>().map_err(classify)
    }

    /// Removes at most `limit` windows, and as many sums of windows, that began before `end`, and
    /// returns how many rows are gone. `end` is rounded down to a whole [`ROLLUP_MS`], so that no sum
    /// outlives a part of its windows.
    ///
    /// # Errors
    /// [`RepositoryError`], when the database is away.
    pub async fn remove_before(&self, end: OffsetDateTime, limit: u32) -> Result<u64, RepositoryError> {
        let end = floor(end, ROLLUP_MS);
        let mut removed = 0;
        for sql in [
            "DELETE FROM cache_stats WHERE interval_start < ? ORDER BY interval_start LIMIT ?",
            "DELETE FROM cache_stats_rollup WHERE interval_start < ? ORDER BY interval_start LIMIT ?",
        ] {
            let mut connection = self.connection().await?;
            let query = sqlx::query(sql).bind(end).bind(limit);
            let done = timeout(WRITE_LIMIT, query.execute(&mut *connection)).await;
            removed += settle(done, connection, WRITE_LIMIT)?.rows_affected();
        }
        Ok(removed)
    }

    async fn connection(&self) -> Result<Held, RepositoryError> {
        match self.database.acquire().await {
            Ok(connection) => Ok(connection),
            Err(sqlx::Error::PoolTimedOut) => Err(RepositoryError::TimedOut(ACQUIRE_LIMIT)),
            Err(error) => Err(classify(error)),
        }
    }
}

/// The outcome of a statement on `connection`. A statement that was given up may still be running, so its
/// connection is closed and not used again.
fn settle<T>(
    done: Result<sqlx::Result<T>, tokio::time::error::Elapsed>,
    connection: Held,
    limit: Duration,
) -> Result<T, RepositoryError> {
    match done {
        Ok(done) => {
            connection.give_back(&done);
            done.map_err(classify)
        }
        Err(_) => Err(RepositoryError::TimedOut(limit)),
    }
}

fn classify(error: sqlx::Error) -> RepositoryError {
    if is_about_values(&error) {
        RepositoryError::Refused(error)
    } else {
        RepositoryError::Unavailable(error)
    }
}

/// Whether the same values would fail again on a healthy database: data exceptions (SQLSTATE class
/// 22), violated constraints (class 23), and values of ours that don't fit their types.
fn is_about_values(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let class = error.code().and_then(|code| code.get(..2).map(str::to_owned));
            matches!(class.as_deref(), Some("22" | "23")) || error.kind() != ErrorKind::Other
        }
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}

fn read_window(row: &MySqlRow) -> sqlx::Result<SeriesRow> {
    Ok(SeriesRow {
        interval_start: row.try_get(0)?,
        worker: Some(row.try_get(1)?),
        incarnation: Some(row.try_get(2)?),
        sequence: Some(row.try_get(3)?),
        window_count: 1,
        interval_ms: row.try_get(4)?,
        cache_size: row.try_get(5)?,
        capacity: row.try_get(6)?,
        key_count: row.try_get(7)?,
        counters: read_counters(row, 8)?,
    })
}

fn read_step(row: &MySqlRow, step_us: i64, from: OffsetDateTime) -> sqlx::Result<SeriesRow> {
    let step_number: i64 = row.try_get(0)?;
    let begin =
        OffsetDateTime::UNIX_EPOCH + time::Duration::microseconds(step_number.saturating_mul(step_us));
    let worker = if_the_same(row, 1, 2)?;
    let incarnation = if_the_same(row, 3, 4)?;
    let last: u64 = row.try_get(5)?;
    Ok(SeriesRow {
        // The first step may begin before the range, but the windows counted in it do not.
        interval_start: begin.max(from),
        sequence: (worker.is_some() && incarnation.is_some()).then_some(last),
        worker,
        incarnation,
        window_count: row.try_get(6)?,
        interval_ms: row.try_get(7)?,
        cache_size: row.try_get(8)?,
        capacity: row.try_get(9)?,
        key_count: row.try_get(10)?,
        counters: read_counters(row, 11)?,
    })
}

/// The text that all rows of a group have, from the columns of its least and greatest value; `None` if they differ.
fn if_the_same(row: &MySqlRow, least: usize, greatest: usize) -> sqlx::Result<Option<String>> {
    let (least, greatest): (String, String) = (row.try_get(least)?, row.try_get(greatest)?);
    Ok((least == greatest).then_some(least))
}

fn read_change(row: &MySqlRow) -> sqlx::Result<ConfigRevision> {
    let policy: String = row.try_get(2)?;
    Ok(ConfigRevision {
        revision: row.try_get(0)?,
        max_capacity: row.try_get(1)?,
        replacement_policy: policy.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        generation: row.try_get(3)?,
        changed_by: row.try_get(4)?,
        created_at: row.try_get(5)?,
        effect: None,
    })
}

/// The stretches of time before and after the change at position `at` in `times`, which has the newest first. Each is
/// at most `most` long, and ends at the neighbouring change.
fn stretches(times: &[OffsetDateTime], at: usize, most: Duration) -> [(OffsetDateTime, OffsetDateTime); 2] {
    let time = times[at];
    let begin = times.get(at + 1).map_or(time - most, |older| (time - most).max(*older));
    let end = at.checked_sub(1).map_or(time + most, |newer| (time + most).min(times[newer]));
    [(begin, time), (time, end)]
}

fn read_counters(row: &MySqlRow, first: usize) -> sqlx::Result<Counters> {
    let mut values = [0; Counters::NAMES.len()];
    for (at, value) in values.iter_mut().enumerate() {
        *value = row.try_get(first + at)?;
    }
    Ok(Counters::from_values(values))
}

/// The most frequent interval of the windows, and the longer one of two that are equally frequent. A worker's first
/// and last windows are shorter than the others. In milliseconds; 0 without windows.
fn usual_interval(windows: &[SeriesRow]) -> u64 {
    let mut intervals: Vec<u64> = windows.iter().map(|window| window.interval_ms).collect();
    intervals.sort_unstable();
    intervals.chunk_by(|a, b| a == b).max_by_key(|same| (same.len(), same[0])).map_or(0, |same| same[0])
}

/// The shortest step that is at least `wanted_ms` and one window, and with which a range has at most
/// [`MAX_POINTS`] aligned steps.
///
/// It is a multiple of the larger of these two while it stays below [`ROLLUP_MS`]. Beyond that it is a multiple of
/// [`ROLLUP_MS`], because windows are already added up in such steps.
fn fitting_step(range_ms: u64, window_ms: u64, wanted_ms: u64) -> u64 {
    let unit = wanted_ms.max(window_ms).max(1);
    // A range that does not begin at the beginning of a step touches one step more.
    let needed = unit.max(range_ms.div_ceil(MAX_POINTS - 1));
    let step = needed.next_multiple_of(unit);
    if step < ROLLUP_MS { step } else { needed.next_multiple_of(ROLLUP_MS) }
}

fn floor(time: OffsetDateTime, unit_ms: u64) -> OffsetDateTime {
    let unit = i128::from(unit_ms) * 1_000_000;
    time - time::Duration::nanoseconds_i128(time.unix_timestamp_nanos().rem_euclid(unit))
}

fn ceil(time: OffsetDateTime, unit_ms: u64) -> OffsetDateTime {
    let floor = floor(time, unit_ms);
    if floor == time { time } else { floor + Duration::from_millis(unit_ms) }
}

// The statements are composed once from the names of the counters, in the order in which rows
// are read and written above.

/// A sum of counts that fits its column: a sum beyond the largest number becomes the largest number.
fn sum(column: &str) -> String {
    format!("CAST(LEAST(SUM({column}), {}) AS UNSIGNED)", u64::MAX)
}

fn sums() -> String {
    Counters::NAMES.iter().fold(String::new(), |mut text, name| {
        let _ = write!(text, ", {}", sum(name));
        text
    })
}

fn names() -> String {
    Counters::NAMES.join(", ")
}

static INSERT_WINDOWS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO cache_stats (interval_start, worker, incarnation, sequence, interval_ms, \
         cache_size, capacity, key_count, {}) ",
        names()
    )
});

static SELECT_WINDOWS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT interval_start, worker, incarnation, sequence, interval_ms, cache_size, capacity, \
         key_count, {} FROM cache_stats WHERE interval_start >= ? AND interval_start < ? \
         ORDER BY interval_start DESC, worker DESC, incarnation DESC, sequence DESC LIMIT ?",
        names()
    )
});
static REPLACE_ROLLUP: LazyLock<String> = LazyLock::new(|| {
    format!(
        "REPLACE INTO cache_stats_rollup (interval_start, worker, incarnation, sequence, window_count, \
         interval_ms, cache_size, capacity, key_count, {}) \
         SELECT CAST(? AS DATETIME(6)), worker, incarnation, MAX(sequence), COUNT(*), {}, MAX(cache_size), \
         MAX(capacity), MAX(key_count){} \
         FROM cache_stats WHERE interval_start >= ? AND interval_start < ? GROUP BY worker, incarnation",
        names(),
        sum("interval_ms"),
        sums()
    )
});

static SELECT_STEPS: LazyLock<String> = LazyLock::new(|| select_steps(&windows_between()));

/// The sums of whole five minutes, and at both ends of the range the windows themselves.
static SELECT_STEPS_BY_ROLLUP: LazyLock<String> = LazyLock::new(|| {
    let sums = format!(
        "SELECT interval_start, worker, incarnation, sequence, window_count, interval_ms, cache_size, \
         capacity, key_count, {} FROM cache_stats_rollup WHERE interval_start >= ? AND interval_start < ?",
        names()
    );
    select_steps(&format!("{0} UNION ALL {sums} UNION ALL {0}", windows_between()))
});

fn windows_between() -> String {
    format!(
        "SELECT interval_start, worker, incarnation, sequence, 1 AS window_count, interval_ms, cache_size, \
         capacity, key_count, {} FROM cache_stats WHERE interval_start >= ? AND interval_start < ?",
        names()
    )
}

/// Adds up `parts` over steps. It computes with whole numbers only, and with the difference of two times instead of
/// UNIX_TIMESTAMP(), which depends on the session's time zone.
fn select_steps(parts: &str) -> String {
    format!(
        "SELECT CAST(TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', interval_start) DIV ? AS SIGNED) \
         AS step_number, \
         MIN(worker), MAX(worker), MIN(incarnation), MAX(incarnation), MAX(sequence), {}, {}, \
         MAX(cache_size), MAX(capacity), MAX(key_count){} \
         FROM ({parts}) AS parts GROUP BY step_number ORDER BY step_number",
        sum("window_count"),
        sum("interval_ms"),
        sums()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(interval_ms: u64) -> SeriesRow {
        SeriesRow {
            interval_start: OffsetDateTime::UNIX_EPOCH,
            interval_ms,
            worker: None,
            incarnation: None,
            sequence: None,
            window_count: 1,
            cache_size: 0,
            capacity: 0,
            key_count: 0,
            counters: Counters::default(),
        }
    }

    #[test]
    fn the_usual_interval_is_the_most_frequent() {
        let windows = [3100, 5000, 5000, 1200, 5000, 5000].map(window);
        assert_eq!(usual_interval(&windows), 5000);
        assert_eq!(usual_interval(&[5000, 1000, 5000, 1000].map(window)), 5000);
        assert_eq!(usual_interval(&[]), 0);
    }

    #[test]
    fn a_day_a_week_and_a_month_have_steps_of_whole_windows() {
        const HOUR: u64 = 3_600_000;
        assert_eq!(fitting_step(HOUR, 5000, 0), 10_000);
        assert_eq!(fitting_step(24 * HOUR, 5000, 0), 220_000);
        assert_eq!(fitting_step(7 * 24 * HOUR, 5000, 0), 1_800_000);
        assert_eq!(fitting_step(30 * 24 * HOUR, 5000, 0), 6_600_000);
        assert_eq!(fitting_step(HOUR, 5000, 60_000), 60_000);
        assert_eq!(fitting_step(HOUR, 5000, 1), 10_000);
    }

    proptest! {
        #[test]
        fn a_step_fits(range in 1..=366 * 86_400_000u64, window in 0..=400_000u64, wanted in 0..=366 * 86_400_000u64) {
            let step = fitting_step(range, window, wanted);
            prop_assert!(step >= wanted.max(window).max(1));
            prop_assert!(range.div_ceil(step) < MAX_POINTS);
            prop_assert!(step.is_multiple_of(ROLLUP_MS) || step < ROLLUP_MS);
        }

        #[test]
        fn floor_and_ceil_enclose_a_time(us in 0..=10_000_000_000_000_000i64, unit in 1..=10_000_000u64) {
            let time = OffsetDateTime::UNIX_EPOCH + time::Duration::microseconds(us);
            let (floor, ceil) = (floor(time, unit), ceil(time, unit));
            prop_assert!(floor <= time && time <= ceil);
            prop_assert!(ceil - floor <= Duration::from_millis(unit));
        }
    }
}
