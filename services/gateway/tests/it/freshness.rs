//! The promise: after an upload or delete is answered, no request through any gateway returns an older
//! image.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use testkit::{eventually, samples};

use crate::helpers::{Gateway, PATIENCE, Scene, WITHOUT_COPIES};
use crate::http::Answer;

/// An image that carries a number behind its end.
pub(crate) fn numbered(number: u64) -> Vec<u8> {
    let mut bytes = samples::chelsea().bytes.to_vec();
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

fn number_of(bytes: &[u8]) -> u64 {
    let (_, number) = bytes.split_last_chunk::<8>().unwrap();
    u64::from_be_bytes(*number)
}

/// What [`race`] reads, and how it knows which upload an answer came from.
pub(crate) struct Raced<'a> {
    pub(crate) path: &'a str,
    /// The number of the upload that an answer shows.
    pub(crate) number: &'a dyn Fn(&Answer) -> u64,
    /// Whether an answer came out of the cache under test.
    pub(crate) is_hit: &'a dyn Fn(&Answer) -> bool,
}

/// Uploads one numbered image after another through both gateways in turn, while readers at each check that no
/// answer is older than the last upload that was answered. Every fourth upload waits until a read was a hit, so
/// that hits are raced on a machine of any speed.
pub(crate) async fn race(one: &Gateway, two: &Gateway, raced: Raced<'_>) {
    let gateways = [one, two];
    let answered = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    one.put("/images/cat", &numbered(0)).await;
    let hits = AtomicU64::new(0);
    let write = async {
        let start = Instant::now();
        let mut number = 0;
        while start.elapsed() < Duration::from_secs(4) || number < 40 {
            number += 1;
            let gateway = gateways[usize::from(number % 2 == 0)];
            assert_eq!(gateway.put("/images/cat", &numbered(number)).await.status, 200);
            answered.store(number, Ordering::SeqCst);
            if number % 4 == 0 {
                let before = hits.load(Ordering::Relaxed);
                let is_hit = async || hits.load(Ordering::Relaxed) > before;
                eventually("a read is a hit", PATIENCE, is_hit).await;
            }
            tokio::time::sleep(Duration::from_millis(number * 7 % 23)).await;
        }
        done.store(true, Ordering::SeqCst);
    };
    let read = async |gateway: &Gateway| {
        while !done.load(Ordering::SeqCst) {
            let at_least = answered.load(Ordering::SeqCst);
            let answer = gateway.get(raced.path).await;
            assert_eq!(answer.status, 200);
            let seen = (raced.number)(&answer);
            assert!(seen >= at_least, "saw {seen} after {at_least} was answered ({})", answer.cache());
            hits.fetch_add(u64::from((raced.is_hit)(&answer)), Ordering::Relaxed);
        }
    };
    let readers = futures_util::future::join_all((0..8).map(|at| read(gateways[at % 2])));
    tokio::join!(write, readers);
}

/// A [`race`] of reads of the image itself, whose hits say `hit`.
pub(crate) async fn race_of_images(one: &Gateway, two: &Gateway, hit: &str) {
    let number = |answer: &Answer| number_of(&answer.body);
    let is_hit = |answer: &Answer| answer.cache() == hit;
    race(one, two, Raced { path: "/images/cat", number: &number, is_hit: &is_hit }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_at_any_gateway_sees_an_older_image_than_the_last_one_answered() {
    let (scene, _worker, one) = Scene::running_with(&WITHOUT_COPIES).await;
    let two = scene.start_gateway(&WITHOUT_COPIES).await;
    race_of_images(&one, &two, "hit").await;
    scene.nothing_is_pending().await;
    two.stop().await.unwrap();
    one.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_sees_an_older_image_while_uploads_fill_the_cache() {
    for copies_mb in ["0", "16"] {
        let flags = ["--near-cache-mb", copies_mb, "--fill-on-upload", "all"];
        let (scene, _worker, one) = Scene::running_with(&flags).await;
        let two = scene.start_gateway(&flags).await;
        let number = |answer: &Answer| number_of(&answer.body);
        race(&one, &two, Raced { path: "/images/cat", number: &number, is_hit: &Answer::is_hit }).await;
        scene.nothing_is_pending().await;
        let counters = scene.cache_stats().await.unwrap().counters;
        assert!(counters.fill_count > 10, "{counters:?}");
        two.stop().await.unwrap();
        one.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_fills_the_cache_if_it_is_to() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let (old, new) = (samples::chelsea().bytes, samples::coffee().bytes);
    let filled = async |count: u64| {
        eventually("the cache is filled", PATIENCE, async || {
            scene.cache_stats().await.is_some_and(|stats| stats.counters.fill_count == count)
        })
        .await;
    };
    let flags = |which| [WITHOUT_COPIES[0], WITHOUT_COPIES[1], "--fill-on-upload", which];
    let gateway = scene.start_gateway(&flags("cached")).await;
    gateway.put("/images/cat", old).await;
    // Nothing was cached under its key.
    assert_eq!(gateway.get("/images/cat").await.cache(), "fwd=miss; detail=filling");
    filled(1).await;
    assert_eq!(gateway.put("/images/cat", new).await.status, 200);
    filled(2).await;
    let answer = gateway.get("/images/cat").await;
    assert!(answer.cache() == "hit" && answer.body == new, "{}", answer.cache());
    gateway.stop().await.unwrap();

    let gateway = scene.start_gateway(&flags("all")).await;
    assert_eq!(gateway.put("/images/dog", old).await.status, 201);
    filled(3).await;
    let answer = gateway.get("/images/dog").await;
    assert!(answer.cache() == "hit" && answer.body == old, "{}", answer.cache());
    // A fill is no read.
    let counters = scene.cache_stats().await.unwrap().counters;
    assert_eq!((counters.hit_count, counters.miss_count), (2, 1));
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_the_fills_that_are_under_way() {
    let (scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    let paths: Vec<String> = (0..20).map(|number| format!("/images/{number}")).collect();
    for path in &paths {
        gateway.put(path, samples::retina().bytes).await;
    }
    let answers = futures_util::future::join_all(paths.iter().map(|path| gateway.get(path))).await;
    gateway.stop().await.unwrap();
    let filling = answers.iter().filter(|answer| answer.cache().ends_with("filling")).count() as u64;
    let stats = scene.cache_stats().await.unwrap();
    assert!(filling > 0 && stats.key_count == filling, "{filling} on their way, {stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_left_behind_when_it_died_is_told_by_another() {
    let (scene, _worker, gateway) = Scene::running().await;
    gateway.put("/images/cat", &numbered(1)).await;
    gateway.get("/images/cat").await;
    assert!(gateway.get("/images/cat").await.is_hit());
    // What is left of a gateway that dies between the row and the invalidation: here, of a deletion.
    sqlx::query("DELETE FROM images").execute(&scene.pool).await.unwrap();
    // And of an outage: more changes than are told of in one go, before that one.
    for key in (0..250).map(|number| format!("other/{number}")).chain(["cat".to_owned()]) {
        sqlx::query("INSERT INTO pending_invalidations VALUES (?, 7, UTC_TIMESTAMP(6) - INTERVAL 7 SECOND)")
            .bind(key)
            .execute(&scene.pool)
            .await
            .unwrap();
    }
    eventually("the notes are gone", PATIENCE, async || scene.pending_count().await == 0).await;
    assert_eq!(gateway.get("/images/cat").await.failure(), 404);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_everything_empties_the_cache_too() {
    let (scene, _worker, gateway) = Scene::running().await;
    for image in samples::all() {
        let path = format!("/images/{}", image.name);
        gateway.put(&path, image.bytes).await;
        gateway.get(&path).await;
    }
    gateway.fills_end().await;
    assert_eq!(scene.cache_stats().await.unwrap().key_count, 7);
    assert_eq!(gateway.post("/api/delete_all").await.status, 200);
    assert_eq!(scene.cache_stats().await.unwrap().key_count, 0);
    for image in samples::all() {
        assert_eq!(gateway.get(&format!("/images/{}", image.name)).await.status, 404);
    }
    assert_eq!(scene.file_count(), 0);
    scene.nothing_is_pending().await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_key_without_an_image_drops_what_an_operator_put_there() {
    let (scene, _worker, gateway) = Scene::running().await;
    scene.ask("cache.put.ghost", samples::chelsea().bytes).await.unwrap();
    assert_eq!(gateway.get("/images/ghost").await.cache(), "hit");
    assert_eq!(gateway.delete("/images/ghost").await.failure(), 404);
    assert_eq!(gateway.get("/images/ghost").await.failure(), 404);
    gateway.stop().await.unwrap();
}
