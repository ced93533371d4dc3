//! What keeps a replaced image from being served again.

use std::time::Duration;

use testkit::{NatsServer, eventually, samples};
use wire::reply::Code;
use wire::{Lease, Meta, subject};

use crate::helpers::{Got, PATIENCE, Scene, code, key};

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_an_invalidation_or_a_clear_overtook_is_refused() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let image = samples::chelsea();
    let lease = scene.lease("cat").await;
    scene.ask(&subject::invalidate(&key("cat")), "", None).await.unwrap();
    assert_eq!(code(scene.fill("cat", image.bytes, lease).await), Code::Conflict);
    let lease = scene.lease("cat").await;
    scene.ask(subject::CLEAR, "", None).await.unwrap();
    assert_eq!(code(scene.fill("cat", image.bytes, lease).await), Code::Conflict);
    assert!(matches!(scene.get("cat").await, Got::Miss(Some(_))));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_given_back_is_void_and_the_next_miss_has_another() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let give_back = async |lease| {
        let meta = Meta { lease: Some(lease), returned: true, ..Meta::default() };
        scene.ask(&subject::put(&key("cat").into()), "", Some(&meta)).await.unwrap();
    };
    let first = scene.lease("cat").await;
    assert!(matches!(scene.get("cat").await, Got::Miss(None)));
    give_back(first).await;
    let second = scene.lease("cat").await;
    // The first one again, or one that never was: the second stays.
    give_back(first).await;
    give_back(Lease(7)).await;
    assert!(matches!(scene.get("cat").await, Got::Miss(None)));
    let image = samples::chelsea().bytes;
    assert_eq!(code(scene.fill("cat", image, first).await), Code::Conflict);
    let odd = Meta { lease: Some(second), returned: true, ..Meta::default() };
    for (meta, bytes) in [(&odd, image), (&Meta { lease: None, ..odd.clone() }, &[][..])] {
        let subject = subject::put(&key("cat").into());
        assert_eq!(code(scene.ask(&subject, bytes, Some(meta)).await), Code::BadRequest);
    }
    scene.fill("cat", image, second).await.unwrap();
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_an_earlier_life_is_refused() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let lease = scene.lease("cat").await;
    worker.stop().await.unwrap();
    let worker = scene.start_worker(&[]).await;
    scene.lease("cat").await;
    assert_eq!(code(scene.fill("cat", samples::chelsea().bytes, lease).await), Code::Conflict);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reconnection_nothing_that_was_held_is_served_and_no_old_lease_fills() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let image = samples::chelsea();
    scene.put("cat", image.bytes).await.unwrap();
    let lease = scene.lease("dog").await;
    scene.server.restart().await;
    eventually("the worker serves again", PATIENCE, async || {
        scene.stats().await.is_some_and(|stats| stats.serving)
    })
    .await;
    assert!(matches!(scene.get("cat").await, Got::Miss(_)));
    assert_eq!(code(scene.fill("dog", image.bytes, lease).await), Code::Conflict);
    scene.put("cat", image.bytes).await.unwrap();
    assert!(matches!(scene.get("cat").await, Got::Hit(_)));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_its_server_gives_up_in_time_and_one_with_the_wrong_password_says_so() {
    let scene = Scene::new().await;
    let error = scene
        .spawn_worker(&["--nats-password", "wrong", "--dependency-timeout-s", "1"])
        .ended()
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("refuses the user memcache"), "{error:#}");
    scene.server.kill().await;
    let ended = scene.spawn_worker(&["--dependency-timeout-s", "1"]).ended();
    let error = tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap_err();
    assert!(format!("{error:#}").contains("NATS at"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_the_server_refuses_something_ends_and_says_what() {
    for right in
        ["cache.invalidate.>", "$JS.STORE.API.$KV.CACHE_OWNERS.0", "$JS.STORE.API.STREAM.CREATE.CACHE_EVENTS"]
    {
        let scene = Scene::on(NatsServer::start_without(&[right]).await).await;
        let ended = scene.spawn_worker(&["--dependency-timeout-s", "5"]).ended();
        let error = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("the NATS server refuses memcache") && error.contains(right), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_to_no_reply_subject_that_is_no_inbox() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let gateway = scene.server.connect("gateway").await;
    for reply in [
        "$JS.API.STREAM.PURGE.CACHE_EVENTS",
        "cache.event.window.memcache-1",
        "cache.clear",
        "_INBOX_operator.x",
    ] {
        gateway.publish_with_reply("cache.stats", reply, "".into()).await.unwrap();
    }
    gateway.flush().await.unwrap();
    // Neither does it end the worker, nor is it taken for a right that is missing.
    eventually("each is counted", PATIENCE, async || {
        scene.stats().await.is_some_and(|stats| stats.refused_answer_count == 4)
    })
    .await;
    assert!(scene.stats().await.unwrap().serving);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capacity_beyond_this_machine_is_refused_at_the_start() {
    let scene = Scene::new().await;
    for capacity in ["0", "99999999"] {
        let error = scene.spawn_worker(&["--cache-capacity-mb", capacity]).ended().await.unwrap_err();
        assert!(format!("{error:#}").contains("capacity_mb"), "{error:#}");
    }
}
