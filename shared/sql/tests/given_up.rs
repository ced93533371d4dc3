//! What is given up leaves nothing behind on a connection that somebody else then uses.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use sql::{Database, Isolation, Session};
use sqlx::Connection as _;
use sqlx::mysql::MySqlPoolOptions;
use testkit::database::Account;
use testkit::{AnswerHold, MariaDb, eventually};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

async fn database(url: &str, isolation: Isolation) -> Database {
    let session = Session { isolation, lock_wait: Duration::from_secs(3) };
    Database::new(MySqlPoolOptions::new().max_connections(1), url.parse().unwrap(), session)
}

async fn connection_id(database: &Database) -> u64 {
    sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(database).await.unwrap()
}

#[tokio::test]
async fn a_begin_whose_answer_is_late_leaves_no_open_transaction() {
    let real = testkit::Database::empty().await;
    let hold = AnswerHold::to(real.port()).await;
    let mut admin = real.connect(Account::Admin).await;
    sqlx::raw_sql("CREATE TABLE things (thing INT)").execute(&mut admin).await.unwrap();
    let database = database(&real.behind(hold.port()).url(Account::Admin), Isolation::ReadCommitted).await;
    let before = connection_id(&database).await;

    hold.hold_answers_to("BEGIN");
    let late = timeout(Duration::from_millis(300), async {
        let mut held = database.acquire().await.unwrap();
        let begun = held.begin().await.map(drop);
        held.give_back(&begun);
    });
    assert!(late.await.is_err());
    assert_eq!(hold.held(), 1);
    hold.release();

    let insert = sqlx::query("INSERT INTO things VALUES (1)");
    insert.execute(&database).await.unwrap();
    let committed: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM things").fetch_one(&mut admin).await.unwrap();
    assert_eq!(committed, 1, "it was inserted within a transaction that nobody commits");
    assert_ne!(connection_id(&database).await, before);
}

#[tokio::test]
async fn a_statement_that_is_given_up_takes_its_connection_with_it() {
    let real = testkit::Database::empty().await;
    let database = database(&real.url(Account::Admin), Isolation::ReadCommitted).await;
    let before = connection_id(&database).await;
    assert_eq!(connection_id(&database).await, before, "what was answered leaves it as it is");
    assert!(sqlx::query("SELECT * FROM nothing").execute(&database).await.is_err());
    assert_eq!(connection_id(&database).await, before, "an error is an answer");

    let given_up = sqlx::query("DO SLEEP(3)").execute(&database);
    assert!(timeout(Duration::from_millis(200), given_up).await.is_err());
    let mut admin = real.connect(Account::Admin).await;
    assert_ne!(connection_id(&database).await, before);
    eventually("the connection is closed", PATIENCE, async || {
        let there: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM information_schema.processlist WHERE id = ?")
                .bind(before)
                .fetch_one(&mut admin)
                .await
                .unwrap();
        there == 0
    })
    .await;
}

#[tokio::test]
async fn the_isolation_is_the_one_that_was_asked_for_whatever_the_server_s_is() {
    let server = MariaDb::start_with(&["--transaction-isolation=READ-UNCOMMITTED"]).await;
    let real = server.database().await;
    for (isolation, name) in
        [(Isolation::ReadCommitted, "READ-COMMITTED"), (Isolation::RepeatableRead, "REPEATABLE-READ")]
    {
        let database = database(&real.url(Account::Admin), isolation).await;
        let set: String =
            sqlx::query_scalar("SELECT @@session.tx_isolation").fetch_one(&database).await.unwrap();
        assert_eq!(set, name);
    }
}
