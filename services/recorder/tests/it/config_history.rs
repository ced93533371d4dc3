use std::time::Duration;

use testkit::{Database, NatsServer, eventually};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wire::Counters;
use wire::reply::Code;
use wire::stats::{Effect, History, Reads};

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

#[tokio::test]
async fn the_effect_of_a_change_is_what_was_read_before_and_after_it() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    // Twelve minutes in windows of 5 s, ten gets in each: one hit more in each minute.
    let start =
        OffsetDateTime::from_unix_timestamp(OffsetDateTime::now_utc().unix_timestamp() / 60 * 60 - 1200)
            .unwrap();
    for at in 0..144 {
        let counters = Counters { request_count: 10, hit_count: at / 12, ..Counters::default() };
        let interval_start = start + Duration::from_secs(5 * at);
        worker.publish(&wire::Window { interval_start, counters, ..window("life", at + 1) }).await;
    }
    // After 4 minutes, and after 6 minutes and 2 seconds: within a window, which is neither before nor after it.
    for after_s in [240, 362] {
        let changed_at = (start + Duration::from_secs(after_s)).format(&Rfc3339).unwrap();
        let entry = serde_json::json!({
            "capacity_mb": 64, "policy": "lru", "generation": after_s, "changed_by": "test", "changed_at": changed_at,
        });
        worker.write_entry(entry.to_string().as_bytes()).await;
    }
    wait_for_changes(&database, 2).await;
    wait_for_windows(&database, "life", 144).await;

    let asker = Asker::connect(&nats).await;
    let effects = async |question: &str| {
        let history: History = asker.ask(ASK, question).await;
        let reads = |reads: Reads| (reads.request_count, reads.hit_count);
        let effect = |effect: Effect| (reads(effect.before), reads(effect.after));
        history.changes.iter().map(|change| change.effect.map(effect)).collect::<Vec<_>>()
    };
    assert_eq!(effects("").await, [None, None]);
    // A minute is twelve windows. Behind the second change, the rest of its seventh minute and a part of the next.
    assert_eq!(
        effects(r#"{"compare":"65s"}"#).await,
        [Some(((120, 5 * 12), (120, 6 * 11 + 7))), Some(((130, 3 * 12 + 2), (130, 4 * 12 + 5))),]
    );
    // No further than the changes beside it, and not beyond what was recorded.
    let between = (4 + 5) * 12;
    let after = 6 * 11 + (7..=11).sum::<u64>() * 12;
    assert_eq!(
        effects(r#"{"compare":"10m"}"#).await,
        [Some(((240, between), (710, after))), Some(((480, (1 + 2 + 3) * 12), (240, between))),]
    );
    // That of the older one is a limit also where it is not shown.
    assert_eq!(effects(r#"{"compare":"10m","limit":1}"#).await, [Some(((240, between), (710, after)))]);

    let (code, sentence) = asker.refusal(ASK, r#"{"compare":"10m","limit":101}"#).await;
    assert!(code == Code::BadRequest && sentence.contains("1 to 100"), "{sentence}");
    recorder.stop().await.unwrap();
}
