//! Windows: everything counted is in them once, whatever happens to the server.

use async_nats::jetstream::consumer::pull;
use futures_util::StreamExt as _;
use testkit::{NatsServer, eventually, samples};
use wire::{Counters, Window, subject};

use crate::helpers::{PATIENCE, Scene};

/// Every window in the stream, in its order.
pub(crate) async fn windows(server: &NatsServer) -> Vec<Window> {
    let jetstream = server.jetstream("administrator").await;
    let mut stream = jetstream.get_stream(subject::EVENT_STREAM).await.unwrap();
    if stream.info().await.unwrap().state.messages == 0 {
        return Vec::new();
    }
    let config = pull::Config { filter_subject: subject::ALL_WINDOWS.into(), ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut batch = consumer.fetch().max_messages(100_000).messages().await.unwrap();
    let mut windows = Vec::new();
    while let Some(message) = batch.next().await {
        windows.push(serde_json::from_slice(&message.unwrap().payload).unwrap());
    }
    windows
}

pub(crate) fn sum(windows: &[Window]) -> Counters {
    let mut sum = Counters::default();
    windows.iter().for_each(|window| sum.add(&window.counters));
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn the_windows_add_up_to_what_was_asked_and_the_last_is_acknowledged_before_the_end() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&["--cache-capacity-mb", "1"]).await;
    for round in 0..3 {
        for image in samples::all() {
            if round == 0 {
                scene.put(image.name, image.bytes).await.unwrap();
            }
            scene.get(image.name).await;
        }
    }
    let counted = scene.stats().await.unwrap();
    worker.stop().await.unwrap();
    let windows = windows(&scene.server).await;
    let sequences: Vec<u64> = windows.iter().map(|window| window.sequence).collect();
    assert_eq!(sequences, (1..=windows.len() as u64).collect::<Vec<_>>());
    assert_eq!(sum(&windows), counted.counters);
    assert_eq!(counted.counters.request_count, 21);
    assert!(
        windows
            .iter()
            .all(|window| window.incarnation == counted.incarnation && window.cache_size <= window.capacity)
    );
    // Each begins where the one before ended.
    for pair in windows.windows(2) {
        let gap = (pair[1].interval_start - pair[0].interval_start).whole_milliseconds()
            - i128::from(pair[0].interval_ms);
        assert!(gap.abs() <= 5, "{gap} ms between two windows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_of_an_outage_are_kept_and_come_later_each_once() {
    let scene = Scene::new().await;
    // A claim that runs out in the outage would end this life, and the next one counts anew.
    let worker = scene.start_worker(&["--claim-ms", "10000"]).await;
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    scene.get("cat").await;
    scene.server.kill().await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    scene.server.start_again().await;
    eventually("nothing waits any more", PATIENCE, async || {
        scene.stats().await.is_some_and(|stats| stats.serving && stats.pending_window_count == 0)
    })
    .await;
    scene.get("cat").await;
    let counted = scene.stats().await.unwrap();
    worker.stop().await.unwrap();
    let windows = windows(&scene.server).await;
    let sequences: Vec<u64> = windows.iter().map(|window| window.sequence).collect();
    assert_eq!(sequences, (1..=windows.len() as u64).collect::<Vec<_>>());
    assert_eq!(sum(&windows), counted.counters);
    assert!(windows.len() > 6, "the windows of the outage are there: {}", windows.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_a_server_ends_in_time() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&["--shutdown-grace-ms", "300"]).await;
    scene.server.kill().await;
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(3), worker.stop()).await;
    stopped.expect("it ends within its grace").unwrap();
}
