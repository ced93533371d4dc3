//! Whatever comes in is answered with the right code and a sentence, in the shape of its interface, and
//! changes nothing.

use serde_json::json;
use testkit::samples;
use wire::{Meta, subject};

use crate::helpers::{PATIENCE, Scene, key};
use crate::http::Form;

/// A PNG whose header claims 60,000 × 60,000 pixels, with the checksum that belongs to it.
fn huge() -> Vec<u8> {
    let mut png = samples::chelsea().bytes.to_vec();
    png[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    png[29..33].copy_from_slice(&0x0fb0_e215_u32.to_be_bytes());
    png
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_image_are_refused_wherever_they_come_in() {
    let (scene, _worker, gateway) = Scene::running().await;
    let chelsea = samples::chelsea().bytes;
    let jpeg = samples::rocket().bytes;
    let mut corrupt = chelsea.to_vec();
    corrupt[12] ^= 1;
    let cases: [(&str, &[u8], u16); 8] = [
        ("nothing", b"", 422),
        ("text named .png", b"hello, this is text", 415),
        ("an SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        ("a truncated PNG", &chelsea[..chelsea.len() / 2], 422),
        ("a JPEG that is cut off before its picture", &jpeg[..300], 422),
        ("a PNG without a header", &corrupt, 422),
        ("a PNG that claims 3.6 gigapixels", &huge(), 413),
        ("an archive", b"PK\x03\x04\x00\x00\x00\x00", 415),
    ];
    for (what, bytes, expected) in cases {
        assert_eq!(gateway.put("/images/cat.png", bytes).await.failure(), expected, "{what} as a body");
        let form = Form::new().key("cat.png").part_with(
            "name=\"file\"; filename=\"cat.png\"",
            "Content-Type: image/png\r\n",
            bytes,
        );
        assert_eq!(gateway.upload(form).await.failure(), expected, "{what} in a form");
    }
    assert_eq!(gateway.post("/api/list_keys").await.json()["keys"], json!([]));
    testkit::eventually("refused uploads leave no file", PATIENCE, async || scene.file_count() == 0).await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_picture_is_stored_whatever_follows_it() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let (png, jpeg) = (samples::chelsea().bytes, samples::rocket().bytes);
    let mut corrupt = png.to_vec();
    corrupt[1000] ^= 1;
    for (what, bytes) in [
        ("a PNG without its end", &png[..png.len() - 12]),
        ("a PNG with a wrong checksum", &corrupt),
        ("a JPEG without its end", &jpeg[..jpeg.len() - 2]),
        ("a JPEG with a maker's trailer", &[jpeg, b"\xff\xd8SEFH"].concat()),
    ] {
        gateway.put("/images/odd", bytes).await;
        let read = gateway.get("/images/odd").await;
        assert!(read.status == 200 && read.body == bytes, "{what}: {}", read.text());
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_refused_by_every_route() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let image = samples::chelsea().bytes;
    let long = "x".repeat(256);
    for bad in [
        "", ".", "..", "%2e%2E", "%00", "a%0Ab", "a%7Fb", "%C2%85", "%FF", "a%C3", "a%2", "%zz", "%20a",
        "a%20", &long,
    ] {
        for (method, prefix) in [
            ("GET", "/images/"),
            ("HEAD", "/images/"),
            ("DELETE", "/images/"),
            ("GET", "/api/images/"),
            ("POST", "/api/key/"),
        ] {
            let answer = gateway.send(method, &format!("{prefix}{bad}"), &[], b"").await;
            assert_eq!(answer.status, 400, "{method} {prefix}{bad}");
            if method != "HEAD" {
                answer.failure();
            }
        }
        assert_eq!(gateway.put(&format!("/images/{bad}"), image).await.failure(), 400, "{bad}");
    }
    let in_form: [&[u8]; 9] = [b"", b".", b"..", b" a", b"a\t", b"a\nb", b"\xff", b"\0", long.as_bytes()];
    for bad in in_form {
        let form = Form::new().part("name=\"key\"", bad).file(image);
        assert_eq!(gateway.upload(form).await.failure(), 400, "{:?}", String::from_utf8_lossy(bad));
        let form = Form::new().file(image).part("name=\"key\"", bad);
        assert_eq!(gateway.upload(form).await.failure(), 400, "{:?}", String::from_utf8_lossy(bad));
    }
    assert_eq!(gateway.post("/api/list_keys").await.json()["keys"], json!([]));
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_are_not_understood_are_refused_and_say_why() {
    let (scene, _worker, gateway) = Scene::running().await;
    let image = samples::chelsea().bytes;
    let says = async |form: Form, words: &str| {
        let answer = gateway.upload(form).await;
        assert_eq!(answer.failure(), 400, "{words}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{message}");
    };
    says(Form::new().key("a"), r#"the form must have the part "file", got none"#).await;
    says(Form::new().file(image), r#"the form must have the part "key", got none"#).await;
    says(Form::new(), "got none").await;
    says(Form::new().key("a").key("b").file(image), r#"the part "key" must be sent once, got it twice"#)
        .await;
    says(Form::new().key("a").file(image).file(image), r#"the part "file" must be sent once, got it twice"#)
        .await;
    says(Form::new().part("nam=\"key\"", b"a").file(image), r#"the form must have the part "key", got none"#)
        .await;

    let post = async |content_type: &str, body: &[u8]| {
        gateway.send("POST", "/api/upload", &[("Content-Type", content_type)], body).await.failure()
    };
    let form_type = Form::content_type();
    assert_eq!(post("application/json", b"{}").await, 415);
    assert_eq!(post("image/png", image).await, 415);
    assert_eq!(post("multipart/form-data", b"").await, 400);
    assert_eq!(post(&form_type, b"not a form at all").await, 400);
    assert_eq!(post(&form_type, &Form::new().key("a").file(image).unfinished()).await, 400);
    assert_eq!(gateway.send("POST", "/api/upload", &[], b"").await.failure(), 415);
    testkit::eventually("refused uploads leave no file", PATIENCE, async || scene.file_count() == 0).await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_methods_and_parameters_that_do_not_exist_are_refused() {
    let (_scene, _worker, gateway) = Scene::running().await;
    for path in ["/api", "/api/", "/api/nothing", "/images", "/api/cache/", "/api/upload/x"] {
        assert_eq!(gateway.get(path).await.failure(), 404, "{path}");
    }
    for (method, path, allow) in [
        ("GET", "/api/upload", "POST"),
        ("GET", "/api/list_keys", "POST"),
        ("DELETE", "/api/delete_all", "POST"),
        ("PUT", "/api/key/cat", "POST"),
        ("POST", "/images/cat", "GET, HEAD, PUT, DELETE"),
        ("PATCH", "/images/cat", "GET, HEAD, PUT, DELETE"),
        ("POST", "/api/images", "GET, HEAD"),
        ("POST", "/api/stats", "GET, HEAD"),
        ("DELETE", "/api/cache", "GET, HEAD, PUT"),
        ("GET", "/api/cache/clear", "POST"),
        ("POST", "/metrics", "GET, HEAD"),
        ("BREW", "/healthz", "GET, HEAD"),
    ] {
        let answer = gateway.send(method, path, &[], b"").await;
        assert_eq!(answer.failure(), 405, "{method} {path}");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.ends_with(&format!(", got {method}")), "{message}");
        assert!(allow.split(", ").all(|allowed| message.contains(allowed)), "{message}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    // Elsewhere people are addressed.
    let page = gateway.get("/nothing").await;
    assert_eq!(page.status, 404);
    assert!(page.header("content-type").starts_with("text/html"));
    for path in ["/static/%a0", "/static/nothing", "/static/%2e%2e/layout.html"] {
        let page = gateway.get(path).await;
        assert_eq!(page.status, 404, "{path}");
        assert!(page.header("content-type").starts_with("text/html"), "{path}: {}", page.text());
    }
    let page = gateway.delete("/keys_list").await;
    assert_eq!(page.status, 405);
    assert!(page.header("content-type").starts_with("text/html"), "{}", page.text());

    let said = async |path: &str| {
        gateway.get(path).await.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
    };
    for (path, sentence) in [
        ("/images/cat?w=7", r#"w must be 160, 320, 640 or 1280, got "7""#),
        ("/api/stats?format=xml", r#"format must be json or csv, got "xml""#),
        ("/api/stats?foo=1", r#"a query parameter must be range, step or format, got "foo""#),
        ("/api/images/cat?w=7", r#"this address must have no query parameter, got "w""#),
        ("/api/cache?x", r#"this address must have no query parameter, got "x""#),
        ("/events/stats?x=1", r#"this address must have no query parameter, got "x""#),
        ("/api/images?limit=x", r#"limit must be a whole number from 1 to 1000, got "x""#),
        (
            "/events/keys?kinds=hit,x",
            "a kind in kinds must be hit, miss, put, evicted, invalidated or rejected, got \"x\"",
        ),
        ("/api/nothing", r#"there is no page or resource at "/api/nothing""#),
    ] {
        assert_eq!(said(path).await, sentence);
    }
    // Caches and trackers add parameters of their own to the addresses of images.
    let image = samples::chelsea().bytes;
    for (method, body, status) in
        [("PUT", image, 201), ("GET", &[], 200), ("HEAD", &[], 200), ("DELETE", &[], 204)]
    {
        let answer = gateway.send(method, "/images/tracked?utm_source=mail&_=1&w1=7", &[], body).await;
        assert_eq!(answer.status, status, "{method}");
        assert_eq!(gateway.send(method, "/images/tracked?w=7", &[], body).await.status, 400, "{method}");
    }
    for path in [
        "/api/images?limit=0",
        "/api/images?limit=1001",
        "/api/images?limit=-1",
        "/api/images?limit=ten",
        "/api/images?limit=99999999999999999999",
        "/api/images?limt=10",
        "/api/images?limit=1&limit=2",
        "/api/stats?range=soon",
        "/api/stats?range=0s",
        "/api/stats?range=10m&step=-1s",
        "/api/stats?rnage=10m",
    ] {
        assert_eq!(gateway.get(path).await.failure(), 400, "{path}");
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_the_cache_does_not_allow_are_named_and_change_nothing() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let before = gateway.get("/api/cache").await.json();
    let put = async |content_type: &str, body: &str| {
        gateway.send("PUT", "/api/cache", &[("Content-Type", content_type)], body.as_bytes()).await
    };
    for (change, named) in [
        (r#"{"capacity_mb":0}"#, "three quarters of this machine's memory), got 0"),
        (r#"{"capacity_mb":-1}"#, "-1"),
        (r#"{"capacity_mb":1e12}"#, "1000000000000"),
        (r#"{"capacity_mb":"abc"}"#, "abc"),
        (r#"{"policy":"mru"}"#, "mru"),
        (r#"{"capacity_mb":1,"policy":"mru"}"#, "mru"),
        (r#"{"capacity":1}"#, "capacity"),
        ("{}", "must have capacity_mb, policy or both, got neither"),
        ("[1]", "JSON object"),
        ("hello", "JSON object"),
        ("", "JSON object"),
    ] {
        let answer = put("application/json", change).await;
        assert_eq!(answer.failure(), 400, "{change}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(named), "{message}");
    }
    assert_eq!(put("text/plain", r#"{"capacity_mb":1}"#).await.failure(), 415);
    let long = format!(r#"{{"policy":"lru","by":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(put("application/json", &long).await.failure(), 413);
    assert_eq!(gateway.get("/api/cache").await.json(), before);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_beyond_all_dates_is_no_reason_to_break_off() {
    let (scene, _worker, gateway) = Scene::running().await;
    let image = samples::chelsea().bytes;
    assert_eq!(gateway.put("/images/cat", image).await.status, 201);
    let date = "Tue, 14 Nov 2023 22:13:20 GMT";
    for modified_s in [i64::MAX, 253_402_300_800, -1, i64::MIN] {
        // As somebody at the bus puts it, who may claim any time.
        let claimed = Meta { modified_s: Some(modified_s), ..Meta::default() };
        let subject = subject::put(&key("cat").into());
        scene.asker.request(subject, Some(&claimed), image.into(), PATIENCE).await.unwrap();
        for header in ["If-Modified-Since", "If-Unmodified-Since", "If-Range"] {
            let headers = [(header, date), ("Range", "bytes=0-9")];
            let answer = gateway.send("GET", "/images/cat", &headers, b"").await;
            assert!(
                [200, 206, 304, 412].contains(&answer.status),
                "{header} {modified_s}: {}",
                answer.status
            );
            assert_eq!(answer.is_hit(), answer.status != 412, "{}", answer.cache());
        }
        let page = gateway.get("/image?key=cat").await;
        assert_eq!(page.status, 200, "{modified_s}: {}", page.text());
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_web_sites_may_look_and_change_nothing() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let image = samples::chelsea().bytes;
    let foreign = [("Sec-Fetch-Site", "cross-site")];
    assert_eq!(gateway.send("PUT", "/images/cat", &foreign, image).await.failure(), 403);
    assert_eq!(gateway.put("/images/cat", image).await.status, 201);
    for (method, path) in [
        ("DELETE", "/images/cat"),
        ("POST", "/api/delete_all"),
        ("POST", "/api/cache/clear"),
        ("PUT", "/api/cache"),
    ] {
        assert_eq!(gateway.send(method, path, &foreign, b"").await.failure(), 403, "{method} {path}");
        let older = [("Origin", "http://evil.example")];
        assert_eq!(gateway.send(method, path, &older, b"").await.failure(), 403, "{method} {path}");
    }
    assert_eq!(gateway.send("GET", "/images/cat", &foreign, b"").await.status, 200);
    let own = format!("http://127.0.0.1:{}", gateway.port);
    let same = [("Sec-Fetch-Site", "same-origin"), ("Origin", &*own)];
    assert_eq!(gateway.send("DELETE", "/images/cat", &same, b"").await.status, 204);
    gateway.stop().await.unwrap();
}
