//! The near cache: hits without a message, and never an older image than one that was answered.

use std::time::{Duration, Instant};

use testkit::{eventually, samples};
use wire::near::LONGEST_LEASE_MS;

use crate::freshness::race_of_images;
use crate::helpers::{Gateway, PATIENCE, Scene, Worker};

const LEASE: Duration = Duration::from_millis(LONGEST_LEASE_MS);
const NEAR: &str = "hit; detail=near";

async fn near_gateway(scene: &Scene) -> Gateway {
    scene.start_gateway(&["--near-cache-mb", "16"]).await
}

async fn running() -> (Scene, Worker, Gateway) {
    let scene = Scene::new().await;
    let worker = scene.start_worker().await;
    let gateway = near_gateway(&scene).await;
    (scene, worker, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_served_without_the_worker_and_its_hits_are_counted() {
    let (scene, _worker, gateway) = running().await;
    let image = samples::chelsea();
    gateway.put("/images/cat", image.bytes).await;
    let before = scene.cache_stats().await.unwrap().counters;
    let mut seen = Vec::new();
    for _ in 0..40 {
        let answer = gateway.get("/images/cat").await;
        assert_eq!((answer.status, &answer.body[..]), (200, image.bytes));
        seen.push(answer.cache().to_owned());
    }
    assert_eq!(seen[0], "fwd=miss; detail=filling");
    let near = seen.iter().filter(|status| *status == NEAR).count() as u64;
    assert!(near > 30, "{seen:?}");
    eventually("all reads are counted", PATIENCE, async || {
        let now = scene.cache_stats().await.unwrap().counters.since(&before);
        assert!(now.request_count <= 40, "{now:?}");
        now.request_count == 40 && now.hit_count == 39 && now.near_hit_count == near
    })
    .await;
    // A conditional request is answered from the copy as well.
    let tag = gateway.get("/images/cat").await.header("etag").to_owned();
    let fresh = gateway.send("GET", "/images/cat", &[("if-none-match", &tag)], b"").await;
    assert_eq!((fresh.status, fresh.cache()), (304, NEAR));
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_loses_no_hit() {
    let (scene, _worker, gateway) = running().await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    let before = scene.cache_stats().await.unwrap().counters;
    for _ in 0..10 {
        gateway.get("/images/cat").await;
    }
    gateway.stop().await.unwrap();
    assert_eq!(scene.cache_stats().await.unwrap().counters.since(&before).request_count, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_use_is_renewed_without_anybody_waiting_for_it() {
    let (scene, _worker, gateway) = running().await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    gateway.get("/images/cat").await;
    let start = Instant::now();
    let (mut far, mut reads) = (0, 0);
    while start.elapsed() < LEASE * 3 {
        reads += 1;
        far += u32::from(gateway.get("/images/cat").await.cache() != NEAR);
    }
    // Three leases long, and a machine that is busy may miss one of them.
    assert!(far <= 2 && reads > 100, "{far} of {reads} reads asked the worker");
    // Nobody asks any more, so nothing is renewed, and a change waits for nobody.
    assert_eq!(scene.cache_stats().await.unwrap().counters.refused_fill_count, 0);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_short_way_answers_as_the_router_does() {
    const TOKEN: &str = "a-token-for-tests";
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let open: &[&str] = &["--near-cache-mb", "16", "--image-cache-control", "public, max-age=60"];
    let closed = [open, &["--admin-token", TOKEN, "--private"]].concat();
    let far = ["--near-cache-mb", "0"];
    let bearer = format!("Bearer {TOKEN}");
    let token = ("authorization", bearer.as_str());
    for (flags, expected) in [(open, NEAR), (&closed, NEAR), (&far, "hit")] {
        let gateway = scene.spawn_gateway(flags).await;
        eventually("the gateway serves", PATIENCE, async || {
            gateway.send("GET", "/api/openapi.json", &[token], b"").await.status == 200
        })
        .await;
        let stored = gateway.send("PUT", "/images/cat", &[token], samples::chelsea().bytes).await;
        let etag = stored.header("etag").to_owned();
        let version = format!("?v={}", etag.trim_matches('"'));
        let asked: [&[(&str, &str)]; 11] = [
            &[],
            &[("if-none-match", &etag)],
            &[("if-none-match", "\"another\"")],
            &[("if-match", "\"another\"")],
            &[("if-modified-since", "Thu, 01 Jan 2099 00:00:00 GMT")],
            &[("if-unmodified-since", "Thu, 01 Jan 2004 00:00:00 GMT")],
            &[("range", "bytes=5-9")],
            &[("range", "bytes=-3"), ("if-range", &etag)],
            &[("range", "bytes=99999999-")],
            &[("accept", "text/html"), ("origin", "http://elsewhere.example")],
            &[("authorization", "Bearer wrong")],
        ];
        let mut statuses = std::collections::BTreeSet::new();
        let ways = [
            ("GET", "/images/cat".to_owned(), "/images/c%61t".to_owned()),
            ("GET", format!("/images/cat{version}"), format!("/images/c%61t{version}")),
            ("GET", "/images/cat?v=0".to_owned(), "/images/c%61t?v=0".to_owned()),
            ("GET", "/images/dog".to_owned(), "/images/d%6Fg".to_owned()),
            ("POST", "/api/key/cat".to_owned(), "/api/key/c%61t".to_owned()),
            ("POST", "/api/key/dog".to_owned(), "/api/key/d%6Fg".to_owned()),
        ];
        for ((method, short, long), headers) in ways.iter().flat_map(|way| asked.map(|h| (way, h))) {
            for with_token in [true, false] {
                let own: &[(&str, &str)] = if with_token { &[token] } else { &[] };
                let headers = [own, headers].concat();
                // A lease may end between the two, or the machine be busy.
                eventually("both are hits, or refused", PATIENCE, async || {
                    let short = gateway.send(method, short, &headers, b"").await;
                    // An escaped key goes to the router.
                    let long = gateway.send(method, long, &headers, b"").await;
                    if short.status < 400 && (short.cache(), long.cache()) != (expected, expected) {
                        return false;
                    }
                    assert_eq!(short.status, long.status, "{headers:?}");
                    assert_eq!(short.lasting_headers(), long.lasting_headers(), "{headers:?}");
                    assert_eq!(short.body, long.body, "{headers:?}");
                    statuses.insert(short.status);
                    true
                })
                .await;
            }
        }
        let refused = if flags == closed { vec![401] } else { vec![] };
        let all = [vec![200, 206, 304], refused, vec![403, 404, 412, 416]].concat();
        assert_eq!(statuses.into_iter().collect::<Vec<_>>(), all);
        gateway.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_near_hit_is_older_than_the_last_upload_that_was_answered() {
    let (scene, _worker, one) = running().await;
    let two = near_gateway(&scene).await;
    race_of_images(&one, &two, NEAR).await;
    two.stop().await.unwrap();
    one.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_anybody_reaches_every_copy() {
    let (scene, _worker, gateway) = running().await;
    let other = near_gateway(&scene).await;
    let [first, second] = [samples::chelsea().bytes, samples::astronaut().bytes];
    let near = async || {
        gateway.put("/images/cat", first).await;
        gateway.get("/images/cat").await;
        assert_eq!(gateway.get("/images/cat").await.cache(), NEAR);
    };
    near().await;
    scene.ask("cache.put.cat", second).await.unwrap();
    assert_eq!(gateway.get("/images/cat").await.body, second, "an operator's put");
    near().await;
    other.delete("/images/cat").await;
    assert_eq!(gateway.get("/images/cat").await.failure(), 404);
    near().await;
    other.post("/api/delete_all").await;
    assert_eq!(gateway.get("/images/cat").await.failure(), 404);
    near().await;
    scene.configure(r#"{"policy":"none"}"#).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/images/cat").await.cache(), "fwd=miss", "nothing is kept anywhere");
    }
    other.stop().await.unwrap();
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_worker_a_copy_is_served_to_its_leases_end_and_a_change_waits_for_that() {
    let (scene, worker, gateway) = running().await;
    let other = near_gateway(&scene).await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    gateway.get("/images/cat").await;
    gateway.fills_end().await;
    drop(worker);
    let leased = Instant::now();
    assert_eq!(gateway.get("/images/cat").await.cache(), NEAR);
    assert_eq!(other.put("/images/cat", samples::astronaut().bytes).await.status, 200);
    assert!(leased.elapsed() >= LEASE, "the upload was answered after {:?}", leased.elapsed());
    let answer = gateway.get("/images/cat").await;
    assert_eq!(answer.body, samples::astronaut().bytes);
    assert!(answer.cache().starts_with("fwd=bypass"), "{}", answer.cache());
    assert!(scene.cache_stats().await.is_none());
    other.stop().await.unwrap();
    gateway.stop().await.unwrap();
}
