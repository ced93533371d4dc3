//! Consumers that are not as the recorder makes them.

use std::net::SocketAddr;

use async_nats::jetstream;
use serde_json::{Value, json};
use testkit::{Database, MariaDb, NatsServer, eventually};
use wire::subject::{EVENT_STREAM, WINDOW_CONSUMER};

use crate::helpers::*;

async fn info_of(administrator: &jetstream::Context) -> Value {
    let subject = format!("CONSUMER.INFO.{EVENT_STREAM}.{WINDOW_CONSUMER}");
    administrator.request(subject, &json!({})).await.unwrap()
}

async fn config_of(administrator: &jetstream::Context) -> Value {
    info_of(administrator).await["config"].clone()
}

fn request_with(config: &Value) -> (String, Value) {
    let subject = format!("CONSUMER.DURABLE.CREATE.{EVENT_STREAM}.{WINDOW_CONSUMER}");
    (subject, json!({ "stream_name": EVENT_STREAM, "config": config }))
}

/// Replaces the consumer by another one of its name, before a recorder makes it anew.
async fn replace(administrator: &jetstream::Context, config: &Value) {
    eventually("the other consumer is there", SOON, async || {
        let _ = administrator.delete_consumer_from_stream(WINDOW_CONSUMER, EVENT_STREAM).await;
        let (subject, request) = request_with(config);
        let made: Value = administrator.request(subject, &request).await.unwrap();
        made.get("error").is_none()
    })
    .await;
}

/// How many connections the server has.
fn connection_count(nats: &NatsServer) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{:04X}", SocketAddr::from(([127, 0, 0, 1], nats.port())).port());
    let is_open = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&local.as_str()) && words.get(3) == Some(&"01")
    };
    table.lines().filter(is_open).count()
}

#[tokio::test]
async fn a_consumer_with_another_configuration_is_set_right_and_each_window_is_one_row() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let worker = Worker::connect(&nats).await;
    let administrator = nats.jetstream("administrator").await;
    let others = connection_count(&nats);
    let mut recorder = Recorder::spawn(config(&nats, &database));
    worker.publish(&window("life", 1)).await;
    wait_for_windows(&database, "life", 1).await;
    let wanted = config_of(&administrator).await;

    let mut last = 1;
    for change in [
        json!({ "deliver_subject": "somewhere", "max_waiting": null }),
        json!({ "ack_policy": "none", "max_ack_pending": null, "ack_wait": null }),
        json!({ "inactive_threshold": 3_600_000_000_000_u64 }),
        json!({ "max_deliver": 1 }),
        json!({ "filter_subject": "cache.event.cleared.*" }),
    ] {
        let mut other = wanted.clone();
        for (field, value) in change.as_object().unwrap() {
            other[field] = value.clone();
        }
        for runs in [true, false] {
            if runs {
                replace(&administrator, &other).await;
            } else {
                recorder.stop().await.unwrap();
                replace(&administrator, &other).await;
                recorder = Recorder::spawn(config(&nats, &database));
            }
            last += 1;
            worker.publish(&window("life", last)).await;
            wait_for_windows(&database, "life", last).await;
            eventually("the consumer is as the recorder makes it", SOON, async || {
                config_of(&administrator).await == wanted
            })
            .await;
        }
    }
    // What came again is in no sum twice.
    let summed = value(&database, "SELECT CAST(SUM(window_count) AS SIGNED) FROM cache_stats_rollup").await;
    assert_eq!(summed.map(i64::cast_unsigned), Some(last));
    eventually("the user setup has left", SOON, async || connection_count(&nats) == others + 2).await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn the_recorder_s_password_changes_no_consumer() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    worker.publish(&window("life", 1)).await;
    wait_for_windows(&database, "life", 1).await;
    let administrator = nats.jetstream("administrator").await;
    let wanted = config_of(&administrator).await;

    let mut forged = wanted.clone();
    forged["inactive_threshold"] = json!(1_000_000);
    let (subject, request) = request_with(&forged);
    let delete = format!("CONSUMER.DELETE.{EVENT_STREAM}.{WINDOW_CONSUMER}");
    for user in ["recorder_own", "recorder"] {
        let client = nats.connect(user).await;
        for api in ["$JS.STORE.API", "$JS.API"] {
            for (subject, payload) in [(&subject, request.to_string()), (&delete, String::new())] {
                client.publish(format!("{api}.{subject}"), payload.into()).await.unwrap();
            }
        }
        // A server handles what one connection says in order.
        client.flush().await.unwrap();
        let drained = client.drain().await;
        drained.unwrap();
        assert_eq!(config_of(&administrator).await, wanted, "{user}");
    }
    worker.publish(&window("life", 2)).await;
    wait_for_windows(&database, "life", 2).await;
    recorder.stop().await.unwrap();
}

/// Then no pull is there that the server could end, and an older server says nothing to the next one.
#[tokio::test]
async fn a_consumer_that_is_deleted_between_two_pulls_is_made_anew() {
    let (nats, server) = (NatsServer::start().await, MariaDb::start().await);
    let database = server.database().await;
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    worker.publish(&window("life", 1)).await;
    wait_for_windows(&database, "life", 1).await;
    let administrator = nats.jetstream("administrator").await;

    server.pause().await;
    worker.publish(&window("life", 2)).await;
    eventually("a window waits for MySQL, and no pull is left", SOON, async || {
        let info = info_of(&administrator).await;
        info["num_ack_pending"] == 1 && info["num_waiting"] == 0
    })
    .await;
    administrator.delete_consumer_from_stream(WINDOW_CONSUMER, EVENT_STREAM).await.unwrap();
    server.resume().await;
    worker.publish(&window("life", 3)).await;
    wait_for_windows(&database, "life", 3).await;
    recorder.stop().await.unwrap();
}
