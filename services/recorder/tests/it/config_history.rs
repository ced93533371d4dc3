use testkit::{Database, NatsServer, eventually};
use wire::reply::Code;
use wire::stats::History;

use crate::helpers::*;

const ASK: &str = wire::subject::CONFIG_HISTORY;

async fn wait_for_changes(database: &Database, count: i64) {
    eventually("each change is a row, once", SOON, async || {
        value(database, "SELECT COUNT(*) FROM cache_properties").await == Some(count)
    })
    .await;
}

#[tokio::test]
async fn each_change_is_one_row_whoever_restarts() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let worker = Worker::connect(&nats).await;
    assert_eq!(worker.configure(64, 0, "first start").await, 1);
    let recorder = Recorder::spawn(config(&nats, &database));
    wait_for_changes(&database, 1).await;
    worker.configure(128, 0, "api").await;
    wait_for_changes(&database, 2).await;
    recorder.stop().await.unwrap();

    worker.configure(128, 1, "nats").await;
    nats.restart().await;
    let recorder = Recorder::spawn(config(&nats, &database));
    wait_for_changes(&database, 3).await;
    nats.kill().await;
    nats.start_again().await;
    eventually("the bucket takes changes again", SOON, async || worker.client.flush().await.is_ok()).await;
    worker.make_streams().await;
    worker.configure(32, 1, "Zoë").await;
    wait_for_changes(&database, 4).await;

    let asker = Asker::connect(&nats).await;
    let history: History = asker.ask(ASK, "").await;
    let seen: Vec<_> = history
        .changes
        .iter()
        .map(|change| {
            (change.revision, change.max_capacity >> 20, change.generation, change.changed_by.as_str())
        })
        .collect();
    assert_eq!(seen, [(4, 32, 1, "Zoë"), (3, 128, 1, "nats"), (2, 128, 0, "api"), (1, 64, 0, "first start")]);
    assert_eq!(history.changes[0].created_at.millisecond(), 678);
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn an_entry_that_is_removed_or_unreadable_blocks_nothing() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    worker.configure(64, 0, "one").await;
    worker.delete_entry().await;
    worker.write_entry(b"what?").await;
    worker.write_entry(br#"{"capacity_mb":1,"policy":"fifo","generation":0,"changed_by":"x","changed_at":"2026-01-01T00:00:00Z"}"#).await;
    worker.configure(65, 0, "five").await;
    let asker = Asker::connect(&nats).await;
    eventually("both readable changes are rows", SOON, async || {
        let history: History = asker.ask(ASK, "").await;
        history.changes.iter().map(|change| change.revision).eq([5, 1])
    })
    .await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_history_is_limited_by_number_and_by_time() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    for generation in 0..120 {
        worker.configure(64, generation, "test").await;
    }
    wait_for_changes(&database, 120).await;
    let asker = Asker::connect(&nats).await;
    let revisions = async |question: &str| {
        let history: History = asker.ask(ASK, question).await;
        history.changes.iter().map(|change| change.revision).collect::<Vec<_>>()
    };
    assert_eq!(revisions("").await, (21..=120).rev().collect::<Vec<_>>());
    assert_eq!(revisions(r#"{"limit":2}"#).await, [120, 119]);
    assert_eq!(revisions(r#"{"limit":1000}"#).await.len(), 120);
    assert_eq!(revisions(r#"{"range":"366d","limit":1}"#).await, [120]);
    // They were all made long before.
    assert_eq!(revisions(r#"{"range":"1s"}"#).await, [0; 0]);

    for question in
        [r#"{"limit":0}"#, r#"{"limit":1001}"#, r#"{"limit":-1}"#, r#"{"rnage":"1d"}"#, "[", "\"x\""]
    {
        let (code, sentence) = asker.refusal(ASK, question).await;
        assert_eq!(code, Code::BadRequest, "{question}: {sentence}");
    }
    recorder.stop().await.unwrap();
}
