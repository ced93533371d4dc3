//! Whatever is sent to whichever endpoint, and whatever stands in the buckets: one answer each, and the worker lives on.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use futures_util::StreamExt as _;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use testkit::{any, eventually};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use wire::reply::{Code, ERROR_CODE_HEADER, ERROR_HEADER};
use wire::{ConfigReply, meta, subject};

use crate::helpers::{ANSWER, PATIENCE, Scene};

const FIELDS: &[&str] =
    &["capacity_mb", "policy", "by", "prefix", "limit", "after", "sort", "seconds", "kinds", "generation"];

/// On a busy machine a short claim runs out now and then, and a worker that has lost it refuses what it is asked.
const LONG_CLAIM: &[&str] = &["--claim-ms", "10000"];

/// A subject that some endpoint listens on; each token is what a server lets through.
fn any_subject() -> impl Strategy<Value = String> {
    let known = select(vec![
        subject::CLEAR,
        subject::CONFIG_GET,
        subject::CONFIG_REFRESH,
        subject::CONFIG_SET,
        subject::KEYS,
        subject::STATS,
        subject::WATCH,
    ]);
    prop_oneof![
        3 => "cache\\.(get|put|invalidate)\\.[a-c]",
        3 => "cache\\.(get|put|invalidate)\\.[a-c%2EF_.-]{1,8}[a-c]",
        1 => "cache\\.(get|put|invalidate)\\.[^\\s\\pC.*>]{1,20}",
        4 => known.prop_map(str::to_owned),
        1 => "cache(\\.config)?\\.[a-z%$é-]{1,10}",
    ]
    .prop_filter("a token is never empty", |subject| !subject.contains(".."))
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => Just(Vec::new()),
        3 => any::json(FIELDS),
        3 => any::image(),
        2 => any::nearly(any::image(), 1..5),
        1 => vec(proptest::arbitrary::any::<u8>(), 0..2000),
    ]
}

/// Headers as a client writes them, most of them nearly those that the worker reads.
fn any_headers() -> impl Strategy<Value = Vec<(String, String)>> {
    let pair = prop_oneof![
        "type=image/(png|jpeg|gif|webp|svg)",
        "tag=[0-9a-f]{64}",
        "lease=[0-9a-f+]{1,33}",
        "modified=-?[0-9]{1,20}",
        "size=[0-9]{1,20}",
        "fresh=[01]",
        "[!-~é]{0,12}",
    ];
    let meta = vec(pair, 0..4).prop_map(|pairs| (meta::HEADER.to_owned(), pairs.join(" ")));
    let other = ("[!#-9;-~]{1,12}", "[^\\r\\n]{0,40}");
    vec(prop_oneof![3 => meta, 1 => other], 0..3)
}

fn header_map(headers: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().expect("the name of a header");
        map.append(name, value.parse::<HeaderValue>().expect("one line"));
    }
    map
}

/// Looks at an answer: it is a result, or a refusal with a known code and a sentence.
fn check_answer(answer: &async_nats::Message) -> Result<(), TestCaseError> {
    prop_assert_eq!(answer.status, None, "nobody serves this");
    let Some(headers) = &answer.headers else { return Ok(()) };
    let Some(code) = headers.get(ERROR_CODE_HEADER) else { return Ok(()) };
    let number: u16 = code.as_str().parse().expect("a code is a number");
    prop_assert_eq!(Code::from_number(number).number(), number);
    prop_assert!(number < 500, "{:?}", headers);
    let sentence = headers.get(ERROR_HEADER).map_or("", HeaderValue::as_str);
    prop_assert!(sentence.len() > 10, "{:?}", sentence);
    Ok(())
}

#[test]
fn any_message_to_any_endpoint_has_exactly_one_answer() {
    let runtime = Runtime::new().unwrap();
    let (scene, worker) = runtime.block_on(async {
        let scene = Scene::new().await;
        let worker = scene.start_worker(LONG_CLAIM).await;
        (scene, worker)
    });
    let client = runtime.block_on(scene.server.connect("operator"));
    let inbox = client.new_inbox();
    let mut answers = runtime.block_on(client.subscribe(format!("{inbox}.*"))).unwrap();
    let counts = std::cell::RefCell::new(BTreeMap::<String, usize>::new());
    let answers = tokio::sync::Mutex::new(&mut answers);
    let ask = async |subject: String, headers: HeaderMap, payload: Vec<u8>| {
        let reply = format!("{inbox}.{}", counts.borrow().len());
        counts.borrow_mut().insert(reply.clone(), 0);
        client.publish_with_reply_and_headers(subject, reply.clone(), headers, payload.into()).await.unwrap();
        loop {
            let answer = timeout(ANSWER, answers.lock().await.next()).await;
            let answer =
                answer.map_err(|_| TestCaseError::fail("there is no answer"))?.expect("the bus stands");
            *counts.borrow_mut().get_mut(answer.subject.as_str()).expect("an inbox that was given") += 1;
            if answer.subject.as_str() == reply {
                return check_answer(&answer);
            }
        }
    };
    let ran = any::runner(96)
        .run(&(any_subject(), any_headers(), any_payload()), |(subject, headers, payload)| {
            runtime.block_on(ask(subject, header_map(&headers), payload))
        });
    ran.unwrap();
    runtime.block_on(async {
        // Each endpoint answers in order, so what was asked before these is done with.
        for subject in [
            "cache.get.x",
            "cache.put.x",
            "cache.invalidate.x",
            "cache.clear",
            "cache.config.get",
            "cache.stats",
            "cache.keys",
            "cache.watch",
            "cache.x",
        ] {
            ask(subject.to_owned(), HeaderMap::new(), Vec::new()).await.unwrap();
        }
        assert!(counts.borrow().values().all(|count| *count == 1), "{:?}", counts.borrow());
        let stats = scene.stats().await.unwrap();
        assert!(stats.serving && stats.cache_size_bytes <= stats.capacity_bytes);
        worker.stop().await.unwrap();
    });
}

#[test]
fn any_entry_in_the_bucket_of_the_configuration_leaves_the_worker_serving() {
    let runtime = Runtime::new().unwrap();
    let (scene, worker) = runtime.block_on(async {
        let scene = Scene::new().await;
        let worker = scene.start_worker(LONG_CLAIM).await;
        (scene, worker)
    });
    let bucket = runtime.block_on(async {
        let jetstream = scene.server.jetstream("administrator").await;
        jetstream.get_key_value(subject::CONFIG_BUCKET).await.unwrap()
    });
    let entry = any::json(&["capacity_mb", "policy", "generation", "changed_by", "changed_at"]);
    let number = prop_oneof![Just(0), Just(u64::MAX), proptest::arbitrary::any::<u64>()];
    let whole = (number.clone(), number, ".{0,300}").prop_map(|(mb, generation, by)| {
        let entry = serde_json::json!({"capacity_mb": mb, "policy": "random", "generation": generation,
            "changed_by": by, "changed_at": "2026-01-02T03:04:05Z"});
        entry.to_string().into_bytes()
    });
    let ran = any::runner(24).run(&prop_oneof![entry, whole], |entry| {
        runtime.block_on(async {
            let put = async |entry: Vec<u8>| bucket.put(subject::CONFIG_KEY, entry.into()).await.unwrap();
            put(entry).await;
            // What the worker says to this one may be a refusal: it does not know what it would change.
            let _ = scene.ask(subject::CLEAR, "", None).await;
            let good = r#"{"capacity_mb":7,"policy":"lru","generation":1,"changed_by":"x","changed_at":"2026-01-02T03:04:05Z"}"#;
            let revision = put(good.into()).await;
            eventually("a proper entry is in force", PATIENCE, async || {
                let reply: Result<ConfigReply, _> = scene.ask_json(subject::CONFIG_GET, "").await;
                reply.is_ok_and(|reply| reply.revision == revision && reply.config.capacity_mb.mb() == 7)
            })
            .await;
            Ok(())
        })
    });
    ran.unwrap();
    runtime.block_on(worker.stop()).unwrap();
}

#[test]
fn any_entry_in_the_bucket_of_the_claim_ends_with_a_worker_that_serves() {
    let runtime = Runtime::new().unwrap();
    let (scene, worker) = runtime.block_on(async {
        let scene = Scene::new().await;
        let worker = scene.start_worker(&[]).await;
        (scene, worker)
    });
    let bucket = runtime.block_on(async {
        let jetstream = scene.server.jetstream("administrator").await;
        jetstream.get_key_value(subject::OWNERS_BUCKET).await.unwrap()
    });
    let entry = any::json(&["worker", "incarnation", "released"]);
    let whole = (".{0,40}", ".{0,40}", 0..500_u64, proptest::arbitrary::any::<bool>()).prop_map(|(worker, incarnation, valid_ms, released)| {
        let entry = serde_json::json!({"worker": worker, "incarnation": incarnation, "valid_ms": valid_ms, "released": released});
        entry.to_string().into_bytes()
    });
    let ran = any::runner(2).run(&prop_oneof![entry, whole], |entry| {
        runtime.block_on(async {
            let before = scene.stats().await.expect("it serves").incarnation;
            bucket.put(subject::OWNERS_KEY, entry.into()).await.unwrap();
            eventually("it serves as a new life", 2 * PATIENCE, async || {
                scene.stats().await.is_some_and(|stats| stats.serving && stats.incarnation != before)
            })
            .await;
            Ok(())
        })
    });
    ran.unwrap();
    runtime.block_on(worker.stop()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clear_behind_the_last_generation_is_a_clear_like_any_other() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let jetstream = scene.server.jetstream("administrator").await;
    let bucket = jetstream.get_key_value(subject::CONFIG_BUCKET).await.unwrap();
    let entry = format!(
        r#"{{"capacity_mb":7,"policy":"lru","generation":{},"changed_by":"x","changed_at":"2026-01-02T03:04:05Z"}}"#,
        u64::MAX
    );
    bucket.put(subject::CONFIG_KEY, entry.into()).await.unwrap();
    scene.ask(subject::CONFIG_REFRESH, "", None).await.unwrap();
    scene.put("cat", testkit::samples::chelsea().bytes).await.unwrap();
    let cleared = scene.clear().await;
    assert_eq!(cleared.entries, 1);
    assert_ne!(cleared.generation, u64::MAX);
    worker.stop().await.unwrap();
}
