//! The JSON API as existing clients use it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use testkit::{MariaDb, samples};

use crate::helpers::Scene;
use crate::http::Form;

/// The smallest images of the two types that are not among the samples.
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";
const WEBP: &[u8] =
    b"RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00";

#[tokio::test(flavor = "multi_thread")]
async fn existing_clients_upload_list_read_and_delete() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let empty = gateway.post("/api/list_keys").await;
    assert_eq!(empty.json(), json!({"success": "true", "keys": []}));

    let images = [
        ("rocket", samples::rocket().bytes),
        ("chelsea", samples::chelsea().bytes),
        ("a gif", GIF),
        ("webp/one", WEBP),
    ];
    for (key, bytes) in images {
        let answer = gateway.upload(Form::new().key(key).file(bytes)).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"success": "true", "key": key})));
    }
    let list = gateway.post("/api/list_keys").await;
    assert_eq!(list.json(), json!({"success": "true", "keys": ["a gif", "chelsea", "rocket", "webp/one"]}));
    assert!(list.complete);

    for (key, bytes) in images {
        let path = format!("/api/key/{}", key.replace(' ', "%20"));
        for is_first in [true, false] {
            let answer = gateway.post(&path).await;
            let is_expected =
                if is_first { answer.cache() == "fwd=miss; detail=filling" } else { answer.is_hit() };
            assert!(is_expected, "{key}: {}", answer.cache());
            let content = BASE64.encode(bytes);
            assert_eq!(answer.json(), json!({"success": "true", "key": key, "content": content}));
        }
    }
    let missing = gateway.post("/api/key/nobody").await;
    assert_eq!(missing.failure(), 404);

    let deleted = gateway.post("/api/delete_all").await;
    assert_eq!((deleted.status, deleted.json()), (200, json!({"success": "true"})));
    assert_eq!(gateway.post("/api/list_keys").await.json(), json!({"success": "true", "keys": []}));
    assert_eq!(gateway.post("/api/key/rocket").await.failure(), 404);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_form_may_come_in_any_order_and_without_names_or_types() {
    let (scene, _worker, gateway) = Scene::running().await;
    let bytes = samples::chelsea().bytes;
    let forms = [
        ("one", Form::new().key("one").file(bytes)),
        ("two", Form::new().file(bytes).key("two")),
        ("three", Form::new().key("three").part("name=\"file\"", bytes)),
        ("four", Form::new().part("name=file", bytes).part("name=key", b"four")),
        (
            "fünf",
            Form::new().key("fünf").part_with(
                "name=\"file\"; filename=\"x.txt\"",
                "Content-Type: text/plain\r\n",
                bytes,
            ),
        ),
        // What pages add of their own is not looked at.
        (
            "eight",
            Form::new()
                .part("name=\"csrf_token\"", b"x7")
                .part("name=\"_charset_\"", b"utf-8")
                .key("eight")
                .part("name=\"also\"; filename=\"a.bin\"", &[0; 100_000])
                .file(bytes)
                .part("", b"")
                .part("name=\"submit\"", b"Send"),
        ),
    ];
    for (key, form) in forms {
        let answer = gateway.upload(form).await;
        assert_eq!(answer.json(), json!({"success": "true", "key": key}));
    }
    // The same fields in the query string are not looked at.
    let form = Form::new().key("six").file(bytes).bytes();
    let content_type = Form::content_type();
    let answer =
        gateway.send("POST", "/api/upload?key=seven&file=x", &[("Content-Type", &content_type)], &form).await;
    assert_eq!(answer.json(), json!({"success": "true", "key": "six"}));
    assert_eq!(scene.file_count(), 7);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_byte_for_byte_in_pages_of_any_size() {
    let (scene, _worker, gateway) = Scene::running().await;
    // More than one question to MySQL returns.
    let mut expected: Vec<String> = (0..2500).map(|number| format!("many/{number:05}")).collect();
    expected.extend(["Cat", "cat", "cät", "cat ", "猫"].map(|key| key.trim().to_owned()));
    expected.sort();
    expected.dedup();
    for (at, key) in expected.iter().enumerate() {
        sqlx::query(
            "INSERT INTO images VALUES (?, ?, 'image/png', 1, 1, 1, REPEAT('x', 32), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
        )
        .bind(key.as_bytes())
        .bind(format!("no/file/{at}"))
        .execute(&scene.pool)
        .await
        .unwrap();
    }
    let list = gateway.post("/api/list_keys").await;
    assert_eq!(list.json(), json!({"success": "true", "keys": expected}));

    for limit in [1, 7, 1000] {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let page = gateway.get(&format!("/api/images?prefix=many/000&limit={limit}{after}")).await.json();
            let keys = page["images"].as_array().unwrap().iter().map(|image| image["key"].clone());
            found.extend(keys);
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        let with_prefix: Vec<&String> = expected.iter().filter(|key| key.starts_with("many/000")).collect();
        assert_eq!(json!(found), json!(with_prefix), "{limit}");
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_read_changed_and_cleared_over_http() {
    let (scene, _worker, gateway) = Scene::running().await;
    let config = gateway.get("/api/cache").await.json();
    assert_eq!((&config["capacity_mb"], &config["policy"]), (&json!(64), &json!("lru")));
    let json_body = [("Content-Type", "application/json")];
    let changed =
        gateway.send("PUT", "/api/cache", &json_body, br#"{"capacity_mb":32,"policy":"clock_pro"}"#).await;
    assert_eq!(changed.status, 200);
    let config = gateway.get("/api/cache").await.json();
    assert_eq!((&config["capacity_mb"], &config["policy"]), (&json!(32), &json!("clock_pro")));
    assert_eq!(config["changed_by"], "http api");
    assert_eq!(changed.json(), config);

    gateway.put("/images/rocket", samples::rocket().bytes).await;
    gateway.get("/images/rocket").await;
    gateway.fills_end().await;
    assert_eq!(scene.cache_stats().await.unwrap().key_count, 1);
    let cleared = gateway.post("/api/cache/clear").await;
    assert_eq!((cleared.status, &cleared.json()["entries"]), (200, &json!(1)));
    assert_eq!(scene.cache_stats().await.unwrap().key_count, 0);
    assert_eq!(gateway.get("/images/rocket").await.cache(), "fwd=miss; detail=filling");
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_are_listed_whatever_the_settings_of_the_database_are() {
    let server = MariaDb::start_with(&[
        "--max-allowed-packet=16384",
        "--group-concat-max-len=4",
        "--sql-mode=EMPTY_STRING_IS_NULL,ANSI_QUOTES",
    ])
    .await;
    let database = server.database().await;
    database.migrate().await;
    let scene = Scene::with(database).await;
    let _worker = scene.start_worker().await;
    let gateway = scene.start_gateway(&[]).await;
    assert_eq!(gateway.post("/api/list_keys").await.json()["keys"], json!([]));
    // In one row they are as long as a packet may be at most, then a little longer.
    let mut keys = Vec::new();
    for number in 0..90 {
        let key = format!("{number:03}{}", "k".repeat(197));
        assert_eq!(gateway.put(&format!("/images/{key}"), samples::chelsea().bytes).await.status, 201);
        keys.push(key);
        if number > 75 {
            assert_eq!(gateway.post("/api/list_keys").await.json()["keys"], json!(keys));
        }
    }
    assert_eq!(gateway.get("/api/images?limit=2").await.json()["images"].as_array().unwrap().len(), 2);
    gateway.stop().await.unwrap();
}
