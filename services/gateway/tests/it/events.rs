//! Streams of events: what those see who follow, and that they cost others nothing.

use serde_json::Value;
use testkit::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::subject;

use crate::helpers::{Gateway, PATIENCE, Scene};

/// Somebody who follows.
struct Reader {
    stream: TcpStream,
    received: String,
}

impl Reader {
    async fn open(gateway: &Gateway, path: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
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
    async fn next(&mut self) -> Option<(String, Value)> {
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
    async fn next_of(&mut self, name: &str) -> Value {
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
