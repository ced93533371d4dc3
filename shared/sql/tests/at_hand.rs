//! Connections that are in use all the time stay at hand, and withhold nothing from others.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use sql::{Database, Isolation, Session};
use sqlx::Connection as _;
use sqlx::mysql::MySqlPoolOptions;
use testkit::database::Account;
use testkit::eventually;
use tokio::task::JoinSet;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

fn database(real: &testkit::Database, connections: u32) -> Database {
    let session = Session { isolation: Isolation::ReadCommitted, lock_wait: Duration::from_secs(3) };
    let options = MySqlPoolOptions::new().max_connections(connections).test_before_acquire(false);
    Database::new(options, real.url(Account::Admin).parse().unwrap(), session)
}

/// How many pings the server has answered on this database's only connection. MariaDB counts them under this name.
async fn pings(database: &Database) -> u64 {
    let (_, count): (String, String) =
        sqlx::query_as("SHOW SESSION STATUS LIKE 'Com_admin_commands'").fetch_one(database).await.unwrap();
    count.parse().unwrap()
}

#[tokio::test]
async fn a_connection_in_use_is_not_tested_after_each_statement() {
    let real = testkit::Database::empty().await;
    let database = database(&real, 1);
    let before = pings(&database).await;
    for _ in 0..200 {
        sqlx::query("DO 1").execute(&database).await.unwrap();
    }
    let after = pings(&database).await;
    assert!(after - before < 50, "{} pings for 200 statements", after - before);
    eventually("it goes back to its pool, which tests it", PATIENCE, async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        pings(&database).await > after
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tasks_than_connections_are_all_served() {
    let real = testkit::Database::empty().await;
    let database = database(&real, 2);
    let mut tasks = JoinSet::new();
    for task in 0..32_i64 {
        let database = database.clone();
        tasks.spawn(async move {
            for number in 0..50 {
                let answer: i64 = sqlx::query_scalar("SELECT ?")
                    .bind(task * 1000 + number)
                    .fetch_one(&database)
                    .await
                    .unwrap();
                assert_eq!(answer, task * 1000 + number);
            }
        });
    }
    timeout(PATIENCE, tasks.join_all()).await.unwrap();
    assert!(timeout(PATIENCE, database.close()).await.is_ok(), "it waits for connections at hand");
}

#[tokio::test]
async fn what_was_not_committed_is_rolled_back_at_once() {
    let real = testkit::Database::empty().await;
    let mut admin = real.connect(Account::Admin).await;
    sqlx::raw_sql("CREATE TABLE things (thing INT PRIMARY KEY)").execute(&mut admin).await.unwrap();
    let database = database(&real, 1);
    for is_kept in [true, false] {
        let mut held = database.acquire().await.unwrap();
        let mut transaction = held.begin().await.unwrap();
        let inserted = sqlx::query("INSERT INTO things VALUES (1)").execute(&mut *transaction).await;
        drop(transaction);
        held.give_back(&if is_kept { inserted } else { Err(sqlx::Error::RowNotFound) });
        // It would wait for the lock of a transaction that is still open.
        let seen = sqlx::query("INSERT INTO things VALUES (1)").execute(&mut admin);
        timeout(Duration::from_secs(2), seen).await.unwrap().unwrap();
        sqlx::query("DELETE FROM things").execute(&mut admin).await.unwrap();
    }
}
