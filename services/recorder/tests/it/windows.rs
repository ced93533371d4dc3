use sqlx::Row as _;
use testkit::database::Account;
use testkit::{Database, NatsServer, eventually};
use wire::Counters;

use crate::helpers::*;

#[tokio::test]
async fn each_field_of_a_window_is_in_its_column() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    let window = window("life", 1);
    worker.publish(&window).await;
    wait_for_windows(&database, "life", 1).await;

    let row = sqlx::query("SELECT * FROM cache_stats")
        .fetch_one(&mut database.connect(Account::Admin).await)
        .await
        .unwrap();
    assert_eq!(row.get::<String, _>("worker"), window.worker);
    assert_eq!(row.get::<time::OffsetDateTime, _>("interval_start"), window.interval_start);
    let numbers = [
        ("sequence", window.sequence),
        ("interval_ms", window.interval_ms),
        ("cache_size", window.cache_size),
        ("capacity", window.capacity),
        ("key_count", window.key_count),
    ];
    let counters = Counters::NAMES.iter().copied().zip(window.counters.values());
    for (column, value) in numbers.into_iter().chain(counters) {
        assert_eq!(row.get::<u64, _>(column), value, "{column}");
    }
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_window_that_comes_twice_is_one_row() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    // Other message ids, so that JetStream's own deduplication has no part in it.
    for copy in ["a", "b", "c"] {
        for sequence in 1..=3 {
            let payload = serde_json::to_vec(&window("life", sequence)).unwrap();
            worker
                .publish_bytes("cache.event.window.memcache-1", &format!("{copy}-{sequence}"), &payload)
                .await;
        }
    }
    worker.publish(&window("after", 1)).await;
    wait_for_windows(&database, "after", 1).await;
    assert_eq!(sequences(&database, "life").await, [1, 2, 3]);
    assert_eq!(
        value(&database, "SELECT CAST(SUM(window_count) AS SIGNED) FROM cache_stats_rollup").await,
        Some(4)
    );
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn windows_that_come_while_no_recorder_runs_are_rows_afterwards() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let worker = Worker::connect(&nats).await;
    let mut next = 1;
    for _ in 0..3 {
        for _ in 0..700 {
            worker.publish(&window("life", next)).await;
            next += 1;
        }
        let recorder = Recorder::spawn(config(&nats, &database));
        wait_for_windows(&database, "life", next - 1).await;
        recorder.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_recorder_that_is_killed_in_the_middle_loses_and_doubles_nothing() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let worker = Worker::connect(&nats).await;
    for sequence in 1..=1500 {
        worker.publish(&window("life", sequence)).await;
    }
    for _ in 0..3 {
        let recorder = Recorder::spawn(config(&nats, &database));
        eventually("some rows are there", SOON, async || !sequences(&database, "life").await.is_empty())
            .await;
        recorder.kill();
    }
    let recorder = Recorder::spawn(config(&nats, &database));
    wait_for_windows(&database, "life", 1500).await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn two_recorders_share_the_work() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorders = [(); 2].map(|()| Recorder::spawn(config(&nats, &database)));
    let worker = Worker::connect(&nats).await;
    for sequence in 1..=400 {
        worker.publish(&window("life", sequence)).await;
    }
    wait_for_windows(&database, "life", 400).await;
    assert_eq!(
        value(&database, "SELECT CAST(SUM(request_count) AS SIGNED) FROM cache_stats").await,
        value(&database, "SELECT CAST(SUM(request_count) AS SIGNED) FROM cache_stats_rollup").await
    );
    for recorder in recorders {
        recorder.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_message_that_is_no_window_blocks_nothing() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    for (at, payload) in [
        &b""[..],
        b"{}",
        b"not json",
        b"\xff\xfe\x00",
        br#"{"worker":"","incarnation":"x","sequence":1,"interval_start":"2026-01-01T00:00:00Z","interval_ms":1,"cache_size":0,"capacity":0,"key_count":0}"#,
        br#"{"worker":"w","incarnation":"x","sequence":1,"interval_start":"0001-01-01T00:00:00Z","interval_ms":1,"cache_size":0,"capacity":0,"key_count":0}"#,
    ]
    .into_iter()
    .enumerate()
    {
        worker.publish_bytes("cache.event.window.w", &format!("bad-{at}"), payload).await;
        worker.publish(&window("life", at as u64 + 1)).await;
    }
    wait_for_windows(&database, "life", 6).await;

    // Each was refused for good, and is counted where an operator sees it.
    let operator = nats.connect("operator").await;
    eventually("six messages are counted as refused", SOON, async || {
        let stats = operator.request("$SRV.STATS.recorder", "".into()).await.unwrap();
        let stats: serde_json::Value = serde_json::from_slice(&stats.payload).unwrap();
        stats["endpoints"][0]["data"]["refused_message_count"] == 6
            && stats["endpoints"][0]["data"]["stored_message_count"] == 6
    })
    .await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_window_that_the_database_refuses_does_not_keep_its_batch_out() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    database.migrate().await;
    execute(
        &mut database.connect(Account::Admin).await,
        "ALTER TABLE cache_stats ADD CONSTRAINT not_seven CHECK (sequence NOT IN (7, 30))",
    )
    .await
    .unwrap();
    let worker = Worker::connect(&nats).await;
    for sequence in 1..=40 {
        worker.publish(&window("life", sequence)).await;
    }
    let recorder = Recorder::spawn(config(&nats, &database));
    let expected: Vec<u64> = (1..=40).filter(|sequence| ![7, 30].contains(sequence)).collect();
    eventually("all others are rows", SOON, async || sequences(&database, "life").await == expected).await;
    worker.publish(&window("after", 1)).await;
    wait_for_windows(&database, "after", 1).await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn the_largest_counts_fit() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    for sequence in 1..=2 {
        let counters = Counters::from_values([u64::MAX; Counters::NAMES.len()]);
        worker.publish(&wire::Window { counters, capacity: u64::MAX, ..window("life", sequence) }).await;
    }
    wait_for_windows(&database, "life", 2).await;
    let asker = Asker::connect(&nats).await;
    let series: wire::stats::Series = asker.ask("stats.series", r#"{"range":"366d"}"#).await;
    assert_eq!(series.rows.len(), 2);
    let series: wire::stats::Series = asker.ask("stats.series", r#"{"range":"366d","step":"366d"}"#).await;
    assert!(series.rows.iter().all(|row| row.counters.served_bytes == u64::MAX));
    recorder.stop().await.unwrap();
}
