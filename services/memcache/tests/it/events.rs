//! Events: key events only while somebody watches, at a bounded rate; changes always.

use std::time::Duration;

use futures_util::StreamExt as _;
use testkit::{eventually, samples};
use wire::event::{Cleared, Configured, KeyEvent, KeyEventKind};
use wire::inspect::WatchReply;
use wire::reply::Code;
use wire::{Meta, subject};

use crate::helpers::{PATIENCE, Scene, code, key};

async fn next(events: &mut async_nats::Subscriber) -> async_nats::Message {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("an event comes").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_sees_what_happens_to_keys() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&["--cache-capacity-mb", "1"]).await;
    let operator = scene.server.connect("operator").await;
    let mut events = operator.subscribe(subject::ALL_KEY_EVENTS).await.unwrap();
    operator.flush().await.unwrap();
    scene.get("unwatched").await;

    let reply: WatchReply = scene.ask_json(subject::WATCH, r#"{"seconds":60}"#).await.unwrap();
    assert_eq!(reply.kinds.len(), 6);
    let image = samples::astronaut();
    scene.get("a.b").await;
    scene.put("a.b", image.bytes).await.unwrap();
    scene.get("a.b").await;
    scene.put("second", image.bytes).await.unwrap();
    let large = Meta { size: Some(9_000_000), ..Meta::default() };
    assert_eq!(code(scene.ask(&subject::put(&key("third").into()), "", Some(&large)).await), Code::TooLarge);
    scene.ask(&subject::invalidate(&key("second")), "", None).await.unwrap();

    let expected = [
        (KeyEventKind::Miss, "a.b"),
        (KeyEventKind::Put, "a.b"),
        (KeyEventKind::Hit, "a.b"),
        (KeyEventKind::Put, "second"),
        (KeyEventKind::Evicted, "a.b"),
        (KeyEventKind::Rejected, "third"),
        (KeyEventKind::Invalidated, "second"),
    ];
    for (kind, name) in expected {
        let message = next(&mut events).await;
        assert_eq!(message.subject.as_str(), subject::key_event(kind, &key(name)));
        let event: KeyEvent = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!((event.kind, event.key.as_str(), event.worker.as_str()), (kind, name, "memcache-1"));
    }
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_kinds_that_were_asked_for_come() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let operator = scene.server.connect("operator").await;
    let mut events = operator.subscribe(subject::ALL_KEY_EVENTS).await.unwrap();
    operator.flush().await.unwrap();
    let _: WatchReply = scene.ask_json(subject::WATCH, r#"{"seconds":60,"kinds":["hit"]}"#).await.unwrap();
    scene.get("cat").await;
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    scene.get("cat").await;
    let event: KeyEvent = serde_json::from_slice(&next(&mut events).await.payload).unwrap();
    assert_eq!(event.kind, KeyEventKind::Hit);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_cut_to_the_limit_and_says_how_much_it_left_out() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let operator = scene.server.connect("operator").await;
    let mut events = operator.subscribe(subject::ALL_KEY_EVENTS).await.unwrap();
    operator.flush().await.unwrap();
    let _: WatchReply = scene.ask_json(subject::WATCH, r#"{"seconds":60,"kinds":["miss"]}"#).await.unwrap();
    const FLOOD: u64 = 40_000;
    const CHUNK: u64 = 4000;
    let gateway = scene.server.connect("gateway").await;
    // No more at once than the worker's subscription holds.
    for sent in (CHUNK..=FLOOD).step_by(CHUNK as usize) {
        for _ in 0..CHUNK {
            gateway.publish("cache.get.cat", "".into()).await.unwrap();
        }
        eventually("all were counted", PATIENCE, async || {
            scene.stats().await.is_some_and(|stats| stats.counters.miss_count >= sent)
        })
        .await;
    }
    // In a second of its own there is room for one more event, which says what was left out before it.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    scene.get("last").await;
    let mut seen = 0;
    let last = loop {
        let event: KeyEvent = serde_json::from_slice(&next(&mut events).await.payload).unwrap();
        if event.key.as_str() == "last" {
            break event;
        }
        seen += 1;
    };
    assert!(last.dropped_count > 0, "the flood was cut");
    assert_eq!(seen + last.dropped_count, FLOOD);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_clears_are_announced() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let operator = scene.server.connect("operator").await;
    let mut events = operator.subscribe("cache.event.*.memcache-1").await.unwrap();
    operator.flush().await.unwrap();
    scene.configure(r#"{"capacity_mb":5,"by":"me"}"#).await;
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    scene.ask(subject::CLEAR, r#"{"by":"you"}"#, None).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let message = next(&mut events).await;
        if message.subject.as_str() == subject::configured_event("memcache-1") {
            let event: Configured = serde_json::from_slice(&message.payload).unwrap();
            seen.push((event.changed_by, event.capacity_bytes));
        } else if message.subject.as_str() == subject::cleared_event("memcache-1") {
            let event: Cleared = serde_json::from_slice(&message.payload).unwrap();
            seen.push((event.changed_by, event.entries));
        }
    }
    assert_eq!(seen, [("me".to_owned(), 5 << 20), ("you".to_owned(), 1)]);
    worker.stop().await.unwrap();
}
