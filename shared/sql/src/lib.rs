//! Connections to MySQL whose state is known.
//!
//! A statement or a transaction that is given up (a time limit, a request that was cancelled) leaves a connection in an
//! unknown state. If the answer to a `BEGIN` is late, sqlx counts no transaction, so it rolls none back. Neither a ping
//! nor the next statement notices. That statement then runs in a transaction that is never committed. Such a connection
//! is closed here and not used again. The server then rolls back the open transaction.
//!
//! The isolation of transactions is set on each connection, because the server's default is its administrator's choice.

mod hand;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::mysql::{
    MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions, MySqlQueryResult, MySqlRow, MySqlStatement,
};
use sqlx::{Connection as _, Either, Execute, Executor, MySql, MySqlConnection, MySqlPool, SqlStr};

use crate::hand::{Hand, Out};

/// A pool of connections. They are made when they are needed, and closed after a statement on them was given up. Clones
/// share them.
///
/// It executes single statements itself; for more on one connection, see [`Database::acquire`].
#[derive(Clone)]
pub struct Database {
    pool: MySqlPool,
    hand: Hand,
}

/// The mode of all sessions, whatever the server's default is: in some, an empty string is NULL, or a text that is too long is
/// cut off.
const SQL_MODE: &str = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";
/// How many bytes a `GROUP_CONCAT` may give. Servers cut longer ones off; by default MySQL does after 1024 bytes.
const GROUP_BYTES: u64 = 4 << 20;

/// How the transactions on each connection behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The visibility of other transactions' changes.
    pub isolation: Isolation,
    /// How long a statement waits for a lock, in whole seconds, at least one.
    pub lock_wait: Duration,
}

/// The visibility of other transactions' changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it, and locks only the rows that it finds.
    ReadCommitted,
    /// Rows that were read stay as they are, and an `INSERT … SELECT` locks the rows that it reads, gaps included.
    RepeatableRead,
}

impl Isolation {
    fn as_sql(self) -> &'static str {
        match self {
            Self::ReadCommitted => "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            Self::RepeatableRead => "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        }
    }
}

/// The reason why a first connection was not made, and what helps. `setting` names the account's URL.
pub fn unconnected(error: &sqlx::Error, setting: &str) -> String {
    /// A host that may not connect, a database that may not be used, a wrong name or password.
    const REFUSED: [u16; 4] = [1044, 1045, 1130, 1698];
    const NO_SUCH_DATABASE: u16 = 1049;
    match error {
        sqlx::Error::Io(reason) => {
            format!("{reason}; start MySQL or MariaDB there, or name another place with {setting}")
        }
        sqlx::Error::Database(refused) => {
            let number =
                refused.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
            let message = refused.message();
            match number {
                NO_SUCH_DATABASE => format!("{message}; create it, or name another one with {setting}"),
                _ if REFUSED.contains(&number) => {
                    format!("{message}; {setting} must have a user and a password that the server accepts")
                }
                _ => error.to_string(),
            }
        }
        _ => error.to_string(),
    }
}

impl Database {
    /// Connections of this account, with the pool's other options as given.
    pub fn new(options: MySqlPoolOptions, account: MySqlConnectOptions, session: Session) -> Self {
        let options = options.after_connect(move |connection, _| {
            Box::pin(async move {
                connection.execute(session.isolation.as_sql()).await?;
                let set = sqlx::query(
                    "SET SESSION sql_mode = ?, SESSION innodb_lock_wait_timeout = ?, SESSION group_concat_max_len = ?",
                );
                let set = set.bind(SQL_MODE).bind(session.lock_wait.as_secs().max(1)).bind(GROUP_BYTES);
                set.persistent(false).execute(connection).await?;
                Ok(())
            })
        });
        Self { pool: options.connect_lazy_with(account), hand: Hand::default() }
    }

    /// A connection for several statements. It is closed when it is dropped, unless it was given back.
    ///
    /// # Errors
    /// When no connection is free in time, or none can be made.
    pub async fn acquire(&self) -> sqlx::Result<Held> {
        let out = self.hand.take(&self.pool).await?;
        Ok(Held { out: Some(out), database: self.clone() })
    }

    /// How many connections there may be at once.
    pub fn max_connections(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// Closes all connections.
    pub async fn close(&self) {
        let closing = self.pool.close();
        self.hand.clear();
        closing.await;
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

/// A connection that can be used again only after [`Held::give_back`].
#[derive(Debug)]
pub struct Held {
    /// `None` after it was given back.
    out: Option<Out>,
    database: Database,
}

impl Held {
    /// Gives the connection back if its state is known: by `done`, the server has answered the last statement, be it
    /// with an error. A transaction that was dropped open is rolled back first.
    pub fn give_back<T, E: Answered>(mut self, done: &Result<T, E>) {
        let is_known = done.as_ref().err().is_none_or(Answered::is_answer);
        if let Some(out) = self.out.take_if(|_| is_known) {
            // The pool rolls back what was not committed.
            if done.is_ok() && !out.connection.is_in_transaction() {
                self.database.hand.keep(out, &self.database.pool);
            }
        }
    }
}

const NOT_GIVEN_BACK: &str = "only give_back takes the connection away, and it ends this";

impl Deref for Held {
    type Target = MySqlConnection;
    #[expect(clippy::expect_used, reason = "the connection is there until give_back, which consumes this")]
    fn deref(&self) -> &MySqlConnection {
        &self.out.as_ref().expect(NOT_GIVEN_BACK).connection
    }
}

impl DerefMut for Held {
    #[expect(clippy::expect_used, reason = "the connection is there until give_back, which consumes this")]
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        &mut self.out.as_mut().expect(NOT_GIVEN_BACK).connection
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(out) = &mut self.out {
            out.connection.close_on_drop();
        }
    }
}

/// An error that may be an answer of the server.
pub trait Answered {
    /// Whether the server has answered, so that the state of the connection is known.
    fn is_answer(&self) -> bool;
}

impl Answered for sqlx::Error {
    fn is_answer(&self) -> bool {
        matches!(self, Self::Database(_) | Self::RowNotFound)
    }
}

/// Executes each statement on a connection of its own. Its results are read to their end before the first of them is
/// handed on, so that the connection does not wait for their consumer.
impl<'c> Executor<'c> for &Database {
    type Database = MySql;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, sqlx::Result<Either<MySqlQueryResult, MySqlRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, MySql>,
    {
        let database = self.clone();
        let all = async move {
            let mut connection = database.acquire().await?;
            let results: sqlx::Result<Vec<_>> = connection.fetch_many(query).try_collect().await;
            connection.give_back(&results);
            let results = results?.into_iter().map(Ok::<_, sqlx::Error>);
            Ok::<_, sqlx::Error>(stream::iter(results))
        };
        stream::once(all).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<MySqlRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, MySql>,
    {
        let database = self.clone();
        Box::pin(async move {
            let mut connection = database.acquire().await?;
            let row = connection.fetch_optional(query).await;
            connection.give_back(&row);
            row
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [sqlx::mysql::MySqlTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<MySqlStatement>>
    where
        'c: 'e,
    {
        let database = self.clone();
        Box::pin(async move {
            let mut connection = database.acquire().await?;
            let statement = connection.prepare_with(sql, parameters).await;
            connection.give_back(&statement);
            statement
        })
    }
}
