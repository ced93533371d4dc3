//! Streams of events: what those see who follow, and that they cost others nothing.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;
use testkit::{eventually, samples};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::subject;

use crate::helpers::{Gateway, PATIENCE, Scene, WITHOUT_COPIES};
use crate::http::{HERE, connect_from};

/// Somebody who follows.
pub(crate) struct Reader {
    stream: TcpStream,
    received: String,
}

impl Reader {
    async fn open(gateway: &Gateway, path: &str) -> Self {
        Self::open_from(HERE, gateway, path, "").await
    }

    /// From one of the addresses of this machine, with further headers.
    pub(crate) async fn open_from(address: Ipv4Addr, gateway: &Gateway, path: &str, headers: &str) -> Self {
        let mut stream = connect_from(address, gateway.port).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reader = Self { stream, received: String::new() };
        let head = reader.until("\r\n\r\n").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        for header in ["content-type: text/event-stream", "cache-control: no-cache", "x-accel-buffering: no"]
        {
            assert!(head.contains(header), "{header} in {head}");
        }
        reader
    }

    /// What comes up to these words; `None` when the stream ends before.
    async fn until(&mut self, words: &str) -> Option<String> {
        loop {
            if let Some(at) = self.received.find(words) {
                let rest = self.received.split_off(at + words.len());
                return Some(std::mem::replace(&mut self.received, rest));
            }
            let mut bytes = [0; 65536];
            let read =
                timeout(PATIENCE, self.stream.read(&mut bytes)).await.expect("something comes").unwrap();
            if read == 0 {
                return None;
            }
            self.received.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
    }

    /// The next event: its name and its data.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            let event = self.until("\n\n").await?;
            // Between events stand the sizes of chunks, and comments that keep the stream alive.
            let field = |name: &str| {
                let mut lines = event.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                lines.next().map(str::to_owned)
            };
            if let Some(data) = field("data") {
                return Some((field("event").unwrap(), serde_json::from_str(&data).unwrap()));
            }
        }
    }

    /// The next event of this name.
    pub(crate) async fn next_of(&mut self, name: &str) -> Value {
        loop {
            let (found, data) = self.next().await.expect("the stream goes on");
            if found == name {
                return data;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_and_changes_are_seen_by_all_who_follow() {
    let (scene, _worker, gateway) = Scene::running().await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(Reader::open(&gateway, "/events/stats").await);
    }
    for reader in &mut readers {
        let (name, data) = reader.next().await.unwrap();
        assert_eq!((name.as_str(), &data["connected"]), ("bus", &Value::Bool(true)));
    }
    scene.configure(r#"{"capacity_mb":33,"by":"a test"}"#).await;
    scene.ask(subject::CLEAR, r#"{"by":"another"}"#).await.unwrap();
    gateway.get("/images/nobody").await;
    for reader in &mut readers {
        let configured = reader.next_of("configured").await;
        assert_eq!(configured["capacity_bytes"], 33 << 20);
        assert_eq!(configured["changed_by"], "a test");
        assert_eq!(reader.next_of("cleared").await["changed_by"], "another");
        loop {
            let window = reader.next_of("window").await;
            if window["miss_count"] == 1 {
                assert_eq!((&window["worker"], &window["request_count"]), (&"memcache-1".into(), &1.into()));
                break;
            }
        }
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_hears_that_the_bus_is_away_and_that_it_is_back() {
    let (scene, _worker, gateway) = Scene::running().await;
    let mut reader = Reader::open(&gateway, "/events/stats").await;
    assert_eq!(reader.next_of("bus").await["connected"], true);
    scene.nats.stop().await;
    assert_eq!(reader.next_of("bus").await["connected"], false);
    scene.nats.start_again().await;
    assert_eq!(reader.next_of("bus").await["connected"], true);
    reader.next_of("window").await;
    gateway.stop().await.unwrap();
}

/// Opens a stream of key events, and waits until the worker publishes what it is about.
async fn watch(gateway: &Gateway, query: &str) -> Reader {
    let mut reader = Reader::open(gateway, &format!("/events/keys{query}")).await;
    while reader.next_of("watch").await["watching"] != true {}
    reader
}

/// The events up to the one of this kind and key, as kinds and keys.
async fn seen_until(reader: &mut Reader, kind: &str, key: &str) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    loop {
        let batch = reader.next_of("keys").await;
        for event in batch["events"].as_array().unwrap() {
            seen.push((
                event["kind"].as_str().unwrap().to_owned(),
                event["key"].as_str().unwrap().to_owned(),
            ));
        }
        if seen.last().is_some_and(|(last, of)| (&**last, &**of) == (kind, key)) {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_keys_is_seen_by_each_as_he_asked_for_it() {
    let (_scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    let mut all = watch(&gateway, "").await;
    let mut some = watch(&gateway, "?kinds=hit,put&prefix=a%2F").await;
    for name in ["a%2Fcat", "b"] {
        gateway.put(&format!("/images/{name}"), samples::chelsea().bytes).await;
        gateway.get(&format!("/images/{name}")).await;
        gateway.get(&format!("/images/{name}")).await;
    }
    gateway.put("/images/a%2Fend", samples::chelsea().bytes).await;
    gateway.get("/images/a%2Fend").await;
    let read = |key: &str, kinds: &[&str]| -> Vec<(String, String)> {
        kinds.iter().map(|kind| ((*kind).to_owned(), key.to_owned())).collect()
    };
    let (stored, kept) = (["invalidated", "miss", "put"], ["invalidated", "miss", "put", "hit"]);
    let expected = [read("a/cat", &kept), read("b", &kept), read("a/end", &stored)].concat();
    assert_eq!(seen_until(&mut all, "put", "a/end").await, expected);
    let expected = [read("a/cat", &["put", "hit"]), read("a/end", &["put"])].concat();
    assert_eq!(seen_until(&mut some, "put", "a/end").await, expected);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_of_the_near_cache_are_seen_too_and_the_rate_falls_to_none() {
    let (_scene, _worker, gateway) = Scene::running().await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    let mut reader = watch(&gateway, "?kinds=hit").await;
    eventually("a near hit", PATIENCE, async || {
        gateway.get("/images/cat").await.cache() == "hit; detail=near"
    })
    .await;
    let mut near = false;
    let mut rate = 0.0;
    while !near || rate > 0.0 {
        let batch = reader.next_of("keys").await;
        near |= batch["events"].as_array().unwrap().iter().any(|event| event["near"] == true);
        rate = batch["rate_per_s"].as_f64().unwrap();
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_unless_somebody_looks() {
    let (scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    let operator = scene.nats.connect("operator").await;
    let mut events = operator.subscribe(subject::ALL_KEY_EVENTS).await.unwrap();
    operator.flush().await.unwrap();
    gateway.get("/images/unseen").await;
    let reader = watch(&gateway, "?kinds=miss").await;
    gateway.get("/images/seen").await;
    let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert_eq!(event.subject.as_str(), "cache.event.key.miss.seen");
    drop(reader);
    // The last watch runs out, and is not asked for again.
    eventually("nothing is published", PATIENCE, async || {
        gateway.get("/images/again").await;
        timeout(Duration::from_millis(100), events.next()).await.is_err()
    })
    .await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_is_told_when_no_worker_publishes_and_when_another_one_does() {
    let (scene, worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    let mut reader = Reader::open(&gateway, "/events/keys").await;
    let first = loop {
        let watching = reader.next_of("watch").await;
        if watching["watching"] == true {
            break watching;
        }
    };
    assert_eq!((&first["worker"], &first["max_per_second"]), (&"memcache-1".into(), &5000.into()));
    drop(worker);
    let none = reader.next_of("watch").await;
    assert_eq!(none["watching"], false);
    assert!(none["reason"].as_str().unwrap().contains("can't be reached"), "{none}");
    let _worker = scene.start_worker().await;
    while reader.next_of("watch").await["incarnation"]
        .as_str()
        .is_none_or(|life| first["incarnation"] == life)
    {}
    gateway.get("/images/nobody").await;
    assert_eq!(seen_until(&mut reader, "miss", "nobody").await.len(), 1);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_a_few_small_batches_and_a_slow_reader_is_told_what_he_lost() {
    let (scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    // Key events by hand, as fast as they come: no worker holds back here.
    let worker = scene.nats.connect("memcache_own").await;
    let mut reader = watch(&gateway, "").await;
    let mut slow = watch(&gateway, "").await;
    let event = serde_json::json!({
        "kind": "put", "key": "k".repeat(255), "bytes": 1, "worker": "w", "time": "2026-01-02T03:04:05Z", "dropped_count": 0,
    })
    .to_string();
    let (mut counted, mut lost) = (0, 0);
    let mut sent = 0;
    while lost == 0 {
        for _ in 0..20_000 {
            worker
                .publish(format!("cache.event.key.put.{}", "k".repeat(255)), event.clone().into())
                .await
                .unwrap();
        }
        worker.flush().await.unwrap();
        sent += 20_000;
        let batch = reader.next_of("keys").await;
        assert!(batch["events"].as_array().unwrap().len() <= 50);
        counted += batch["counts"]["put"].as_u64().unwrap();
        lost = batch["dropped_by_gateway"].as_u64().unwrap();
    }
    assert!(counted + lost <= sent, "{counted} + {lost} of {sent}");
    // What a reader who takes nothing is behind is bounded, and he is told of the rest.
    while slow.next_of("keys").await["dropped_by_gateway"] == 0 {}
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_filter_is_refused_with_what_is_one() {
    let (_scene, _worker, gateway) = Scene::running().await;
    for query in ["?kinds=", "?kinds=hit,,miss", "?kinds=got", "?kinds=hit&kinds=miss", "?kind=hit"] {
        assert_eq!(gateway.get(&format!("/events/keys{query}")).await.failure(), 400, "{query}");
    }
    let long = format!("/events/keys?prefix={}", "k".repeat(256));
    assert_eq!(gateway.get(&long).await.failure(), 400);
    let refused = gateway.get("/events/keys?kinds=got").await.text();
    assert!(refused.contains("evicted, invalidated"), "{refused}");
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_and_a_place_is_free_again_when_its_reader_leaves() {
    let (_scene, _worker, gateway) = Scene::running_with(&["--max-event-streams", "2"]).await;
    let first = Reader::open(&gateway, "/events/stats").await;
    let mut second = Reader::open(&gateway, "/events/stats").await;
    let refused = gateway.get("/events/stats").await;
    assert_eq!((refused.failure(), refused.header("retry-after")), (503, "1"));
    drop(first);
    eventually("a place is free", PATIENCE, async || gateway.get("/events/stats").await.status == 200).await;
    assert_eq!(second.next_of("bus").await["connected"], true);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_keeps_his_place_in_a_crowd_and_leaves_room_for_it() {
    let (scene, _worker, gateway) = Scene::running_with(&["--max-connections", "4"]).await;
    let mut readers =
        [Reader::open(&gateway, "/events/stats").await, Reader::open(&gateway, "/events/stats").await];
    // Half of the places are all that those who follow may take.
    assert_eq!(gateway.get("/events/stats").await.status, 503);
    let mut mute = Vec::new();
    for _ in 0..8 {
        mute.push(TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap());
        assert_eq!(gateway.get("/healthz").await.status, 200);
    }
    scene.configure(r#"{"capacity_mb":34}"#).await;
    for reader in &mut readers {
        assert_eq!(reader.next_of("configured").await["capacity_bytes"], 34 << 20);
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_ends_streams_at_once() {
    // A grace that no test would wait for.
    let (_scene, _worker, gateway) = Scene::running_with(&["--shutdown-grace-ms", "60000"]).await;
    let mut reader = Reader::open(&gateway, "/events/stats").await;
    assert_eq!(reader.next_of("bus").await["connected"], true);
    timeout(PATIENCE, gateway.stop()).await.expect("the stop does not wait for streams").unwrap();
    while reader.next().await.is_some() {}
    assert!(reader.received.ends_with("0\r\n\r\n"), "the stream ends whole: {:?}", reader.received);
}
