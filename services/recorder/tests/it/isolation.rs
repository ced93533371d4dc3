//! What two recorders write at once, on servers whose administrators have chosen another isolation.

use std::time::Duration;

use recorder::repository::{ROLLUP_MS, Repository, RepositoryError};
use sqlx::Row as _;
use testkit::database::Account;
use testkit::{Database, MariaDb, eventually};
use wire::Window;

use crate::helpers::{SOON, execute, window};

/// Pairs of batches that are inserted at once.
const PAIRS: u64 = 5;

/// Inserts as the consumer does: until it is done.
async fn insert(repository: &Repository, windows: &[Window]) {
    while let Err(error) = repository.insert_windows(windows).await {
        assert!(!matches!(error, RepositoryError::Refused(_)), "{error}");
    }
}

async fn two_recorders_add_up_to_the_same(database: &Database) {
    database.migrate().await;
    let [one, other] = [(); 2].map(|()| Repository::new(database.url(Account::Recorder).parse().unwrap()));
    let mut admin = database.connect(Account::Admin).await;
    let mut holder = database.connect(Account::Admin).await;
    for pair in 0..PAIRS {
        // All of a pair are of the same five minutes, which no later one adds up again.
        let windows = [1, 2, 3, 4].map(|at| Window {
            interval_start: window("life", at).interval_start + Duration::from_millis(ROLLUP_MS * pair),
            ..window("life", 4 * pair + at)
        });
        insert(&one, &windows[..1]).await;
        // Whoever has added up waits here with the sum, so that both do at once if nothing keeps them apart.
        execute(&mut holder, "BEGIN; SELECT sequence FROM cache_stats_rollup FOR UPDATE").await.unwrap();
        // Of some pairs one comes to both, as after a redelivery. Then one waits for the other.
        let first = &windows[1..if pair == 0 { 3 } else { 2 }];
        let release = async {
            let mut seen = 0;
            eventually("both are at work", SOON, async || {
                let busy: i64 = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM information_schema.processlist \
                     WHERE info LIKE 'INSERT INTO cache_stats %' OR info LIKE 'REPLACE INTO cache_stats_rollup %'",
                )
                .fetch_one(&mut admin)
                .await
                .unwrap();
                seen = if busy == 2 { seen + 1 } else { 0 };
                seen == 30
            })
            .await;
            execute(&mut holder, "ROLLBACK").await.unwrap();
        };
        tokio::join!(insert(&one, first), insert(&other, &windows[2..]), release);
    }
    let requests: u64 = (1..=4 * PAIRS).map(|number| window("life", number).counters.request_count).sum();
    let expected = [4 * PAIRS, requests, 4 * PAIRS * 5000];
    for sums in [
        "SELECT COUNT(*), CAST(SUM(request_count) AS SIGNED), CAST(SUM(interval_ms) AS SIGNED) FROM cache_stats",
        "SELECT CAST(SUM(window_count) AS SIGNED), CAST(SUM(request_count) AS SIGNED), \
         CAST(SUM(interval_ms) AS SIGNED) FROM cache_stats_rollup",
    ] {
        let row = sqlx::query(sums).fetch_one(&mut admin).await.unwrap();
        let found: [i64; 3] = std::array::from_fn(|at| row.get(at));
        assert_eq!(found.map(i64::cast_unsigned), expected, "{sums}");
    }
    one.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_recorders_are_exact_where_the_server_s_default_is_read_uncommitted() {
    let server = MariaDb::start_with(&["--transaction-isolation=READ-UNCOMMITTED"]).await;
    two_recorders_add_up_to_the_same(&server.database().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_recorders_are_exact_where_the_server_s_default_is_read_committed() {
    let server = MariaDb::start_with(&["--transaction-isolation=READ-COMMITTED"]).await;
    two_recorders_add_up_to_the_same(&server.database().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_recorders_are_exact_where_the_server_s_default_is_serializable() {
    let server = MariaDb::start_with(&["--transaction-isolation=SERIALIZABLE"]).await;
    two_recorders_add_up_to_the_same(&server.database().await).await;
}
