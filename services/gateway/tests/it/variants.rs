//! `/images/{key}?w=…`: variants are made once, cached by themselves, and never older than their image.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use sha2::{Digest as _, Sha256};
use sniff::{Format, Image, Limits};
use testkit::{costly, eventually, samples};

use crate::freshness::{Raced, numbered, race};
use crate::helpers::{Gateway, PATIENCE, Scene, WITHOUT_COPIES};
use crate::http::Answer;

fn image_of(answer: &Answer) -> Image {
    assert_eq!(answer.status, 200, "{}", answer.text());
    sniff::sniff(&answer.body, Limits { max_pixels: 1 << 30 }).unwrap()
}

/// The answer to a read of a variant as soon as it is made. Variants are made at low priority, so a busy machine takes long.
async fn made(gateway: &Gateway, path: &str) -> Answer {
    eventually("the variant is made", PATIENCE * 4, async || {
        let answer = gateway.get(path).await;
        (answer.status != 503).then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn widths_are_made_after_an_upload_where_that_is_set() {
    let (scene, _worker, gateway) = Scene::running_with(&["--variants-at-upload", "320, 1280"]).await;
    gateway.put("/images/retina", samples::retina().bytes).await;
    eventually("both are made", PATIENCE * 4, async || (scene.file_count() == 3).then_some(())).await;
    let first = gateway.get("/images/retina?w=320").await;
    assert_eq!(image_of(&first).width, 320);
    assert_eq!(scene.file_count(), 3);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_width_is_made_once_and_cached_by_itself() {
    let (scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    let sample = samples::retina();
    let stored = gateway.put("/images/a%2Fretina.jpg", sample.bytes).await;
    let whole = stored.header("etag").to_owned();
    let mut tags = vec![whole.clone()];
    for (count, width) in [160, 320, 640, 1280].into_iter().enumerate() {
        let path = format!("/images/a/retina.jpg?w={width}");
        let first = made(&gateway, &path).await;
        assert!(first.cache().starts_with("fwd=miss"), "{}", first.cache());
        assert_eq!(image_of(&first), Image { format: Format::Jpeg, width, height: width });
        assert_eq!(first.header("content-type"), "image/jpeg");
        assert_eq!(first.header("cache-control"), "no-cache");
        let again = eventually("it is a hit", PATIENCE, async || {
            let answer = gateway.get(&path).await;
            answer.is_hit().then_some(answer)
        })
        .await;
        assert!(again.body == first.body);
        assert_eq!(scene.file_count(), count + 2, "the image and its variants");
        let tag = again.header("etag").to_owned();
        assert!(!tags.contains(&tag));

        let asked = [("if-none-match", &*tag)];
        assert_eq!(gateway.send("GET", &path, &asked, b"").await.status, 304);
        let part = gateway.send("GET", &path, &[("range", "bytes=1-4")], b"").await;
        assert_eq!((part.status, &part.body[..]), (206, &first.body[1..=4]));
        let head = gateway.send("HEAD", &path, &[], b"").await;
        assert_eq!((head.status, head.header("content-length")), (200, &*first.body.len().to_string()));
        // In an address with the hash of the original it can be kept for ever.
        let versioned = gateway.get(&format!("{path}&v={}", whole.trim_matches('"'))).await;
        assert_eq!(versioned.header("cache-control"), "public, max-age=31536000, immutable");
        let other = gateway.get(&format!("{path}&v={}", "0".repeat(64))).await;
        assert_eq!(other.header("cache-control"), "no-cache");
        tags.push(tag);
    }
    assert!(gateway.get("/images/a/retina.jpg").await.body == sample.bytes);

    // What is not cached any more comes from its file.
    scene.ask("cache.clear", "").await.unwrap();
    let again = gateway.get("/images/a/retina.jpg?w=160").await;
    assert_eq!((again.cache(), again.header("etag")), ("fwd=miss; stored", &*tags[1]));
    assert_eq!(scene.file_count(), 5);

    // The worker knows it as an entry of its own.
    let entry = scene.ask("cache.get.a%2Fretina%2Ejpg.w160", "").await.unwrap();
    assert!(entry.payload == again.body);
    let keys = scene.ask("cache.keys", r#"{"sort":"key"}"#).await.unwrap();
    let keys: serde_json::Value = serde_json::from_slice(&keys.payload).unwrap();
    assert_eq!(
        (&keys["keys"][0]["key"], &keys["keys"][0]["variant"]),
        (&"a/retina.jpg".into(), &"w160".into())
    );
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_wider_comes_as_it_is() {
    let (scene, _worker, gateway) = Scene::running().await;
    let sample = samples::chelsea();
    let stored = gateway.put("/images/cat", sample.bytes).await;
    for _ in 0..2 {
        let answer = gateway.get("/images/cat?w=640").await;
        assert!(answer.body == sample.bytes);
        assert_eq!(answer.header("etag"), stored.header("etag"));
    }
    assert_eq!(scene.file_count(), 1);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_go_with_their_image() {
    let (scene, _worker, gateway) = Scene::running().await;
    gateway.put("/images/cat", samples::coffee().bytes).await;
    let old = gateway.get("/images/cat?w=160").await;
    gateway.get("/images/cat?w=320").await;
    assert!(gateway.get("/images/cat?w=160").await.cache().starts_with("hit"));
    gateway.put("/images/cat", samples::astronaut().bytes).await;
    assert_eq!(scene.cache_stats().await.unwrap().key_count, 0);
    let new = gateway.get("/images/cat?w=160").await;
    assert_eq!((image_of(&old).height, image_of(&new).height), (107, 160));
    assert_ne!(old.header("etag"), new.header("etag"));
    eventually("the old files are gone", PATIENCE, async || scene.file_count() == 2).await;

    let invalidated = scene.ask("cache.invalidate.cat", "").await.unwrap();
    assert!(invalidated.payload.starts_with(br#"{"resident":true,"#), "{:?}", invalidated.payload);
    assert_eq!(gateway.get("/images/cat?w=160").await.cache(), "fwd=miss; stored");

    assert_eq!(gateway.delete("/images/cat").await.status, 204);
    assert_eq!(gateway.get("/images/cat?w=160").await.failure(), 404);
    eventually("all files are gone", PATIENCE, async || scene.file_count() == 0).await;

    for name in ["a", "b"] {
        gateway.put(&format!("/images/{name}"), samples::coffee().bytes).await;
        gateway.get(&format!("/images/{name}?w=160")).await;
    }
    gateway.post("/api/delete_all").await;
    assert_eq!(scene.file_count(), 0);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_have_it_made_once() {
    let (scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    gateway.put("/images/cat", samples::retina().bytes).await;
    let answers = join_all((0..20).map(|_| gateway.get("/images/cat?w=640"))).await;
    for answer in &answers {
        assert!(answer.status == 200 && answer.body == answers[0].body);
    }
    assert_eq!(scene.file_count(), 2);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_variants_are_made_and_found_all_the_same() {
    let scene = Scene::new().await;
    let gateway = scene.start_gateway(&["--cache-budget-ms", "50"]).await;
    // No worker runs, so nobody acknowledges the change at first.
    gateway.put("/images/cat", samples::retina().bytes).await;
    let first = gateway.get("/images/cat?w=320").await;
    assert_eq!((image_of(&first).width, first.cache()), (320, "fwd=bypass; detail=cache-unavailable"));
    assert_eq!(scene.file_count(), 2);
    assert!(gateway.get("/images/cat?w=320").await.body == first.body);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_wrongly_is_said_to_be_wrong() {
    let (scene, _worker, gateway) = Scene::running().await;
    gateway.put("/images/cat", samples::retina().bytes).await;
    for query in ["w", "w=", "w=100", "w=0", "w=-1", "w=99999999999", "w=320px"] {
        let answer = gateway.get(&format!("/images/cat?{query}")).await;
        assert_eq!(answer.failure(), 400);
        assert!(answer.text().contains("w must be 160, 320, 640 or 1280, got"), "{}", answer.text());
    }
    assert_eq!(gateway.put("/images/cat?w=160", samples::coffee().bytes).await.failure(), 400);
    assert_eq!(gateway.delete("/images/cat?w=160").await.failure(), 400);
    assert_eq!(gateway.get("/images/dog?w=160").await.failure(), 404);
    assert!(gateway.get("/images/cat").await.body == samples::retina().bytes);

    // A lossless WebP whose structure is sound, and whose pixels are nothing.
    let mut broken = b"RIFF\0\0\0\0WEBPVP8L\x40\0\0\0\x2f".to_vec();
    broken.extend((799u32 | 599 << 14).to_le_bytes());
    broken.resize(20 + 0x40, 0xff);
    let length = u32::try_from(broken.len() - 8).unwrap();
    broken[4..8].copy_from_slice(&length.to_le_bytes());
    assert_eq!(gateway.put("/images/broken", &broken).await.status, 201);
    assert!(gateway.get("/images/broken").await.body == broken);
    let answer = gateway.get("/images/broken?w=160").await;
    assert_eq!(answer.failure(), 422);
    assert!(answer.text().contains("can't be decoded"), "{}", answer.text());
    assert_eq!(scene.file_count(), 2);
    gateway.stop().await.unwrap();
}

/// The entity tag of the variant of width 160 of the image `bytes`.
fn tag_of_variant(bytes: &[u8]) -> String {
    let hash = Sha256::new().chain_update("pixcache variant 3 w160").chain_update(Sha256::digest(bytes));
    let etag: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{etag}\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_variant_is_older_than_the_last_upload_that_was_answered() {
    for flags in [WITHOUT_COPIES, ["--near-cache-mb", "16"]] {
        let (scene, _worker, one) = Scene::running_with(&flags).await;
        let two = scene.start_gateway(&flags).await;
        // An image with another number has another hash, and its variant another tag.
        let tags = Mutex::new(HashMap::new());
        let number = |answer: &Answer| {
            let mut tags = tags.lock().unwrap();
            while !tags.contains_key(answer.header("etag")) {
                let number = tags.len() as u64;
                tags.insert(tag_of_variant(&numbered(number)), number);
                assert!(number < 5000, "{} is the tag of no upload", answer.header("etag"));
            }
            tags[answer.header("etag")]
        };
        race(&one, &two, Raced { path: "/images/cat?w=160", number: &number, is_hit: &Answer::is_hit }).await;
        two.stop().await.unwrap();
        one.stop().await.unwrap();
    }
}

/// Removes the files of all images, so that nothing can be decoded any more.
fn remove_files(scene: &Scene) {
    let mut folders = vec![scene.folder.path().join("images")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { std::fs::remove_file(path).unwrap() }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_take_too_long_to_decode_is_not_stored() {
    let (scene, _worker, gateway) = Scene::running().await;
    let scans = costly::jpeg_of_scans(10_000, 10_000, 101);
    // 200 x 200 pixels, of which little is said.
    let gif = |frames: usize| {
        let frame = b",\0\0\0\0\xC8\0\xC8\0\0\x02\x01a\0";
        [b"GIF89a\xC8\0\xC8\0\0\0\0", &frame.repeat(frames)[..], b";"].concat()
    };
    let answer = gateway.put("/images/scans", &scans).await;
    assert_eq!(answer.failure(), 413);
    assert!(
        answer.text().contains("scans x pixels must be at most 1600000000, got 1700000000"),
        "{}",
        answer.text()
    );
    // Many frames are too many only if they are large.
    assert_eq!(gateway.put("/images/frames", &gif(2501)).await.status, 201);
    assert_eq!(gateway.delete("/images/frames").await.status, 204);
    assert_eq!(gateway.get("/images/scans").await.status, 404);
    eventually("nothing is left of them", PATIENCE, async || scene.file_count() == 0).await;
    gateway.stop().await.unwrap();

    let small = scene.start_gateway(&["--max-image-megapixels", "1"]).await;
    let answer = small.put("/images/scans", &costly::jpeg_of_scans(1000, 1000, 17)).await;
    assert_eq!(answer.failure(), 413);
    assert_eq!(small.put("/images/frames", &gif(2500)).await.status, 201);
    let answer = small.put("/images/frames", &gif(2501)).await;
    assert_eq!(answer.failure(), 413);
    let sentence = "frames x pixels must be at most 100000000, got 100040000";
    assert!(answer.text().contains(sentence), "{}", answer.text());
    assert!(small.get("/images/frames").await.body == gif(2500));
    small.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_decoded_is_remembered_whatever_key_it_has() {
    let (scene, _worker, generous) = Scene::running_with(&["--max-image-megapixels", "4000"]).await;
    // Stored while the limit was another one.
    let scans = costly::jpeg_of_scans(10_000, 10_000, 101);
    for key in ["one", "two"] {
        assert_eq!(generous.put(&format!("/images/{key}"), &scans).await.status, 201);
    }
    generous.stop().await.unwrap();
    let gateway = scene.start_gateway(&[]).await;
    let first = gateway.get("/images/one?w=320").await;
    assert_eq!(first.failure(), 422);
    assert!(first.text().contains("scans x pixels must be at most 1600000000"), "{}", first.text());
    remove_files(&scene);
    let if_none_match = [("if-none-match", "\"x\"")];
    for key in ["one", "two"] {
        let path = format!("/images/{key}?w=320");
        let answers = join_all((0..100).map(|_| gateway.get(&path))).await;
        assert!(answers.iter().all(|answer| answer.status == 422 && answer.text() == first.text()));
        assert_eq!(gateway.send("HEAD", &path, &[], b"").await.status, 422);
        assert_eq!(gateway.send("GET", &path, &if_none_match, b"").await.status, 422);
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_that_inflate_a_thousandfold_cost_no_more_than_the_picture() {
    let (_scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    for (number, chunk) in [
        costly::profile(800_000_000),
        costly::compressed_text(800_000_000),
        costly::international_text(800_000_000),
    ]
    .into_iter()
    .enumerate()
    {
        let png = costly::png_with(&[chunk]);
        let paths: Vec<String> = (0..5).map(|key| format!("/images/{number}-{key}")).collect();
        for path in &paths {
            assert_eq!(gateway.put(path, &png).await.status, 201);
        }
        let asked = paths.iter().map(async |path| made(&gateway, &format!("{path}?w=160")).await);
        for answer in join_all(asked).await {
            assert_eq!((image_of(&answer).width, image_of(&answer).height), (160, 160));
        }
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_who_wait_for_variants_cost_others_no_answer() {
    // Of 40 turns 10 are for them.
    let flags = [&["--max-requests", "40"], &WITHOUT_COPIES[..]].concat();
    let (_scene, _worker, gateway) = Scene::running_with(&flags).await;
    let slow = costly::black_png(10_000, 9000, 8, 2, true);
    for number in 0..30 {
        assert_eq!(gateway.put(&format!("/images/slow{number}"), &slow).await.status, 201);
    }
    let small = samples::chelsea().bytes;
    gateway.put("/images/small", small).await;
    gateway.put("/images/cold", small).await;
    gateway.put("/images/wide", samples::coffee().bytes).await;
    gateway.get("/images/small").await;
    let wide = gateway.get("/images/wide?w=160").await;
    let done = AtomicBool::new(false);
    let crowd = async {
        let answers = join_all(
            (0..120).map(async |number| gateway.get(&format!("/images/slow{}?w=160", number % 30)).await),
        )
        .await;
        done.store(true, Ordering::SeqCst);
        answers
    };
    let honest = async {
        let mut rounds = 0;
        while !done.load(Ordering::SeqCst) || rounds == 0 {
            for path in ["/", "/images/small", "/images/cold", "/healthz"] {
                let answer = gateway.get(path).await;
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            }
            rounds += 1;
        }
        rounds
    };
    let (answers, rounds) = tokio::join!(crowd, honest);
    let (mut served, mut busy, mut late) = (0, 0, 0);
    for answer in &answers {
        match (answer.status, answer.header("retry-after")) {
            (200, _) => served += 1,
            (503, "1") => busy += 1,
            (503, "5") => late += 1,
            _ => panic!("{} {}", answer.status, answer.text()),
        }
    }
    println!("{served} had their variants, {busy} were sent away, {late} gave up; {rounds} honest rounds");
    assert!(busy > 0 && busy < answers.len());
    // Nothing is left of the crowd.
    assert_eq!(image_of(&made(&gateway, "/images/slow7?w=160").await).width, 160);
    assert!(gateway.get("/images/wide?w=160").await.body == wide.body);
    gateway.stop().await.unwrap();
}
