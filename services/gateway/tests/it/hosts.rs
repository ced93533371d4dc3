//! Under which names the gateway answers: no web page reaches it under one of its own.

use testkit::{eventually, free_port, samples};

use crate::access::{BEARER, METHODS, TOKEN, body_for, routes, snapshot};
use crate::helpers::{Gateway, PATIENCE, Scene};
use crate::http::{self, Answer};

/// Sends a head as it is, with or without a body behind it.
async fn raw(gateway: &Gateway, method: &str, head: &str, body: &[u8]) -> Answer {
    let mut bytes = format!("{head}Connection: close\r\n").into_bytes();
    if !body.is_empty() {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    http::exchange(gateway.port, method, &bytes).await
}

async fn get(gateway: &Gateway, path: &str, host: &str) -> Answer {
    raw(gateway, "GET", &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n"), b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_under_a_name_of_its_own_reads_nothing_and_changes_nothing() {
    let (scene, _worker, gateway) = Scene::running().await;
    let cat = samples::chelsea().bytes;
    assert_eq!(gateway.put("/images/cat", cat).await.status, 201);
    eventually("a near hit", PATIENCE, async || {
        gateway.get("/images/cat").await.cache() == "hit; detail=near"
    })
    .await;
    let before = snapshot(&scene).await;
    let evil = format!("rebound.example:{}", gateway.port);
    for route in routes(&gateway).await {
        for method in METHODS {
            let (content_type, body) = body_for(method, &route.route);
            let path = &route.path;
            let head =
                format!("{method} {path} HTTP/1.1\r\nHost: {evil}\r\nContent-Type: {content_type}\r\n");
            let answer = raw(&gateway, method, &head, &body).await;
            assert_eq!(answer.status, 421, "{method} {path}");
            assert!(answer.complete, "{method} {path}");
            assert!(answer.header("content-security-policy").contains("default-src 'none'"));
            if method != "HEAD" {
                let text = answer.text();
                assert!(
                    text.contains("ALLOWED_HOSTS") && text.contains("rebound.example"),
                    "{method} {path}: {text}"
                );
            }
        }
    }
    // What its target names counts, whatever stands in Host.
    let port = gateway.port;
    for (target, host, status) in [
        ("http://rebound.example/images/cat", "localhost", 421),
        ("http://127.0.0.1/images/cat", "rebound.example", 200),
        ("HTTP://LOCALHOST:1/images/cat", "", 200),
        ("http://127.0.0.1@rebound.example/images/cat", "localhost", 400),
    ] {
        assert_eq!(get(&gateway, target, host).await.status, status, "{target} {host}");
    }
    let connect =
        raw(&gateway, "CONNECT", "CONNECT rebound.example:80 HTTP/1.1\r\nHost: localhost\r\n", b"").await;
    assert_eq!(connect.status, 421);
    for hosts in
        ["", "Host: localhost\r\nHost: localhost\r\n", "Host: localhost\r\nHost: rebound.example\r\n"]
    {
        for path in ["/images/cat", "/api/images", "/", "/healthz"] {
            let answer = raw(&gateway, "GET", &format!("GET {path} HTTP/1.1\r\n{hosts}"), b"").await;
            assert_eq!(answer.status, 400, "{path} {hosts:?}");
            assert!(answer.text().contains("Host must be given once"), "{}", answer.text());
        }
    }
    for host in ["user@127.0.0.1", "a b", "127.0.0.1:99999", "[::1", "\u{e9}"] {
        assert_eq!(get(&gateway, "/images/cat", host).await.status, 400, "{host}");
    }
    assert_eq!(raw(&gateway, "GET", "GET /images/cat HTTP/1.0\r\n", b"").await.status, 200);
    assert_eq!(
        raw(&gateway, "GET", "GET /images/cat HTTP/1.0\r\nHost: rebound.example\r\n", b"").await.status,
        421
    );
    for ours in
        [&format!("127.0.0.1:{port}"), "localhost", "LOCALHOST.:80", "[::1]:1", "10.9.8.7", "[fe80::1%25lo]"]
    {
        let answer = get(&gateway, "/images/cat", ours).await;
        assert_eq!((answer.status, &*answer.body), (200, cat), "{ours}");
    }
    assert!(
        gateway
            .metric("pixcache_http_requests_total{method=\"GET\",route=\"/images/{*key}\",status=\"421\"}")
            .await
            > 0.0
    );
    assert_eq!(snapshot(&scene).await, before);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_uploads_to_a_wrong_name_reads_why() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let body = vec![7; 8 << 20];
    let head = "PUT /images/cat HTTP/1.1\r\nHost: images.example.com\r\n";
    let answer = raw(&gateway, "PUT", head, &body).await;
    assert_eq!(answer.failure(), 421);
    assert!(answer.text().contains("ALLOWED_HOSTS"), "{}", answer.text());
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_its_own_are_set() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let gateway = scene.start_gateway(&["--allowed-hosts", "images.example.com, *.example.org"]).await;
    for (host, status) in [
        ("images.example.com", 200),
        ("IMAGES.example.com.:8443", 200),
        ("a.example.org", 200),
        ("localhost", 200),
        ("example.org", 421),
        ("example.com", 421),
        ("images.example.com.rebound.example", 421),
    ] {
        assert_eq!(get(&gateway, "/api/images", host).await.status, status, "{host}");
    }
    // Browsers leave the usual ports out, proxies may not.
    for (origin, host, status) in [
        ("https://images.example.com", "images.example.com:443", 404),
        ("http://images.example.com", "images.example.com:80", 404),
        ("https://images.example.com", "images.example.com", 404),
        ("https://images.example.com:8443", "images.example.com", 403),
        ("https://rebound.example", "images.example.com", 403),
    ] {
        let head = format!("DELETE /images/none HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n");
        assert_eq!(raw(&gateway, "DELETE", &head, b"").await.status, status, "{origin} {host}");
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_any_name_will_do_unless_names_are_set() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let any = scene.start_gateway(&["--admin-token", TOKEN]).await;
    assert_eq!(get(&any, "/api/images", "rebound.example").await.status, 200);
    // Such a page has no token.
    let delete = "DELETE /images/none HTTP/1.1\r\nHost: rebound.example\r\n";
    assert_eq!(raw(&any, "DELETE", delete, b"").await.status, 401);
    assert_eq!(raw(&any, "GET", "GET / HTTP/1.1\r\n", b"").await.status, 400);
    any.stop().await.unwrap();
    let some = scene.start_gateway(&["--admin-token", TOKEN, "--allowed-hosts", "images.example.com"]).await;
    assert_eq!(get(&some, "/api/images", "images.example.com").await.status, 200);
    assert_eq!(get(&some, "/api/images", "rebound.example").await.status, 421);
    let known = format!("{delete}{}: {}\r\n", BEARER.0, BEARER.1);
    assert_eq!(raw(&some, "DELETE", &known, b"").await.status, 421);
    some.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_has_just_started_answers_to_no_other_name_either() {
    let scene = Scene::new().await;
    let nowhere = free_port().to_string();
    let gateway = scene.spawn_gateway(&["--nats-port", &nowhere]).await;
    for path in ["/healthz", "/readyz", "/", "/images/cat"] {
        assert_eq!(get(&gateway, path, "rebound.example").await.status, 421, "{path}");
        assert_eq!(
            raw(&gateway, "GET", &format!("GET {path} HTTP/1.1\r\n"), b"").await.status,
            400,
            "{path}"
        );
    }
    assert_eq!(get(&gateway, "/healthz", "localhost").await.status, 200);
    gateway.crash().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_show_the_images_is_set() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let cat = samples::chelsea().bytes;
    for (flags, images) in [
        (&[][..], "same-origin"),
        (&["--image-embedding", "same-site"][..], "same-site"),
        (&["--image-embedding", "cross-origin"][..], "cross-origin"),
    ] {
        let gateway = scene.start_gateway(flags).await;
        assert_eq!(gateway.put("/images/cat", cat).await.status / 100, 2);
        let tag = gateway.get("/images/cat").await.header("etag").to_owned();
        eventually("a near hit", PATIENCE, async || {
            gateway.get("/images/cat").await.cache() == "hit; detail=near"
        })
        .await;
        let policy = "cross-origin-resource-policy";
        for (headers, status) in
            [(&[][..], 200), (&[("Range", "bytes=0-9")][..], 206), (&[("If-None-Match", &*tag)][..], 304)]
        {
            for path in ["/images/cat", "/images/%63at"] {
                let answer = gateway.send("GET", path, headers, b"").await;
                assert_eq!((answer.status, answer.header(policy)), (status, images), "{path} {flags:?}");
            }
        }
        let variant = gateway.get("/images/cat?w=160").await;
        assert_eq!((variant.status, variant.header(policy)), (200, images));
        assert_eq!(gateway.send("HEAD", "/images/cat", &[], b"").await.header(policy), images);
        for path in ["/", "/api/images", "/healthz", "/static/css/pixcache.css", "/nothing", "/metrics"] {
            assert_eq!(gateway.get(path).await.header(policy), "same-origin", "{path}");
        }
        assert_eq!(gateway.post("/api/key/cat").await.header(policy), "same-origin");
        gateway.stop().await.unwrap();
    }
}
