use recorder::repository::Repository;
use testkit::database::Account;
use testkit::{Database, NatsServer, eventually};
use time::OffsetDateTime;
use wire::Window;

use crate::helpers::*;

fn repository(database: &Database) -> Repository {
    Repository::new(database.url(Account::Recorder).parse().unwrap())
}

fn aged(sequence: u64, days: f64) -> Window {
    let interval_start = OffsetDateTime::now_utc() - time::Duration::seconds_f64(days * 86_400.0);
    Window { interval_start, ..window("life", sequence) }
}

#[tokio::test]
async fn rows_beyond_the_retention_are_removed_at_the_start() {
    let (nats, database) = (NatsServer::start().await, Database::migrated().await);
    let rows = repository(&database);
    // Several batches of old windows, and some that stay.
    let old: Vec<Window> =
        (1..=5000).map(|sequence| aged(sequence, 2.0 + sequence as f64 / 1000.0)).collect();
    for batch in old.chunks(500) {
        rows.insert_windows(batch).await.unwrap();
    }
    rows.insert_windows(&[aged(5001, 0.9), aged(5002, 0.0)]).await.unwrap();

    let mut two_days = config(&nats, &database);
    two_days.stats_retention_days = 1;
    let recorder = Recorder::spawn(two_days);
    eventually("only what is younger than a day is left", SOON, async || {
        sequences(&database, "life").await == [5001, 5002]
            && value(&database, "SELECT COUNT(*) FROM cache_stats_rollup").await == Some(2)
    })
    .await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_retention_takes_sums_and_windows_together() {
    let database = Database::migrated().await;
    let rows = repository(&database);
    let bucket = OffsetDateTime::from_unix_timestamp(1_700_000_100).unwrap();
    assert_eq!(bucket.unix_timestamp() % 300, 0);
    let windows: Vec<Window> = (0..120)
        .map(|at| Window {
            interval_start: bucket + time::Duration::seconds(5 * at),
            ..window("life", at as u64 + 1)
        })
        .collect();
    rows.insert_windows(&windows).await.unwrap();
    assert_eq!(rows.remove_before(bucket + time::Duration::seconds(299), 1000).await.unwrap(), 0);
    // 60 windows and their one sum.
    assert_eq!(rows.remove_before(bucket + time::Duration::seconds(599), 1000).await.unwrap(), 61);
    assert_eq!(sequences(&database, "life").await, (61..=120).collect::<Vec<_>>());
    assert_eq!(rows.remove_before(bucket + time::Duration::seconds(600), 7).await.unwrap(), 8);
}
