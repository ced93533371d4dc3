//! Whatever comes in gets an answer, changes nothing, and ends nothing.

use futures_util::StreamExt as _;
use runtime::bus::RequestFailure;
use testkit::{eventually, samples};
use wire::reply::Code;
use wire::{ConfigReply, Meta, subject};

use crate::helpers::{Got, PATIENCE, Scene, code, key, tag_of, type_of};

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_request_is_refused_with_the_code_for_it() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let chelsea = samples::chelsea().bytes.to_vec();
    let truncated = &chelsea[..chelsea.len() / 2];
    let mut huge = chelsea[..33].to_vec();
    // A header that claims 60,000 x 60,000, with the checksum that belongs to it.
    huge[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    huge[29..33].copy_from_slice(&0x0fb0e215_u32.to_be_bytes());
    let long_key = format!("cache.get.{}", "x".repeat(256));
    let cases: &[(&str, &[u8], Code)] = &[
        ("cache.get.cat.png", b"", Code::BadRequest),
        ("cache.get.cat%2", b"", Code::BadRequest),
        ("cache.get.%FF", b"", Code::BadRequest),
        ("cache.get.%2E%2E", b"", Code::BadRequest),
        ("cache.get.%0A", b"", Code::BadRequest),
        ("cache.get.cat", b"much", Code::BadRequest),
        ("cache.get.cat", b"-1", Code::BadRequest),
        (&long_key, b"", Code::BadRequest),
        ("cache.invalidate.a.b", b"", Code::BadRequest),
        ("cache.put.cat", b"", Code::Unprocessable),
        ("cache.put.cat", b"hello, this is text", Code::UnsupportedType),
        ("cache.put.cat", b"<svg xmlns='http://www.w3.org/2000/svg'/>", Code::UnsupportedType),
        ("cache.put.cat", truncated, Code::Unprocessable),
        ("cache.put.cat", &huge, Code::TooLarge),
        ("cache.keys", b"{\"limit\":0}", Code::BadRequest),
        ("cache.keys", b"{\"limit\":1001}", Code::BadRequest),
        ("cache.keys", b"{\"limit\":-1}", Code::BadRequest),
        ("cache.keys", b"{\"sort\":\"age\"}", Code::BadRequest),
        ("cache.keys", b"{\"after\":\"x\"}", Code::BadRequest),
        ("cache.keys", b"\xff\xfe", Code::BadRequest),
        ("cache.watch", b"{\"seconds\":0}", Code::BadRequest),
        ("cache.watch", b"{\"kinds\":[]}", Code::BadRequest),
        ("cache.watch", b"{\"kinds\":[\"hits\"]}", Code::BadRequest),
        ("cache.clear", b"{\"all\":true}", Code::BadRequest),
        ("cache.clear", b"{\"by\":\"a\\nb\"}", Code::BadRequest),
        ("cache.config.set", b"", Code::BadRequest),
        ("cache.config.set", b"{}", Code::BadRequest),
        ("cache.config.set", b"{\"capacity_mb\":0}", Code::BadRequest),
        ("cache.config.set", b"{\"capacity_mb\":-1}", Code::BadRequest),
        ("cache.config.set", b"{\"capacity_mb\":1e12}", Code::BadRequest),
        ("cache.config.set", b"{\"capacity_mb\":\"abc\"}", Code::BadRequest),
        ("cache.config.set", b"{\"policy\":\"mru\"}", Code::BadRequest),
        ("cache.config.set", b"{\"capacity_mb\":1,\"policy\":\"mru\"}", Code::BadRequest),
        ("cache.config.drop", b"", Code::NotFound),
    ];
    let before: ConfigReply = scene.ask_json(subject::CONFIG_GET, "").await.unwrap();
    for (subject, payload, expected) in cases {
        assert_eq!(
            code(scene.ask(subject, payload.to_vec(), None).await),
            *expected,
            "{subject} {:?}",
            String::from_utf8_lossy(payload)
        );
    }
    assert_eq!(code(scene.ask("cache.nonsense", "", None).await), Code::NotFound);
    let after: ConfigReply = scene.ask_json(subject::CONFIG_GET, "").await.unwrap();
    assert_eq!(before, after);
    assert_eq!(scene.stats().await.unwrap().key_count, 0);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_about_an_image_that_its_bytes_contradict_are_refused() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let image = samples::chelsea();
    let subject = subject::put(&key("cat").into());
    let wrong_type = Meta { content_type: Some("image/gif".into()), ..Meta::default() };
    assert_eq!(code(scene.ask(&subject, image.bytes.to_vec(), Some(&wrong_type)).await), Code::Unprocessable);
    let wrong_tag = Meta { tag: Some(wire::Tag([9; 32])), ..Meta::default() };
    assert_eq!(code(scene.ask(&subject, image.bytes.to_vec(), Some(&wrong_tag)).await), Code::Unprocessable);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_lies_about_what_it_fills_changes_nothing_for_others() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let image = samples::chelsea();
    let subject = subject::put(&key("cat").into());
    let lease = scene.lease("cat").await;
    let truth = Meta {
        content_type: Some(type_of(image.bytes).into()),
        tag: Some(tag_of(image.bytes)),
        modified_s: Some(1_700_000_000),
        lease: Some(lease),
        ..Meta::default()
    };
    let wrong_type = Meta { content_type: Some("image/gif".into()), ..truth.clone() };
    let wrong_tag = Meta { tag: Some(wire::Tag([9; 32])), ..truth.clone() };
    let page = bytes::Bytes::from_static(b"<html><script>alert(1)</script></html>");
    let tag_of_page = Meta { tag: Some(tag_of(&page)), ..truth.clone() };
    for (bytes, lie, expected) in [
        (image.bytes.to_vec().into(), &wrong_type, Code::Unprocessable),
        (image.bytes.to_vec().into(), &wrong_tag, Code::Unprocessable),
        (page.clone(), &tag_of_page, Code::UnsupportedType),
    ] {
        assert_eq!(code(scene.ask(&subject, bytes, Some(lie)).await), expected, "{lie:?}");
        assert_eq!(scene.stats().await.unwrap().key_count, 0);
    }
    // Of a variant, whose tag does not follow from its bytes, those are looked at all the same.
    let small = wire::Item { key: key("cat"), variant: Some("w160".parse().unwrap()) };
    let missed = scene.ask(&subject::get(&small), "", None).await;
    let Err(runtime::bus::RequestFailure::Refused(missed)) = missed else { panic!("{missed:?}") };
    let of_variant = Meta { lease: missed.meta.lease, ..tag_of_page };
    assert_eq!(code(scene.ask(&subject::put(&small), page, Some(&of_variant)).await), Code::UnsupportedType);
    let too_wide = code(scene.ask(&subject::put(&small), image.bytes.to_vec(), None).await);
    assert_eq!(too_wide, Code::Unprocessable, "451 pixels are no variant of 160");
    // Whoever tells the truth fills.
    scene.fill("cat", image.bytes, lease).await.unwrap();
    let Got::Hit(reply) = scene.get("cat").await else { panic!("it is resident") };
    assert!(reply.payload == image.bytes && reply.meta.tag == truth.tag);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_puts_than_may_wait_are_refused_and_none_is_left_without_an_answer() {
    const PUTS: usize = 60;
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let operator = scene.server.connect("operator").await;
    let inbox = operator.new_inbox();
    let mut answers = operator.subscribe(format!("{inbox}.*")).await.unwrap();
    // It is hashed and looked at to its end, which takes longer than sending it.
    let mut image = samples::rocket().bytes.to_vec();
    image.resize(7 << 20, 7);
    let image = bytes::Bytes::from(image);
    // Where this process gets little of the machine, it sends no faster than the worker looks.
    let (mut sent, mut refused) = (0, 0);
    while refused == 0 && sent < 10 * PUTS {
        for number in 0..PUTS {
            let reply = format!("{inbox}.{number}");
            operator.publish_with_reply("cache.put.cat", reply, image.clone()).await.unwrap();
        }
        sent += PUTS;
        for _ in 0..PUTS {
            let answer = tokio::time::timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
            if let Some(headers) = answer.headers {
                assert_eq!(headers.get(wire::reply::ERROR_CODE_HEADER).unwrap().as_str(), "503");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "all {sent} of them waited");
    let stats = scene.stats().await.unwrap();
    assert_eq!(stats.counters.put_count, (sent - refused) as u64);
    assert_eq!((stats.slow_consumer_count, stats.connection_count), (0, 1));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_is_answered_within_the_room_of_whoever_asks() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let image = samples::chelsea().bytes;
    scene.put("cat", image).await.unwrap();
    let subject = subject::get(&key("cat").into());
    let before = scene.stats().await.unwrap().counters;
    match scene.ask(&subject, (image.len() - 1).to_string(), None).await {
        Err(RequestFailure::Refused(refused)) => {
            assert_eq!(refused.refusal.code, Code::TooLarge);
            assert_eq!(refused.meta.size, Some(image.len() as u64));
        }
        other => panic!("it was sent, or not refused: {other:?}"),
    }
    assert_eq!(scene.stats().await.unwrap().counters, before);
    assert_eq!(scene.ask(&subject, image.len().to_string(), None).await.unwrap().payload, image);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_headers_and_messages_without_a_reply_do_no_harm() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let operator = scene.server.connect("operator").await;
    for value in ["tag=12", "lease=zz", "nonsense", "size=-1", "modified=soon"] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(wire::meta::HEADER, value);
        for subject in ["cache.get.cat", "cache.put.cat"] {
            let answer = operator.request_with_headers(subject, headers.clone(), "".into()).await.unwrap();
            let refused = answer.headers.unwrap();
            assert_eq!(
                refused.get(wire::reply::ERROR_CODE_HEADER).unwrap().as_str(),
                "400",
                "{subject} {value}"
            );
        }
    }
    for subject in
        ["cache.get.cat", "cache.put.cat", "cache.clear", "cache.config.set", "cache.keys", "cache.nonsense"]
    {
        operator.publish(subject, "junk".into()).await.unwrap();
    }
    operator.flush().await.unwrap();
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_no_client_would_send_begins_a_new_life_and_ends_no_process() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    for lines in ["X: a\rb", "no header", "X", ": x", "Nats-Expected-Stream: \u{0}", "Pixcache: tag=\u{ff}"] {
        scene.server.publish_with_raw_headers("operator", "cache.get.cat", lines).await;
        eventually("the worker serves", PATIENCE, async || {
            scene.put("cat", samples::chelsea().bytes).await.is_ok()
                && scene.ask("cache.get.cat", "", None).await.is_ok()
        })
        .await;
    }
    eventually("each window is kept", PATIENCE, async || {
        scene
            .stats()
            .await
            .is_some_and(|stats| (stats.pending_window_count, stats.lost_window_count) == (0, 0))
    })
    .await;
    worker.stop().await.unwrap();
}
