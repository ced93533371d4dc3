//! Whatever comes over HTTP has an answer in the shape of its interface, which blames nobody but its sender, and what is
//! refused changes nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;
use sniff::Limits;
use testkit::database::Account;
use testkit::{any, eventually};
use tokio::runtime::Runtime;

use crate::helpers::{Gateway, PATIENCE, Scene, Worker};
use crate::http::Answer;

/// A whole system. The servers come last, so that they outlive what uses them.
struct Stage {
    gateway: Gateway,
    _worker: Worker,
    _recorder: Recorder,
    scene: Scene,
    runtime: Runtime,
}

/// The recorder's binary. It is killed when this is dropped.
struct Recorder(Child);

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let (scene, worker, gateway) = runtime.block_on(Scene::running());
        let recorder = Command::new(testkit::service_binary("recorder"))
            .env("NATS_URL", "")
            .env("NATS_PORT", scene.nats.port().to_string())
            .env("NATS_RECORDER_PASSWORD", scene.nats.password("recorder"))
            .env("NATS_SETUP_PASSWORD", scene.nats.password("setup"))
            .env("RECORDER_DATABASE_URL", scene.database.url(Account::Recorder))
            .env("MIGRATION_DATABASE_URL", scene.database.url(Account::Migration))
            .env("GATEWAY_DATABASE_USER", scene.database.user(Account::Gateway))
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn();
        let recorder = Recorder(recorder.expect("the recorder's binary runs"));
        runtime.block_on(eventually("all parts are there", PATIENCE, async || {
            gateway.get("/readyz").await.status == 200
        }));
        Self { gateway, _worker: worker, _recorder: recorder, scene, runtime }
    }

    /// What changes when something is changed: the keys with their hashes, and the configuration.
    async fn state(&self) -> (Value, Value) {
        (self.gateway.get("/api/images?limit=1000").await.json(), self.gateway.get("/api/cache").await.json())
    }

    fn finish(self) {
        self.runtime.block_on(self.gateway.stop()).unwrap();
    }
}

/// Looks at an answer: whole, nobody's failure but the asker's, and in the shape of the interface that `path` belongs to.
fn check_answer(method: &str, path: &str, answer: &Answer) -> Result<(), TestCaseError> {
    prop_assert!(answer.status < 500, "{} {}", answer.status, answer.text());
    prop_assert!(answer.complete, "the answer breaks off");
    if answer.status < 400 || method == "HEAD" {
        return Ok(());
    }
    let first = path.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default();
    if ["api", "images", "healthz", "readyz", "metrics"].contains(&first) {
        answer.failure();
    } else {
        prop_assert!(answer.header("content-type").starts_with("text/html"), "{}", answer.text());
        prop_assert!(answer.text().contains("</html>"));
    }
    Ok(())
}

/// What may stand between two delimiters of an address: any text escaped, or escapes as nobody would write them.
fn any_piece() -> impl Strategy<Value = String> {
    let escaped = "\\PC{0,12}".prop_map(|text| utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string());
    prop_oneof![
        escaped,
        "[a-c]",
        "[A-Za-z0-9._~!$'()*+,;:@/%-]{0,30}",
        "(%[0-9A-Fa-f]{2}){0,4}",
        "[a-z]{250,300}"
    ]
}

fn any_query() -> impl Strategy<Value = String> {
    let name = select(vec![
        "after",
        "by",
        "done",
        "format",
        "key",
        "limit",
        "policy",
        "prefix",
        "range",
        "sort",
        "step",
        "v",
        "capacity_mb",
    ]);
    let value = prop_oneof![
        any_piece(),
        "-?[0-9]{1,20}(ms|s|m|h|d)?".prop_map_into(),
        select(vec!["json", "csv", "10m", "1h", "24h", "7d", "366d", "size", "key", "recent", "lru"])
            .prop_map_into(),
    ];
    let pair = prop_oneof![
        6 => (name, value).prop_map(|(name, value)| format!("{name}={value}")),
        1 => (any_piece(), any_piece()).prop_map(|(name, value)| format!("{name}={value}")),
        1 => any_piece(),
    ];
    vec(pair, 0..4)
        .prop_map(|pairs| if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) })
}

/// The headers that decide about an image, with values of any kind.
fn any_conditions() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let name = select(vec![
        "If-Match",
        "If-None-Match",
        "If-Modified-Since",
        "If-Unmodified-Since",
        "If-Range",
        "Range",
        "Accept",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Origin",
        "Sec-Fetch-Site",
        "Authorization",
        "Cookie",
    ]);
    let value = prop_oneof![
        Just("*".to_owned()),
        "(W/)?\"[0-9a-f]{0,64}\"(, *\"[a-f]*\")?",
        "bytes=[0-9]{0,20}-[0-9]{0,20}",
        "(Tue|Mon), 1[0-9] Nov (20[0-9]{2}|0000|9999) 22:13:20 GMT",
        "(text/csv|application/json|\\*/\\*)(;q=[0-9.-]{0,4})?",
        "[!-~]([ -~]{0,40}[!-~])?",
    ];
    vec((name, value), 0..4)
}

fn borrowed<'a>(headers: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn any_address_is_answered_and_looking_changes_nothing() {
    let stage = Stage::new();
    stage.runtime.block_on(async {
        for (key, image) in [("a", testkit::samples::chelsea()), ("b", testkit::samples::rocket())] {
            assert_eq!(stage.gateway.put(&format!("/images/{key}"), image.bytes).await.status, 201);
        }
    });
    let before = stage.runtime.block_on(stage.state());
    let path = prop_oneof![
        4 => select(vec![
            "/", "/api/cache", "/api/images", "/api/images/", "/api/openapi.json", "/api/stats", "/cache_properties",
            "/cache_properties/clear", "/cache_properties/delete_all", "/cache_stats", "/favicon.ico", "/healthz",
            "/image", "/image/delete", "/image/invalidate", "/images/", "/keys_list", "/keys_list/delete", "/metrics", "/readyz", "/upload_image",
        ]).prop_map(str::to_owned),
        4 => (select(vec!["/images/", "/api/images/", "/static/", "/api/key/"]), any_piece())
            .prop_map(|(prefix, rest)| format!("{prefix}{rest}")),
        1 => any_piece().prop_map(|rest| format!("/{rest}")),
    ];
    let request = (select(vec!["GET", "GET", "GET", "HEAD", "OPTIONS"]), path, any_query(), any_conditions());
    let ran = any::runner(128).run(&request, |(method, path, query, headers)| {
        let target = format!("{path}{query}");
        let headers = borrowed(&headers);
        let answer = stage.runtime.block_on(stage.gateway.send(method, &target, &headers, b""));
        check_answer(method, &target, &answer)
    });
    ran.unwrap();
    assert_eq!(stage.runtime.block_on(stage.state()), before);
    stage.finish();
}

#[test]
fn any_change_is_made_whole_or_refused_and_then_nothing_has_changed() {
    let stage = Stage::new();
    let key = prop_oneof![3 => Just("a".to_owned()), 1 => any_piece()];
    let image =
        prop_oneof![2 => any::image(), 2 => any::nearly(any::image(), 1..4), 1 => vec(any::<u8>(), 0..200)];
    let json = any::json(&["capacity_mb", "policy", "by"]);
    let form = any_query().prop_map(|query| query.trim_start_matches('?').as_bytes().to_vec());
    let to =
        |method: &'static str, path: &'static str, kind: &'static str| Just((method, path.to_owned(), kind));
    let pages = select(vec![
        "/cache_properties",
        "/cache_properties/clear",
        "/cache_properties/delete_all",
        "/image/delete",
    ]);
    let request = prop_oneof![
        4 => (key.clone().prop_map(|key| ("PUT", format!("/images/{key}"), "image/png")), image),
        1 => (key.prop_map(|key| ("DELETE", format!("/images/{key}"), "image/png")), Just(Vec::new())),
        4 => (to("PUT", "/api/cache", "application/json"), json),
        1 => (to("POST", "/api/cache/clear", "text/plain"), vec(any::<u8>(), 0..20)),
        2 => (pages.prop_map(|path| ("POST", path.to_owned(), "application/x-www-form-urlencoded")), form),
    ];
    let last = RefCell::new(stage.runtime.block_on(stage.state()));
    let ran =
        any::runner(64).run(&(request, any_conditions()), |(((method, path, kind), body), mut headers)| {
            if headers.iter().all(|(name, _)| *name != "Content-Type") {
                headers.push(("Content-Type", kind.to_owned()));
            }
            stage.runtime.block_on(async {
                let answer = stage.gateway.send(method, &path, &borrowed(&headers), &body).await;
                check_answer(method, &path, &answer)?;
                let now = stage.state().await;
                if answer.status >= 400 {
                    prop_assert_eq!(&now, &*last.borrow());
                } else if method == "PUT" && path.starts_with("/images/") {
                    let read = stage.gateway.get(&path).await;
                    prop_assert!((read.status, &read.body) == (200, &body), "the image is not what was sent");
                }
                last.replace(now);
                Ok(())
            })
        });
    ran.unwrap();
    stage.finish();
}

/// A form, the boundary that it has, and what its head says about that.
fn any_form() -> impl Strategy<Value = (String, Vec<u8>)> {
    let key = prop_oneof![4 => "[a-c]", 1 => "\\PC{0,300}"].prop_map(String::into_bytes);
    let image = prop_oneof![4 => any::image(), 1 => any::nearly(any::image(), 1..4)];
    let headers = prop_oneof![4 => Just(String::new()), 1 => "(Content-Type: [a-z/]{1,10}\r\n){0,2}", 1 => "[ -~]{0,30}\r\n"];
    let quirk = prop_oneof![
        6 => Just(String::new()),
        1 => "; filename=\"[^\"\\r\\n]{0,12}\"",
        1 => "; filename\\*=[!-~]{0,12}",
        1 => "; [!-~]{0,12}",
    ];
    let part = |name: &'static str, bytes: BoxedStrategy<Vec<u8>>| {
        (quirk.clone(), headers.clone(), bytes).prop_map(move |(quirk, headers, bytes)| {
            let head = format!("Content-Disposition: form-data; name=\"{name}\"{quirk}\r\n{headers}\r\n");
            [head.into_bytes(), bytes].concat()
        })
    };
    let (key, file) = (part("key", key.boxed()), part("file", image.boxed()));
    let other = part("other", vec(any::<u8>(), 0..20).boxed());
    let parts = prop_oneof![
        4 => (key.clone(), file.clone()).prop_map(|(key, file)| vec![key, file]),
        3 => (file.clone(), key.clone()).prop_map(|(file, key)| vec![file, key]),
        2 => vec(prop_oneof![key, file, other], 0..4),
    ];
    let boundary =
        prop_oneof![4 => "[a-zA-Z0-9]{1,20}", 1 => "[a-zA-Z0-9'()+_,./:=?-]{1,70}", 1 => "[!-~]{0,100}"];
    let shape = (parts, boundary, 0..8_u8).prop_map(|(parts, boundary, shape)| {
        let mut body = Vec::new();
        for part in parts {
            body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
            body.extend_from_slice(&part);
            body.extend_from_slice(b"\r\n");
        }
        if shape != 0 {
            body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        }
        let content_type = match shape {
            0..=4 => format!("multipart/form-data; boundary={boundary}"),
            5 => format!("multipart/form-data; boundary=\"{boundary}\"; charset=utf-8"),
            6 => format!("Multipart/Form-Data;boundary={boundary}x"),
            _ => format!("multipart/{boundary}"),
        };
        (content_type, body)
    });
    (shape, 0..4_u8).prop_flat_map(|((content_type, body), edits)| {
        let edits = usize::from(edits.saturating_sub(2));
        (Just(content_type), any::nearly(Just(body), edits..edits + 1))
    })
}

#[test]
fn any_form_is_stored_whole_or_refused_and_leaves_nothing() {
    let stage = Stage::new();
    let stored = RefCell::new(BTreeSet::new());
    let ran = any::runner(96).run(&any_form(), |(content_type, body)| {
        stage.runtime.block_on(async {
            let headers = [("Content-Type", content_type.as_str())];
            let answer = stage.gateway.send("POST", "/api/upload", &headers, &body).await;
            if answer.status == 200 {
                prop_assert_eq!(&answer.json()["success"], "true");
                let key = answer.json()["key"].as_str().expect("the answer names the key").to_owned();
                let path = format!("/images/{}", utf8_percent_encode(&key, NON_ALPHANUMERIC));
                let read = stage.gateway.get(&path).await;
                let seen = sniff::sniff(&read.body, Limits { max_pixels: 100_000_000 });
                prop_assert!(seen.is_ok(), "{:?}", seen);
                stored.borrow_mut().insert(key);
            } else {
                prop_assert!([400, 413, 415, 422].contains(&answer.failure()), "{}", answer.text());
            }
            let list = stage.gateway.post("/api/list_keys").await.json();
            prop_assert_eq!(&list["keys"], &serde_json::json!(*stored.borrow()));
            eventually("each file has a row", PATIENCE, async || {
                stage.scene.file_count() == stored.borrow().len()
            })
            .await;
            Ok(())
        })
    });
    ran.unwrap();
    assert!(!stored.borrow().is_empty(), "no form was stored");
    stage.finish();
}
