//! Getting, putting and filling.

use bytes::Bytes;
use runtime::Bus;
use runtime::bus::RequestFailure;
use testkit::samples;
use wire::inspect::{InvalidateReply, KeySort, KeysReply, KeysRequest};
use wire::reply::Code;
use wire::{Meta, Refill, subject};

use crate::helpers::{Got, PATIENCE, Scene, code, key, tag_of};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_by_request_comes_back_byte_for_byte_with_type_and_tag() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    for image in samples::all() {
        let reply = scene.put(image.name, image.bytes).await.unwrap();
        assert!(reply.stored);
        assert_eq!(reply.tag, tag_of(image.bytes).to_string());
        let Got::Hit(got) = scene.get(image.name).await else { panic!("{} is resident", image.name) };
        assert!(got.payload == image.bytes, "{} came back changed", image.name);
        assert_eq!(got.meta.content_type, Some(reply.content_type));
        assert_eq!(got.meta.tag, Some(tag_of(image.bytes)));
    }
    assert_eq!(scene.stats().await.unwrap().key_count, 7);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_the_tag_gets_no_bytes() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let image = samples::chelsea();
    scene.put("cat", image.bytes).await.unwrap();
    assert!(matches!(scene.get_holding("cat", Some(tag_of(image.bytes))).await, Got::Fresh));
    assert!(matches!(scene.get_holding("cat", Some(tag_of(b"else"))).await, Got::Hit(_)));
    let stats = scene.stats().await.unwrap();
    assert_eq!((stats.counters.hit_count, stats.counters.served_bytes), (2, image.bytes.len() as u64));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_leases_the_fill_to_one_and_the_fill_is_taken_once() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let image = samples::chelsea();
    let lease = scene.lease("cat").await;
    assert!(matches!(scene.get("cat").await, Got::Miss(None)));
    scene.fill("cat", image.bytes, lease).await.unwrap();
    assert_eq!(code(scene.fill("cat", image.bytes, lease).await), Code::Conflict);
    let Got::Hit(got) = scene.get("cat").await else { panic!("the fill is resident") };
    assert_eq!(got.meta.modified_s, Some(1_700_000_000));
    let stats = scene.stats().await.unwrap();
    assert_eq!((stats.counters.fill_count, stats.counters.refused_fill_count), (1, 1));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_and_a_gateway_that_would_not_fill_leave_the_lease_to_others() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let subject = subject::get(&key("cat").into());
    let look = Meta { look: true, ..Meta::default() };
    for (asker, meta) in [(&scene.operator, None), (&scene.gateway, Some(&look))] {
        let asked = asker.request(subject.clone(), meta, Bytes::new(), PATIENCE).await;
        let Err(RequestFailure::Refused(refused)) = asked else { panic!("nothing is resident") };
        assert_eq!((refused.refusal.code, refused.meta.lease), (Code::NotFound, None));
    }
    assert_eq!(scene.stats().await.unwrap().counters.miss_count, 2);
    scene.lease("cat").await;
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_hands_out_the_lease_to_fill_anew_if_it_is_asked_for() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let image = samples::chelsea().bytes;
    let invalidate = async |asker: &Bus, refill: Option<Refill>| {
        let meta = refill.map(|refill| Meta { refill: Some(refill), ..Meta::default() });
        let subject = subject::invalidate(&key("cat"));
        asker.request(subject, meta.as_ref(), Bytes::new(), PATIENCE).await.unwrap().meta.lease
    };
    let (gateway, resident) = (&scene.gateway, Some(Refill::Resident));
    assert_eq!(invalidate(gateway, resident).await, None);
    let lease = invalidate(gateway, Some(Refill::Any)).await.unwrap();
    assert!(matches!(scene.get("cat").await, Got::Miss(None)), "the lease is out");
    scene.fill("cat", image, lease).await.unwrap();
    assert_eq!(invalidate(gateway, None).await, None);

    let lease = scene.lease("cat").await;
    scene.fill("cat", image, lease).await.unwrap();
    let lease = invalidate(gateway, resident).await.unwrap();
    // The next invalidation voids it, and nothing is resident any more.
    assert_eq!(invalidate(gateway, resident).await, None);
    assert_eq!(code(scene.fill("cat", image, lease).await), Code::Conflict);

    // Only a gateway fills.
    scene.put("cat", image).await.unwrap();
    assert_eq!(invalidate(&scene.operator, resident).await, None);
    assert_eq!(scene.stats().await.unwrap().counters.request_count, 2);

    scene.configure(r#"{"policy":"none"}"#).await;
    assert_eq!(invalidate(gateway, Some(Refill::Any)).await, None);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_once_is_not_let_in_while_it_would_evict() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&["--cache-capacity-mb", "1", "--cache-admission", "second"]).await;
    let image = samples::chelsea().bytes;
    let fill = async |name: &str| {
        let lease = scene.lease(name).await;
        scene.fill(name, image, lease).await.unwrap();
    };
    let most = (1 << 20) / image.len();
    for number in 0..most {
        fill(&format!("{number}")).await;
    }
    assert!(matches!(scene.get("cat").await, Got::Miss(None)));
    assert!(matches!(scene.get("dog").await, Got::Miss(None)));
    assert_eq!(scene.stats().await.unwrap().counters.eviction_count, 0);
    fill("cat").await;
    assert_eq!(scene.stats().await.unwrap().counters.eviction_count, 1);

    // After a clear there is room for all.
    scene.clear().await;
    fill("horse").await;
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_too_large_for_the_cache_or_the_bus_is_rejected_and_counted() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&["--cache-capacity-mb", "1"]).await;
    let mut large = samples::chelsea().bytes.to_vec();
    large.resize(1_000_000, 0);
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    assert_eq!(code(scene.put("cat", &large).await), Code::TooLarge);
    // The older value under its key is gone, and this miss leases.
    let lease = scene.lease("cat").await;
    let declared = Meta { size: Some(12_000_000), lease: Some(lease), ..Meta::default() };
    assert_eq!(code(scene.ask(&subject::put(&key("cat").into()), "", Some(&declared)).await), Code::TooLarge);
    assert_eq!(scene.stats().await.unwrap().counters.rejection_count, 2);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn resident_keys_are_listed_and_invalidated() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let image = samples::chelsea();
    for name in ["a/1", "a/2", "b.png"] {
        scene.put(name, image.bytes).await.unwrap();
    }
    let list: KeysReply = scene.ask_json(subject::KEYS, "").await.unwrap();
    assert_eq!(list.keys.first().unwrap().key, key("b.png"));
    let request = KeysRequest { prefix: "a/".into(), limit: 1, sort: KeySort::Key, ..KeysRequest::default() };
    let list: KeysReply =
        scene.ask_json(subject::KEYS, &serde_json::to_string(&request).unwrap()).await.unwrap();
    assert_eq!((list.keys[0].key.as_str(), list.next.as_deref()), ("a/1", Some("a/1")));
    let reply: InvalidateReply = scene.ask_json(&subject::invalidate(&key("b.png")), "").await.unwrap();
    assert!(reply.resident);
    let reply: InvalidateReply = scene.ask_json(&subject::invalidate(&key("b.png")), "").await.unwrap();
    assert!(!reply.resident);
    assert!(matches!(scene.get("b.png").await, Got::Miss(_)));
    assert_eq!(scene.stats().await.unwrap().counters.invalidation_count, 2);
    worker.stop().await.unwrap();
}
