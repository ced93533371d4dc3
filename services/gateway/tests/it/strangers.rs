//! One stranger, by address, who takes as much as there is: nobody else is kept out.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use testkit::{MariaDb, eventually, samples};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::access::{BEARER, TOKEN};
use crate::events::Reader;
use crate::helpers::{Gateway, PATIENCE, Scene};
use crate::http::{self, HERE, STRANGER, connect_from};

const WRONG: (&str, &str) = ("Authorization", "Bearer wrong-horse-battery");

/// Deletes what is not there, which needs the token.
async fn try_token(gateway: &Gateway, address: Ipv4Addr, headers: &[(&str, &str)]) -> http::Answer {
    http::send_from(address, gateway.port, "DELETE", "/images/none", headers, b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_of_the_token_go_slowly_and_keep_nobody_else_out() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let gateway = scene.start_gateway(&["--admin-token", TOKEN]).await;
    let mut looked_at = 0;
    let began = Instant::now();
    for _ in 0..200 {
        let answer = try_token(&gateway, STRANGER, &[WRONG]).await;
        match answer.failure() {
            401 => looked_at += 1,
            429 => {
                assert!(matches!(answer.header("retry-after"), "1" | "2"), "{}", answer.header("retry-after"))
            }
            other => panic!("{other}"),
        }
    }
    let allowed = 10 + began.elapsed().as_secs() / 2 + 1;
    assert!(looked_at >= 10 && looked_at <= allowed, "{looked_at} of {allowed}");
    // Not even the right one, or the guesser would know it by that.
    while try_token(&gateway, STRANGER, &[WRONG]).await.status == 401 {}
    assert_eq!(try_token(&gateway, STRANGER, &[BEARER]).await.status, 429);
    // What needs no token is as before, and nobody else is slowed down.
    assert_eq!(
        http::send_from(STRANGER, gateway.port, "GET", "/api/images", &[WRONG], b"").await.status,
        200
    );
    assert_eq!(try_token(&gateway, STRANGER, &[]).await.status, 401);
    assert_eq!(try_token(&gateway, HERE, &[BEARER]).await.status, 404);
    // Later it is looked at again.
    eventually("a right token counts again", PATIENCE, async || {
        try_token(&gateway, STRANGER, &[BEARER]).await.status == 404
    })
    .await;
    // Who has had it lately is not locked out by a guesser at the same address.
    for _ in 0..50 {
        assert_eq!(try_token(&gateway, STRANGER, &[WRONG]).await.status, 401);
    }
    assert_eq!(try_token(&gateway, STRANGER, &[BEARER]).await.status, 404);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_that_is_trusted_each_client_is_one_of_its_own() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let gateway =
        scene.start_gateway(&["--admin-token", TOKEN, "--trusted-proxies", "127.0.0.1,10.0.0.0/8"]).await;
    let from = |address: &'static str| ("X-Forwarded-For", address);
    // It makes up addresses of its own, in front of what the proxies add.
    let mut refused = false;
    for number in 0..30 {
        let forwarded = format!("192.0.2.{number}, 203.0.113.7, 10.1.2.3");
        let answer = try_token(&gateway, HERE, &[WRONG, ("X-Forwarded-For", &forwarded)]).await;
        refused |= answer.status == 429;
    }
    assert!(refused);
    assert_eq!(try_token(&gateway, HERE, &[BEARER, from("203.0.113.8")]).await.status, 404);
    // Who is no proxy of ours may say what he likes.
    let mut refused = false;
    for number in 0..30 {
        let forwarded = format!("192.0.2.{number}");
        refused |=
            try_token(&gateway, STRANGER, &[WRONG, ("X-Forwarded-For", &forwarded)]).await.status == 429;
    }
    assert!(refused);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_of_one_address_give_way_to_those_of_others() {
    let (_scene, _worker, gateway) = Scene::running_with(&["--max-event-streams", "6"]).await;
    let mut greedy = Vec::new();
    for number in 0..6 {
        let path = if number % 2 == 0 { "/events/stats" } else { "/events/keys" };
        greedy.push(Reader::open_from(STRANGER, &gateway, path, "").await);
    }
    let mut honest = Vec::new();
    for path in ["/events/stats", "/events/keys"] {
        honest.push(Reader::open_from(HERE, &gateway, path, "").await);
    }
    // The oldest are told why, and their streams end whole.
    for reader in &mut greedy[..2] {
        let told = reader.next_of("gave_way").await;
        assert!(told["reason"].as_str().unwrap().contains("MAX_EVENT_STREAMS"), "{told}");
        assert_eq!(reader.next().await, None);
    }
    assert_eq!(greedy[2].next_of("bus").await["connected"], true);
    assert_eq!(honest[0].next_of("bus").await["connected"], true);
    honest[1].next_of("watch").await;
    // Further ones of its own only take turns, and not at once.
    let refused = http::send_from(STRANGER, gateway.port, "GET", "/events/stats", &[], b"").await;
    assert_eq!((refused.failure(), refused.header("retry-after")), (503, "1"));
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_through_a_proxy_are_shared_out_among_its_clients() {
    let flags = ["--max-event-streams", "4", "--trusted-proxies", "127.0.0.1"];
    let (_scene, _worker, gateway) = Scene::running_with(&flags).await;
    let mut greedy = Vec::new();
    for _ in 0..4 {
        greedy
            .push(Reader::open_from(HERE, &gateway, "/events/stats", "X-Forwarded-For: 192.0.2.1\r\n").await);
    }
    let mut other =
        Reader::open_from(HERE, &gateway, "/events/stats", "X-Forwarded-For: 192.0.2.2\r\n").await;
    assert_eq!(other.next_of("bus").await["connected"], true);
    greedy[0].next_of("gave_way").await;
    gateway.stop().await.unwrap();
}

/// An upload that has its turn and sends no more.
async fn begin_upload(gateway: &Gateway, address: Ipv4Addr) -> Option<TcpStream> {
    let mut stream = connect_from(address, gateway.port).await.ok()?;
    let head = "PUT /images/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut status = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut status)).await.expect("an answer or an end").ok()?;
    (&status == b"HTTP/1.1 100").then_some(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_that_keeps_every_connection_busy_keeps_nobody_out() {
    let (_scene, _worker, gateway) = Scene::running_with(&["--max-connections", "32"]).await;
    let mut busy = Vec::new();
    for _ in 0..20 {
        busy.push(begin_upload(&gateway, STRANGER).await.unwrap());
    }
    // And takes the remaining ones by following.
    for _ in 0..12 {
        let mut stream = connect_from(STRANGER, gateway.port).await.unwrap();
        stream.write_all(b"GET /events/stats HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
        busy.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(gateway.get("/healthz").await.status, 200);
        assert_eq!(gateway.put("/images/cat", samples::chelsea().bytes).await.status / 100, 2);
    }
    // Its own further ones are turned away, unless one of its own is idle.
    while let Some(stream) = begin_upload(&gateway, STRANGER).await {
        busy.push(stream);
        assert!(busy.len() < 100);
    }
    assert_eq!(gateway.get("/healthz").await.status, 200);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_that_uploads_without_end_leaves_turns_to_others() {
    let (_scene, _worker, gateway) = Scene::running_with(&["--max-requests", "8"]).await;
    let mut busy = Vec::new();
    while let Some(stream) = begin_upload(&gateway, STRANGER).await {
        busy.push(stream);
        assert!(busy.len() <= 8);
    }
    assert_eq!(busy.len(), 6);
    assert_eq!(gateway.put("/images/cat", samples::chelsea().bytes).await.status, 201);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_whose_reads_all_wait_for_the_origin_leaves_places_there_to_others() {
    let server = MariaDb::start().await;
    let database = server.database().await;
    database.migrate().await;
    let scene = Scene::with(database).await;
    let gateway = scene.start_gateway(&["--max-requests", "20"]).await;
    gateway.put("/images/cold", samples::chelsea().bytes).await;
    server.pause().await;
    let port = gateway.port;
    let greedy: Vec<_> = (0..40)
        .map(|_| {
            tokio::spawn(async move {
                loop {
                    let answer = http::send_from(STRANGER, port, "GET", "/images/cold", &[], b"").await;
                    assert_eq!(answer.status, 503, "{}", answer.text());
                    sleep(Duration::from_millis(20)).await;
                }
            })
        })
        .collect();
    eventually("the stranger has all that it may have", PATIENCE, async || {
        let answer = http::send_from(STRANGER, port, "GET", "/images/cold", &[], b"").await;
        answer.text().contains("MAX_REQUESTS")
    })
    .await;
    for _ in 0..3 {
        let began = Instant::now();
        let answer = gateway.get("/images/cold").await;
        // It waits for the origin as anybody, and is not turned away.
        assert_eq!(answer.failure(), 503);
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}: {}", began.elapsed(), answer.text());
    }
    assert!(greedy.iter().all(|greedy| !greedy.is_finished()));
    for greedy in &greedy {
        greedy.abort();
    }
    server.resume().await;
    gateway.stop().await.unwrap();
}
