//! A cache that refuses, dawdles or says nothing: what a real worker can't be made to show on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures_util::StreamExt as _;
use runtime::bus::{headers_of, meta_of};
use testkit::database::Account;
use testkit::{AnswerHold, eventually, samples};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use wire::meta::{self, Meta};
use wire::near::{HitsReport, LONGEST_LEASE_MS};
use wire::reply::{ERROR_CODE_HEADER, ERROR_HEADER};
use wire::{Lease, subject};

use crate::helpers::{Gateway, PATIENCE, Scene, key};

/// What the responder answers; nothing at all with `None`.
type Said = Option<(HeaderMap, Bytes)>;

fn refusal(code: u16, meta: Option<Meta>) -> Said {
    let mut headers = meta.as_ref().map(headers_of).unwrap_or_default();
    headers.insert(ERROR_CODE_HEADER, code.to_string());
    headers.insert(ERROR_HEADER, "as the test wants it");
    Some((headers, Bytes::new()))
}

fn leased(number: u64) -> Said {
    refusal(404, Some(Meta { lease: Some(Lease(number.into())), ..Meta::default() }))
}

fn json(text: &'static str) -> Said {
    Some((HeaderMap::new(), Bytes::from_static(text.as_bytes())))
}

/// How somebody acknowledges who owns the claim as "fake".
const DROPPED: &str = r#"{"resident":true,"incarnation":"fake"}"#;
const STORED: &str = r#"{"stored":true,"bytes":1,"content_type":"image/png","tag":""}"#;

/// Answers on `pattern` in the worker's place.
async fn respond(
    scene: &Scene,
    pattern: &'static str,
    answer: impl Fn(&Message) -> Said + Send + 'static,
) -> JoinHandle<()> {
    let client = scene.nats.connect("memcache").await;
    let mut requests = client.subscribe(pattern).await.unwrap();
    // A round trip proves that the subscription stands.
    client.flush().await.unwrap();
    let ready = client.subscribe(client.new_inbox()).await;
    drop(ready);
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if let (Some((headers, body)), Some(reply)) = (answer(&request), request.reply.clone()) {
                client.publish_with_headers(reply, headers, body).await.unwrap();
            }
        }
    })
}

/// A scene with an image that no worker knows of.
async fn scene(flags: &[&str]) -> (Scene, Gateway) {
    let scene = Scene::new().await;
    let gateway = scene.start_gateway(flags).await;
    assert_eq!(gateway.put("/images/cat", samples::chelsea().bytes).await.status, 201);
    (scene, gateway)
}

async fn assert_served(gateway: &Gateway, cache: &str) {
    let answer = gateway.get("/images/cat").await;
    assert_eq!((answer.status, answer.cache()), (200, cache));
    assert!(answer.body == samples::chelsea().bytes && answer.complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_the_origin_serves() {
    let (_scene, gateway) = scene(&[]).await;
    for _ in 0..2 {
        assert_served(&gateway, "fwd=bypass; detail=cache-unavailable").await;
    }
    assert_eq!(gateway.metric("pixcache_reads_total{cache_status=\"cache-unavailable\"}").await, 2.0);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_says_nothing_costs_its_budget_and_no_more() {
    let (scene, gateway) = scene(&["--cache-budget-ms", "50"]).await;
    let _mute = respond(&scene, subject::GET, |_| None).await;
    eventually("questions reach the one that says nothing", PATIENCE, async || {
        gateway.get("/images/cat").await.cache() == "fwd=bypass; detail=cache-timeout"
    })
    .await;
    let started = Instant::now();
    assert_served(&gateway, "fwd=bypass; detail=cache-timeout").await;
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(50) && took < Duration::from_secs(2), "{took:?}");
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_fill_the_image_is_served_and_the_answer_says_what_became_of_it() {
    let (scene, gateway) = scene(&["--cache-budget-ms", "300"]).await;
    let leases = AtomicU64::new(1);
    let _gets = respond(&scene, subject::GET, move |_| leased(leases.fetch_add(1, Ordering::Relaxed))).await;
    for (answer, expected) in [
        (refusal(409, None), "fwd=miss; detail=fill-refused"),
        (refusal(503, None), "fwd=miss"),
        (json(r#"{"stored":false,"bytes":1,"content_type":"image/png","tag":""}"#), "fwd=miss"),
        (json("no json"), "fwd=miss"),
        (None, "fwd=miss"),
        (json(STORED), "fwd=miss; stored"),
        (refusal(413, None), "fwd=bypass; detail=too-large"),
    ] {
        let puts = respond(&scene, subject::PUT, move |_| answer.clone()).await;
        assert_served(&gateway, "fwd=miss; detail=filling").await;
        gateway.fills_end().await;
        // Only the answer with a variant waits for its fill.
        let variant = gateway.get("/images/cat?w=160").await;
        assert_eq!((variant.status, variant.cache()), (200, expected));
        puts.abort();
        let _ = puts.await;
        eventually("nobody answers puts", PATIENCE, async || {
            scene.ask(&subject::put(&key("x").into()), "").await.is_err()
        })
        .await;
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_carries_its_lease_and_what_the_row_says() {
    let (scene, gateway) = scene(&[]).await;
    let (seen, mut fills) = tokio::sync::mpsc::unbounded_channel();
    let _gets = respond(&scene, subject::GET, |_| leased(0xabc)).await;
    let _puts = respond(&scene, subject::PUT, move |request| {
        let header = request.headers.as_ref().and_then(|headers| headers.get(meta::HEADER)).unwrap();
        seen.send((header.as_str().parse::<Meta>().unwrap(), request.payload.clone())).unwrap();
        json(STORED)
    })
    .await;
    assert_served(&gateway, "fwd=miss; detail=filling").await;
    let (meta, bytes) = fills.recv().await.unwrap();
    assert_eq!((meta.lease, meta.content_type.as_deref()), (Some(Lease(0xabc)), Some("image/png")));
    assert_eq!(format!("\"{}\"", meta.tag.unwrap()), gateway.get("/images/cat").await.header("etag"));
    assert!(meta.modified_s.is_some() && bytes == samples::chelsea().bytes);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_makes_no_sense_counts_as_no_cache() {
    let (scene, gateway) = scene(&[]).await;
    for answer in [
        // A hit that does not say what it is, a code for something else, a header of another kind.
        Some((HeaderMap::new(), Bytes::from_static(b"bytes"))),
        refusal(503, None),
        refusal(500, None),
        refusal(999, None),
        Some((
            HeaderMap::from_iter([(meta::HEADER.parse().unwrap(), "tag=12".parse().unwrap())]),
            Bytes::new(),
        )),
    ] {
        let gets = respond(&scene, subject::GET, move |_| answer.clone()).await;
        assert_served(&gateway, "fwd=bypass; detail=cache-unavailable").await;
        gets.abort();
        let _ = gets.await;
        eventually("nobody answers gets", PATIENCE, async || {
            scene
                .ask(&subject::get(&key("x").into()), "")
                .await
                .is_err_and(|failure| matches!(failure, runtime::bus::RequestFailure::NoResponders(_)))
        })
        .await;
    }
    gateway.stop().await.unwrap();
}

/// Lets all statements on `images` wait until the returned connection is closed.
async fn hold_rows(scene: &Scene) -> sqlx::MySqlConnection {
    let mut holder = scene.database.connect(Account::Admin).await;
    sqlx::query("LOCK TABLES images WRITE").execute(&mut holder).await.unwrap();
    holder
}

/// Asks for the image so often that the first one has the lease and the others wait for it. What they are
/// answered, in order.
async fn read_together(scene: &Scene, gateway: &Gateway, count: usize) -> Vec<String> {
    let holder = hold_rows(scene).await;
    let leader = async {
        let answer = gateway.get("/images/cat").await;
        assert!(answer.status == 200 && answer.body == samples::chelsea().bytes);
        answer.cache().to_owned()
    };
    let others = async {
        eventually("the first one reads the rows", PATIENCE, async || {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM information_schema.processlist \
                 WHERE info LIKE 'SELECT image_key, location%' AND state LIKE 'Waiting%'",
            )
            .fetch_one(&scene.pool)
            .await
            .unwrap();
            waiting == 1
        })
        .await;
        let reads = futures_util::future::join_all((1..count).map(|_| gateway.get("/images/cat")));
        let release = async {
            let all = (count - 1) as f64;
            eventually("the others wait for it", PATIENCE, async || {
                gateway.metric("pixcache_waiting_reads").await == all
            })
            .await;
            drop(holder);
        };
        let (answers, ()) = tokio::join!(reads, release);
        answers
    };
    let (leader, others) = tokio::join!(leader, others);
    let mut statuses = vec![leader];
    for answer in others {
        assert!(answer.status == 200 && answer.body == samples::chelsea().bytes);
        statuses.push(answer.cache().to_owned());
    }
    statuses
}

/// The first get is given the lease, the others none.
async fn one_lease(scene: &Scene) -> JoinHandle<()> {
    let asked = AtomicU64::new(0);
    respond(scene, subject::GET, move |_| {
        if asked.fetch_add(1, Ordering::Relaxed) == 0 { leased(1) } else { refusal(404, None) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_misses_read_the_origin_once() {
    let (scene, gateway) = scene(&[]).await;
    let _gets = one_lease(&scene).await;
    let _puts = respond(&scene, subject::PUT, |_| json(STORED)).await;
    let before = gateway.metric("pixcache_origin_reads_total").await;
    let statuses = read_together(&scene, &gateway, 8).await;
    let mut expected = vec!["fwd=miss; collapsed"; 8];
    expected[0] = "fwd=miss; detail=filling";
    assert_eq!(statuses, expected);
    assert_eq!(gateway.metric("pixcache_origin_reads_total").await - before, 1.0);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_accepted_is_not_shared() {
    let (scene, gateway) = scene(&[]).await;
    let _gets = one_lease(&scene).await;
    let _puts = respond(&scene, subject::PUT, |_| refusal(409, None)).await;
    let before = gateway.metric("pixcache_origin_reads_total").await;
    let statuses = read_together(&scene, &gateway, 4).await;
    assert_eq!(statuses, ["fwd=miss; detail=filling", "fwd=miss", "fwd=miss", "fwd=miss"]);
    assert_eq!(gateway.metric("pixcache_origin_reads_total").await - before, 4.0);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flight_takes_nobody_in_once_its_fill_was_sent() {
    let (scene, gateway) = scene(&["--cache-budget-ms", "1000"]).await;
    let _gets = one_lease(&scene).await;
    let client = scene.nats.connect("memcache").await;
    let mut puts = client.subscribe(subject::PUT).await.unwrap();
    client.flush().await.unwrap();
    let leader = async {
        let answer = gateway.get("/images/cat").await;
        assert_eq!(answer.cache(), "fwd=miss; detail=filling");
    };
    let latecomer = async {
        let fill = puts.next().await.unwrap();
        // The fill is on its way and not answered: this one reads for itself, and is done before it.
        assert_served(&gateway, "fwd=miss").await;
        client.publish(fill.reply.unwrap(), STORED.into()).await.unwrap();
    };
    tokio::join!(leader, latecomer);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fills_beyond_the_places_are_dropped_and_counted_and_keep_no_lease() {
    let places = std::thread::available_parallelism().unwrap().get().clamp(2, 16);
    let (scene, gateway) = scene(&["--cache-budget-ms", "2000", "--near-cache-mb", "0"]).await;
    let paths: Vec<String> = (0..2 * places).map(|number| format!("/images/{number}")).collect();
    for path in &paths {
        assert_eq!(gateway.put(path, samples::chelsea().bytes).await.status, 201);
    }
    let (looks, back) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (looked, returned) = (looks.clone(), back.clone());
    let last = AtomicU64::new(0);
    let _gets = respond(&scene, subject::GET, move |request| {
        if meta_of(request.headers.as_ref()).unwrap().look {
            looked.fetch_add(1, Ordering::Relaxed);
            return refusal(404, None);
        }
        leased(last.fetch_add(1, Ordering::Relaxed) + 1)
    })
    .await;
    // Fills stay without an answer, and so keep their places.
    let _puts = respond(&scene, subject::PUT, move |request| {
        let is_back = meta_of(request.headers.as_ref()).unwrap().returned;
        returned.fetch_add(u64::from(is_back), Ordering::Relaxed);
        is_back.then(|| json(STORED)).flatten()
    })
    .await;
    let answers = futures_util::future::join_all(paths.iter().map(|path| gateway.get(path))).await;
    let mut statuses: Vec<_> = answers.iter().map(crate::http::Answer::cache).collect();
    statuses.sort_unstable();
    assert_eq!(statuses[..places], vec!["fwd=miss"; places]);
    assert_eq!(statuses[places..], vec!["fwd=miss; detail=filling"; places]);
    assert_eq!(gateway.metric("pixcache_dropped_fills_total").await, places as f64);
    // Each of these left its lease to others, or gave it back.
    eventually("all leases are back", PATIENCE, async || {
        looks.load(Ordering::Relaxed) + back.load(Ordering::Relaxed) == places as u64
    })
    .await;
    // The next read asks for no lease.
    let before = looks.load(Ordering::Relaxed);
    assert_served(&gateway, "fwd=miss").await;
    assert_eq!(looks.load(Ordering::Relaxed), before + 1);
    gateway.fills_end().await;
    assert_served(&gateway, "fwd=miss; detail=filling").await;
    gateway.stop().await.unwrap();
}

/// Reads the image until its fill is accepted, and asserts that this takes less time than a lease lasts.
async fn assert_filled_soon(gateway: &Gateway) {
    let started = Instant::now();
    eventually("the image is cached", PATIENCE, async || gateway.get("/images/cat").await.is_hit()).await;
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_during_its_fill_leaves_the_next_one_a_lease() {
    let (scene, _worker, gateway) = Scene::running().await;
    assert_eq!(gateway.put("/images/cat", samples::chelsea().bytes).await.status, 201);
    let holder = hold_rows(&scene).await;
    let gone = tokio::time::timeout(Duration::from_millis(300), gateway.get("/images/cat")).await;
    assert!(gone.is_err(), "the origin was to be held");
    drop(holder);
    assert_filled_soon(&gateway).await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_cache_that_comes_too_late_leaves_the_next_read_a_lease() {
    let (scene, _worker, gateway) = Scene::running().await;
    assert_eq!(gateway.put("/images/cat", samples::chelsea().bytes).await.status, 201);
    scene.nats.pause().await;
    assert_served(&gateway, "fwd=bypass; detail=cache-timeout").await;
    scene.nats.resume().await;
    assert_filled_soon(&gateway).await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_answered_when_the_cache_has_acknowledged_it() {
    let (scene, gateway) = scene(&[]).await;
    scene.set_owner(Some("fake")).await;
    let may_answer = Arc::new(Semaphore::new(0));
    let client = scene.nats.connect("memcache").await;
    let mut told = client.subscribe(subject::INVALIDATE).await.unwrap();
    client.flush().await.unwrap();
    let acknowledge = async {
        let request = told.next().await.unwrap();
        assert_eq!(request.subject.as_str(), subject::invalidate(&key("cat")));
        // The row is there and noted, and the upload is not answered.
        assert_eq!(scene.pending_count().await, 1);
        let _answered = may_answer.acquire().await.unwrap();
        client.publish(request.reply.unwrap(), DROPPED.into()).await.unwrap();
    };
    let upload = async {
        let uploading = gateway.put("/images/cat", samples::coffee().bytes);
        tokio::pin!(uploading);
        let early = tokio::time::timeout(Duration::from_millis(500), &mut uploading).await;
        assert!(early.is_err(), "the upload was answered before its invalidation");
        may_answer.add_permits(1);
        assert_eq!(uploading.await.status, 200);
    };
    tokio::join!(acknowledge, upload);
    scene.nothing_is_pending().await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cache_does_not_acknowledge_is_503_and_is_told_again_by_any_gateway() {
    let (scene, gateway) = scene(&[]).await;
    scene.set_owner(Some("fake")).await;
    let mute = respond(&scene, subject::INVALIDATE, |_| None).await;
    let mute_clear = respond(&scene, subject::CLEAR, |_| None).await;
    let (replaced, deleted, all) = tokio::join!(
        gateway.put("/images/cat", samples::coffee().bytes),
        gateway.delete("/images/dog"),
        gateway.post("/api/delete_all"),
    );
    for answer in [&replaced, &deleted, &all] {
        assert_eq!(answer.failure(), 503);
        assert!(answer.text().contains("still being told"), "{}", answer.text());
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(scene.pending_count().await, 3);
    // The gateway that knows of it is gone. Another one, and a cache that answers, are there now.
    gateway.crash().await;
    mute.abort();
    mute_clear.abort();
    let (seen, mut told) = tokio::sync::mpsc::unbounded_channel();
    let _tell = respond(&scene, subject::INVALIDATE, {
        let seen = seen.clone();
        move |request| {
            seen.send(request.subject.to_string()).unwrap();
            json(DROPPED)
        }
    })
    .await;
    let _clear = respond(&scene, subject::CLEAR, move |request| {
        seen.send(request.subject.to_string()).unwrap();
        json(r#"{"entries":0,"bytes":0,"generation":1,"revision":2,"incarnation":"fake"}"#)
    })
    .await;
    let other = scene.start_gateway(&[]).await;
    eventually("all is told", PATIENCE, async || scene.pending_count().await == 0).await;
    let mut subjects = Vec::new();
    while let Ok(subject) = told.try_recv() {
        subjects.push(subject);
    }
    for expected in
        [subject::invalidate(&key("cat")), subject::invalidate(&key("dog")), subject::CLEAR.into()]
    {
        assert!(subjects.contains(&expected), "{expected} in {subjects:?}");
    }
    assert_eq!(other.metric("pixcache_pending_invalidations").await, 0.0);
    other.stop().await.unwrap();
}

/// Notes that a gateway which is gone has left, the oldest first.
async fn leave_notes(scene: &Scene, keys: &[&str]) {
    for (at, key) in keys.iter().enumerate() {
        let note = sqlx::query(
            "INSERT INTO pending_invalidations VALUES (?, ?, UTC_TIMESTAMP(6) - INTERVAL ? SECOND)",
        );
        note.bind(key.as_bytes()).bind(7u64).bind(100 - at as u64).execute(&scene.pool).await.unwrap();
    }
}

async fn noted(scene: &Scene) -> Vec<String> {
    let keys: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT image_key FROM pending_invalidations ORDER BY image_key")
            .fetch_all(&scene.pool)
            .await
            .unwrap();
    keys.into_iter().map(|key| String::from_utf8(key).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_is_not_acknowledged_holds_up_no_other() {
    let scene = Scene::new().await;
    scene.set_owner(Some("fake")).await;
    let mute = subject::invalidate(&key("mute"));
    let _told = respond(&scene, subject::INVALIDATE, move |request| {
        if request.subject.as_str() == mute { None } else { json(DROPPED) }
    })
    .await;
    leave_notes(&scene, &["mute", "cat", "dog"]).await;
    let gateway = scene.start_gateway(&[]).await;
    eventually("the others are told of", PATIENCE, async || noted(&scene).await == ["mute"]).await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_is_locked_holds_up_no_other() {
    let scene = Scene::new().await;
    scene.set_owner(Some("fake")).await;
    let _told = respond(&scene, subject::INVALIDATE, |_| json(DROPPED)).await;
    leave_notes(&scene, &["locked", "cat", "dog"]).await;
    let mut holder = scene.database.connect(Account::Admin).await;
    sqlx::raw_sql("BEGIN; SELECT token FROM pending_invalidations WHERE image_key = 'locked' FOR UPDATE")
        .execute(&mut holder)
        .await
        .unwrap();
    let gateway = scene.start_gateway(&[]).await;
    eventually("the others are told of", PATIENCE, async || noted(&scene).await == ["locked"]).await;
    // The same for the notes of changes that were just acknowledged, which are removed together.
    let all = ["locked", "bird", "fish"].map(|name| format!("/images/{name}"));
    let (_, bird, fish) = tokio::join!(
        async {
            // It is deleted after its note was locked, so it waits.
            let _ = tokio::time::timeout(Duration::from_secs(1), gateway.delete(&all[0])).await;
        },
        gateway.put(&all[1], samples::chelsea().bytes),
        gateway.put(&all[2], samples::chelsea().bytes),
    );
    assert_eq!((bird.status, fish.status), (201, 201));
    eventually("their notes are gone", PATIENCE, async || noted(&scene).await == ["locked"]).await;
    drop(holder);
    scene.nothing_is_pending().await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_begin_was_answered_too_late_holds_up_nothing() {
    let scene = Scene::new().await;
    scene.set_owner(Some("fake")).await;
    let _told = respond(&scene, subject::INVALIDATE, |_| json(DROPPED)).await;
    let link = AnswerHold::to(scene.database.port()).await;
    let url = scene.database.behind(link.port()).url(Account::Gateway);
    // All statements come by the same connection, as long as that is kept.
    let gateway = scene.start_gateway(&["--database-url", &url, "--database-connections", "1"]).await;
    link.hold_answers_to("BEGIN");
    let late = gateway.put("/images/cat", samples::chelsea().bytes).await;
    assert_eq!(late.failure(), 503);
    assert_eq!(link.held(), 1);
    link.release();
    leave_notes(&scene, &["dog"]).await;
    scene.nothing_is_pending().await;
    assert_eq!(gateway.put("/images/cat", samples::chelsea().bytes).await.status, 201);
    scene.nothing_is_pending().await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_counts_only_from_the_worker_that_owns_the_claim() {
    let (scene, gateway) = scene(&[]).await;
    scene.set_owner(Some("other")).await;
    // A worker that was paused, for instance, and does not know that another one serves.
    let _stranger = respond(&scene, subject::INVALIDATE, |_| json(DROPPED)).await;
    let _clears = respond(&scene, subject::CLEAR, |_| {
        json(r#"{"entries":0,"bytes":0,"generation":1,"revision":2,"incarnation":"fake"}"#)
    })
    .await;
    assert_eq!(gateway.put("/images/cat", samples::coffee().bytes).await.failure(), 503);
    assert_eq!(scene.pending_count().await, 1);
    assert_eq!(gateway.post("/api/cache/clear").await.failure(), 503);
    scene.set_owner(Some("fake")).await;
    assert_eq!(gateway.put("/images/cat", samples::coffee().bytes).await.status, 200);
    assert_eq!(gateway.post("/api/cache/clear").await.status, 200);
    scene.nothing_is_pending().await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn that_nobody_listens_is_no_acknowledgement_while_somebody_owns_the_claim() {
    let (scene, gateway) = scene(&[]).await;
    // Its server may be another one, behind a route that is cut.
    scene.set_owner(Some("out of reach")).await;
    let started = Instant::now();
    let answer = gateway.put("/images/cat", samples::coffee().bytes).await;
    let took = started.elapsed();
    assert_eq!(answer.failure(), 503);
    assert!(answer.text().contains("still being told"), "{}", answer.text());
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(scene.pending_count().await, 1);
    // When the claim is given up, it is sure that nobody holds the image from before.
    scene.set_owner(None).await;
    assert_eq!(gateway.put("/images/dog", samples::coffee().bytes).await.status, 201);
    scene.nothing_is_pending().await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_changes_are_told_with_few_looks_at_who_serves() {
    let (scene, gateway) = scene(&[]).await;
    let before = scene.owners_revision().await;
    let paths: Vec<String> = (0..40).map(|number| format!("/images/{number}")).collect();
    let uploads = paths.iter().map(|path| gateway.put(path, samples::chelsea().bytes));
    for answer in futures_util::future::join_all(uploads).await {
        assert_eq!(answer.status, 201);
    }
    // Each write makes sure for all who ask at that moment.
    let writes = scene.owners_revision().await - before;
    assert!((1..40).contains(&writes), "{writes} writes");
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_near_hits_without_an_answer_is_sent_again_to_the_same_worker_and_to_no_other() {
    let (scene, gateway) = scene(&[]).await;
    let _gets = respond(&scene, subject::GET, |_| {
        let image = Meta {
            content_type: Some("image/png".into()),
            tag: Some(wire::Tag([7; 32])),
            granted_ms: Some(LONGEST_LEASE_MS),
            ..Meta::default()
        };
        Some((headers_of(&image), Bytes::from_static(samples::chelsea().bytes)))
    })
    .await;
    let (seen, mut reports) = tokio::sync::mpsc::unbounded_channel();
    let answers = AtomicU64::new(0);
    let _reports = respond(&scene, subject::NEAR_HITS, move |message| {
        let report: HitsReport = serde_json::from_slice(&message.payload).unwrap();
        let hits: u64 = report.hits.iter().map(|hits| hits.count).sum();
        seen.send((report.number, report.to, hits)).unwrap();
        match answers.fetch_add(1, Ordering::Relaxed) {
            0 => json(r#"{"counted":false,"by":"one"}"#),
            // One that may have been counted.
            1 | 2 => None,
            3 => json(r#"{"counted":true,"by":"one"}"#),
            // And one of which that is never known.
            4 => None,
            5 => json(r#"{"counted":false,"by":"other"}"#),
            // And one that was lost on its way to an incarnation that had ended before.
            6 => None,
            7 => json(r#"{"counted":false,"by":"third","uptime_ms":60000}"#),
            _ => json(r#"{"counted":true,"by":"third","uptime_ms":61000}"#),
        }
    })
    .await;
    let mut next = async |number: u64, to: &str| {
        let (seen, addressee, hits) = tokio::time::timeout(PATIENCE, reports.recv()).await.unwrap().unwrap();
        assert_eq!((seen, &*addressee), (number, to));
        hits
    };
    let hit = async || {
        while gateway.get("/images/cat").await.cache() != "hit; detail=near" {}
    };
    hit().await;
    for to in ["", "one", "one", "one"] {
        assert_eq!(next(1, to).await, 1);
    }
    hit().await;
    for to in ["one", "one"] {
        assert_eq!(next(2, to).await, 1);
    }
    hit().await;
    for to in ["other", "other", "third"] {
        assert_eq!(next(3, to).await, 1);
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_has_locked_is_answered_in_time_and_holds_up_no_other() {
    let (scene, gateway) = scene(&[]).await;
    for name in ["locked", "cold"] {
        assert_eq!(gateway.put(&format!("/images/{name}"), samples::coffee().bytes).await.status, 201);
    }
    let mut holder = scene.database.connect(Account::Admin).await;
    sqlx::raw_sql("BEGIN; SELECT location FROM images WHERE image_key = 'locked' FOR UPDATE")
        .execute(&mut holder)
        .await
        .unwrap();
    // More writers than there are connections.
    let gateway = std::sync::Arc::new(gateway);
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..22 {
        let gateway = gateway.clone();
        writers.spawn(async move {
            let started = Instant::now();
            let answer = match number % 2 {
                0 => gateway.put("/images/locked", samples::chelsea().bytes).await,
                _ => gateway.delete("/images/locked").await,
            };
            (answer, started.elapsed())
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    assert_eq!(gateway.put("/images/other", samples::chelsea().bytes).await.status, 201);
    assert_eq!(gateway.get("/images/cold").await.status, 200);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    for (answer, took) in writers.join_all().await {
        assert_eq!(answer.failure(), 503, "{}", answer.text());
        assert!(answer.text().contains("a lock"), "{}", answer.text());
        assert!(took < Duration::from_secs(7), "{took:?}");
    }
    drop(holder);
    eventually("the lock is gone", PATIENCE, async || {
        gateway.put("/images/locked", samples::chelsea().bytes).await.status == 200
    })
    .await;
}
