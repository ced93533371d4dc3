use testkit::database::Account;
use testkit::{Database, MariaDb, NatsServer, eventually};
use wire::reply::Code;

use crate::helpers::*;

#[tokio::test]
async fn rows_come_after_mysql_was_away() {
    let (nats, server) = (NatsServer::start().await, MariaDb::start().await);
    let database = server.database().await;
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    worker.publish(&window("life", 1)).await;
    wait_for_windows(&database, "life", 1).await;
    let asker = Asker::connect(&nats).await;

    server.stop().await;
    for sequence in 2..=50 {
        worker.publish(&window("life", sequence)).await;
    }
    let (code, sentence) = asker.refusal("stats.series", "").await;
    assert_eq!(code, Code::Unavailable, "{sentence}");
    let (code, sentence) = asker.refusal("stats.config_history", "").await;
    assert_eq!(code, Code::Unavailable, "{sentence}");
    server.start_again().await;
    wait_for_windows(&database, "life", 50).await;

    server.kill().await;
    for sequence in 51..=100 {
        worker.publish(&window("life", sequence)).await;
    }
    server.start_again().await;
    wait_for_windows(&database, "life", 100).await;
    eventually("questions are answered again", SOON, async || {
        asker.try_ask("stats.series", "").await.is_ok()
    })
    .await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_mysql_that_stands_still_leaves_no_question_open_and_loses_no_row() {
    let (nats, server) = (NatsServer::start().await, MariaDb::start().await);
    let database = server.database().await;
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    worker.publish(&window("life", 1)).await;
    wait_for_windows(&database, "life", 1).await;
    let asker = Asker::connect(&nats).await;

    server.pause().await;
    for sequence in 2..=20 {
        worker.publish(&window("life", sequence)).await;
    }
    assert_eq!(asker.refusal("stats.series", "").await.0, Code::Unavailable);
    server.resume().await;
    wait_for_windows(&database, "life", 20).await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn rows_come_after_nats_was_away() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    worker.publish(&window("life", 1)).await;
    wait_for_windows(&database, "life", 1).await;

    nats.restart().await;
    for sequence in 2..=20 {
        worker.publish(&window("life", sequence)).await;
    }
    wait_for_windows(&database, "life", 20).await;

    nats.kill().await;
    nats.start_again().await;
    for sequence in 21..=40 {
        worker.publish(&window("life", sequence)).await;
    }
    wait_for_windows(&database, "life", 40).await;
    let asker = Asker::connect(&nats).await;
    assert!(asker.try_ask("stats.series", "").await.is_ok());
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_nats_server_that_lost_everything_is_followed_from_its_new_beginning() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    for sequence in 1..=10 {
        worker.publish(&window("life", sequence)).await;
    }
    assert_eq!(worker.configure(64, 0, "before").await, 1);
    wait_for_windows(&database, "life", 10).await;
    eventually("the revision is a row", SOON, async || {
        value(&database, "SELECT COUNT(*) FROM cache_properties").await == Some(1)
    })
    .await;

    nats.restart_without_its_store().await;
    worker.make_streams().await;
    // The new streams count from 1 again: as other windows, and as other revisions.
    for sequence in 11..=20 {
        worker.publish(&window("life", sequence)).await;
    }
    assert_eq!(worker.configure(128, 0, "after").await, 1);
    wait_for_windows(&database, "life", 20).await;
    eventually("both revisions are rows", SOON, async || {
        value(&database, "SELECT COUNT(*) FROM cache_properties WHERE revision = 1").await == Some(2)
    })
    .await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_consumer_that_an_administrator_deletes_is_made_anew() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    worker.publish(&window("life", 1)).await;
    wait_for_windows(&database, "life", 1).await;

    let administrator = nats.jetstream("administrator").await;
    administrator
        .delete_consumer_from_stream(wire::subject::WINDOW_CONSUMER, wire::subject::EVENT_STREAM)
        .await
        .unwrap();
    for sequence in 2..=5 {
        worker.publish(&window("life", sequence)).await;
    }
    wait_for_windows(&database, "life", 5).await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_missing_for_a_while_only_delays_rows() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    worker.publish(&window("life", 1)).await;
    wait_for_windows(&database, "life", 1).await;

    let mut admin = database.connect(Account::Admin).await;
    execute(&mut admin, "RENAME TABLE cache_stats_rollup TO elsewhere").await.unwrap();
    for sequence in 2..=5 {
        worker.publish(&window("life", sequence)).await;
    }
    let asker = Asker::connect(&nats).await;
    assert!(asker.try_ask("stats.series", "").await.is_ok());
    // Not one without its sum: all of a batch is committed, or nothing.
    assert_eq!(sequences(&database, "life").await, [1]);
    execute(&mut admin, "RENAME TABLE elsewhere TO cache_stats_rollup").await.unwrap();
    wait_for_windows(&database, "life", 5).await;
    recorder.stop().await.unwrap();
}
